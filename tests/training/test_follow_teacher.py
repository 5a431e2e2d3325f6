"""Training with a teacher: its similarities are learnt, a killed run goes on, and everything says who taught."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import SENTENCES, refused, untrained
from text2token import Recipe, UserError
from text2token.settings.record import RunRecord
from text2token.targets import store
from text2token.targets.similarity import agreement, similarity_loss
from text2token.targets.teacher import Teacher
from text2token.training import trainer
from text2token.training.adapters import add_adapters
from text2token.training.objective import TokenTargets
from text2token.training.pipeline import fit
from text2token.training.teacher import FollowTeacher

TEXTS = [f"{text[:-1]}, part {i} of {j}." for i in range(8) for j in range(8) for text in SENTENCES]
NEW = [f"{text[:-1]}, part 8 of {j}." for j in range(4) for text in SENTENCES]
QUICK = {
    "max_texts": 120,
    "stage_1": 0.5,
    "held_out": 16,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "calibration_texts": 40,
    "prior_texts": 20,
    "train_length": 40,
}


@pytest.fixture
def recipe(backbone, bert_folder):
    return lambda **settings: Recipe(
        **{"backbone": backbone("llama"), "teacher": str(bert_folder), **QUICK, **settings}
    )


def test_the_gradient_of_the_similarities_reaches_the_adapters(backbone):
    embedder = untrained(backbone("llama"))
    body = add_adapters(embedder.encoder[0].model, 4, 0)
    tokens = TokenTargets(embedder.encoder[1], embedder.decoding_head)
    correction = torch.randn(20, 32)
    rows = [
        {"input_ids": ids, "ids": ids[:1], "weights": [1.0], "teacher": [float(i == j) for j in range(4)]}
        for i, ids in enumerate(embedder.tokenizer(SENTENCES[:4])["input_ids"])
    ]
    gradients, losses = [], []
    for objective in (tokens, FollowTeacher(tokens, correction, 0.5)):
        body.zero_grad()
        loss, embeddings = objective(body, objective.collate(rows, 0))
        loss.backward()
        losses.append(loss.item())
        trained = {name: p.grad for name, p in body.named_parameters() if p.requires_grad}
        gradients.append({name: grad.clone() for name, grad in trained.items() if "lora_B" in name})
    assert min(float((gradients[1][name] - grad).abs().max()) for name, grad in gradients[0].items()) > 1e-6
    expected = 0.5 * similarity_loss(embeddings @ correction.T, torch.eye(4))
    assert losses[1] - losses[0] == pytest.approx(expected.item(), rel=1e-4)
    assert objective.correction.grad is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "bf16"),
    [({}, False), ({}, True), ({"correction": "none"}, False), ({"full": True, "learning_rate": 1e-3}, False)],
)
def test_similarities_come_closer_to_those_of_the_teacher(recipe, bert_folder, tmp_path, monkeypatch, settings, bf16):
    """On texts that were not trained on, and more than those of a model that learnt from token targets alone.

    The teacher is a random model, but its vectors depend on the words. To learn that takes some dozens of steps.
    """
    monkeypatch.setattr("text2token.model.precision.has_bf16", lambda device: bf16)
    many = {"max_texts": 512, **settings}
    taught = fit(TEXTS, tmp_path / "taught", recipe(**many))
    alone = fit(TEXTS, tmp_path / "alone", recipe(teacher=None, **many))
    run = RunRecord.read(tmp_path / "taught" / "run.json")
    assert run.after["teacher_agreement"] > run.before["teacher_agreement"] + 0.2
    assert run.after["target_loss_stage_2"] < run.before["target_loss_stage_2"]
    wanted = torch.from_numpy(Teacher.open(str(bert_folder), 40).embedder.encode(NEW))
    with_it, without = (agreement(torch.from_numpy(model.encode(NEW)), wanted) for model in (taught, alone))
    assert with_it > without + 0.2
    assert "teacher_agreement" not in RunRecord.read(tmp_path / "alone" / "run.json").after


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_a_killed_run_ends_as_one_that_was_never_killed(recipe, tmp_path, monkeypatch, stage):
    monkeypatch.setattr(trainer, "_CHECKPOINT_STEPS", 2)
    monkeypatch.setattr(store, "_SHARD", 30)
    fit(TEXTS, tmp_path / "calm", recipe())
    for killed in ("targets", "training"):
        with monkeypatch.context() as patch:

            def encode(self, texts, reader, whole=Teacher.__call__):
                if (tmp_path / ".killed.work" / f"train-{stage}" / "shard-000000.parquet").is_file():
                    raise KeyboardInterrupt
                return whole(self, texts, reader)

            def step(self, args, state, control, **kwargs):
                if f"stage-{stage}" in args.output_dir and state.global_step == 5:
                    raise KeyboardInterrupt

            if killed == "targets":
                patch.setattr(Teacher, "__call__", encode)
            else:
                patch.setattr(trainer.ShowProgress, "on_step_end", step)
            with pytest.raises(KeyboardInterrupt):
                fit(TEXTS, tmp_path / "killed", recipe())
    with monkeypatch.context() as patch:
        patch.setattr(Teacher, "__call__", lambda *_: pytest.fail("encoded again"))
        fit(TEXTS, tmp_path / "killed", recipe())
    calm, killed = (RunRecord.read(tmp_path / name / "run.json") for name in ("calm", "killed"))
    assert killed.files == calm.files
    assert killed.after == calm.after


def test_a_run_does_not_go_on_with_another_teacher(recipe, bert_folder, tmp_path, monkeypatch):
    place = tmp_path / "teacher"
    shutil.copytree(bert_folder, place)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Teacher, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(TEXTS, tmp_path / "m", recipe(teacher=str(place)))
    weights = load_file(place / "model.safetensors")
    save_file({name: 1.5 * tensor for name, tensor in weights.items()}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="An unfinished run with other settings"):
        fit(TEXTS, tmp_path / "m", recipe(teacher=str(place)))


def test_a_missing_teacher_is_refused_before_any_work(backbone, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    missing = tmp_path / "missing"
    told = refused(
        "fit", texts, "--backbone", backbone("llama"), "--teacher", missing, "--output", tmp_path / "out" / "model"
    )
    assert f"The teacher '{missing}' is not a finished embedder" in told
    assert [file.name for file in tmp_path.iterdir()] == ["texts.txt"]


def test_record_cards_and_report_name_the_teacher(recipe, bert_folder, tmp_path):
    for name, settings in {"taught": {}, "alone": {"teacher": None}}.items():
        fit(TEXTS, tmp_path / name, recipe(max_texts=40, **settings))
    run = json.loads((tmp_path / "taught" / "run.json").read_text())
    assert run["teacher"] == Teacher.open(str(bert_folder), 40).facts.model_dump()
    assert (run["recipe"]["teacher"], run["recipe"]["teacher_weight"]) == (str(bert_folder), 1.0)
    assert json.loads((tmp_path / "alone" / "run.json").read_text())["teacher"] is None
    pages = ["dense/README.md", "sparse/README.md", "report.html"]
    taught, alone = ([(tmp_path / name / page).read_text() for page in pages] for name in ("taught", "alone"))
    for page in taught:
        assert page.count(str(bert_folder)) > 1  # in the recipe, and in words
        assert run["teacher"]["fingerprint"] in page
    for card in taught[:2]:
        assert "follow those of a teacher" in card
        assert "- unsupervised" not in card
        assert "without labels, from" not in card
    for card in alone[:2]:
        assert "of a teacher" not in card
        assert "- unsupervised" in card
        assert "without labels, from" in card
    assert "with the teacher" in " ".join(taught[2].split())
    assert "with the teacher" not in " ".join(alone[2].split())
