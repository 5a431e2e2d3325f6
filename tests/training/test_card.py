"""Model cards: front matter that the hub reads, Markdown that no name breaks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from text2token.settings.recipe import Recipe
from text2token.settings.record import RunRecord
from text2token.training.card import write_cards

KINDS = ("dense", "sparse")
RUN: dict[str, Any] = {
    "text2token": "0.1.0",
    "command": "text2token fit wiki.txt --output DIR",
    "git": "abc123",
    "verb": "fit",
    "created": "2026-11-23T20:00:00+00:00",
    "machine": {},
    "timings": {},
    "peak_rss_gib": 1.0,
    "files": {},
    "recipe": Recipe(prefix='Text:\n"`', seed=7).model_dump(),
    "corpus": {"name": "wiki.txt", "fingerprint": "f" * 64, "texts": 400_000},
    "backbone": {
        "name": "smollm2-135m",
        "source": "smollm2-135m",
        "dimension": 576,
        "vocabulary": 49_152,
        "sha256": "a",
    },
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "targets": [
        {"stage": 1, "builder": "data-driven", "texts": 2000, "mass_beyond_text": 0.0},
        {"stage": 2, "builder": "combined", "texts": 1500, "mass_beyond_text": 0.3},
    ],
    "before": {"target_loss_stage_1": 9.1, "pair_cosine": float("nan")},
    "after": {"target_loss_stage_1": 6.1, "pair_cosine": 0.5},
}


def render(run: dict[str, Any], folder: Path) -> dict[str, str]:
    for kind in KINDS:
        (folder / kind).mkdir(exist_ok=True)
    write_cards(RunRecord.of(run), folder)
    return {kind: (folder / kind / "README.md").read_text(encoding="utf-8") for kind in KINDS}


def split(card: str) -> tuple[dict[str, Any], str]:
    empty, header, body = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(header), body


def block(body: str, heading: str) -> str:
    """The code block under a heading."""
    tokens = MarkdownIt().parse(body)
    start = next(i for i, token in enumerate(tokens) if token.type == "inline" and token.content == heading)
    return next(token.content for token in tokens[start:] if token.type in ("code_block", "fence"))


def test_front_matter_is_what_the_hub_filters_by(tmp_path):
    headers = {kind: split(card)[0] for kind, card in render(RUN, tmp_path).items()}
    for header in headers.values():
        assert header["library_name"] == "sentence-transformers"
        assert {"sentence-transformers", "text2token", "unsupervised", "feature-extraction"} <= set(header["tags"])
        assert "base_model" not in header
    assert headers["dense"]["pipeline_tag"] == "sentence-similarity"
    assert headers["sparse"]["pipeline_tag"] == "feature-extraction"
    assert "sparse-encoder" in headers["sparse"]["tags"]
    assert "sparse-encoder" not in headers["dense"]["tags"]


@pytest.mark.parametrize(
    ("backbone", "is_hub_id"),
    [
        ("HuggingFaceTB/SmolLM2-135M", True),
        ("smollm2-135m", False),
        ("models/local", False),
        ("/models/local", False),
        ("./local", False),
        ("~/local", False),
        ("a/b/c", False),
        ("models/file.gguf", False),
    ],
)
def test_only_a_hub_id_is_a_base_model(backbone, is_hub_id, tmp_path, monkeypatch):
    (tmp_path / "models" / "local").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for card in render(RUN | {"backbone": RUN["backbone"] | {"name": backbone}}, tmp_path).values():
        assert split(card)[0].get("base_model") == (backbone if is_hub_id else None)


def test_the_recipe_is_whole_and_can_be_pasted_into_a_recipe_file(tmp_path):
    for card in render(RUN, tmp_path).values():
        assert yaml.safe_load(block(card, "Recipe")) == RUN["recipe"]


def test_usage_is_python_for_the_class_of_the_folder(tmp_path):
    cards = render(RUN, tmp_path)
    usage = {kind: block(card, "How to use") for kind, card in cards.items()}
    for code in usage.values():
        compile(code, "card", "exec")
    assert 'SentenceTransformer("path/to/dense")' in usage["dense"]
    assert 'SparseEncoder("path/to/sparse")' in usage["sparse"]
    assert "decode(" in usage["sparse"]


def test_data_numbers_limits_and_origin_are_told(tmp_path):
    for card in render(RUN, tmp_path).values():
        assert "`wiki.txt`, 400,000 texts" in card
        assert "Trained on: 3,500 of these" in card
        assert "| 9.100 | 6.100 | lower is better |" in card
        assert "| – | 0.500 | lower is better, 1 means collapse |" in card
        assert "the first 256 tokens of a text" in card
        assert block(card, "Reproduction").strip() == RUN["command"]
        assert "Seed: `7`" in card
        assert "python 3.11.7, torch 2.13.0" in card


@pytest.mark.parametrize("missing", ["targets", "before", "after"])
def test_a_run_without_an_optional_part_has_cards(missing, tmp_path):
    run = {key: value for key, value in RUN.items() if key != missing}
    for card in render(run, tmp_path).values():
        assert split(card)[0]["library_name"] == "sentence-transformers"
        assert ("nothing was trained" in card) == (missing == "targets")
        assert re.findall("^## .*", card, re.MULTILINE)[-1] == "## Reproduction"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wild=st.text(alphabet=st.characters() | st.sampled_from("`|#*-<>{}\n\\\ud800"), min_size=1))
def test_no_name_changes_the_structure_of_a_card(wild, tmp_path):
    def structure(name: str) -> list[str]:
        named = {
            "corpus": {"name": name, "fingerprint": name},
            "backbone": RUN["backbone"] | {"name": name},
            "command": f"fit {name} x",
        }
        card = render(RUN | named, tmp_path)["dense"]
        tokens = MarkdownIt().parse(split(card)[1])
        spans = sum(child.type == "code_inline" for token in tokens for child in token.children or ())
        return [*(token.type for token in tokens), str(spans)]

    assert structure(wild if wild.strip() else "name") == structure("name")


def test_a_card_says_which_version_of_sentence_transformers_reads_the_folder(tmp_path):
    cards = render(RUN, tmp_path)
    assert "needs sentence-transformers 3.4 or later" in cards["dense"]
    assert "needs sentence-transformers 6.2 or later" in cards["sparse"]
