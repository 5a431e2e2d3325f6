"""The benchmark of the curve: known items, numbers of texts, the choice of rates, figures, and points that are kept."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch

import curve
import curve_points
from conftest import CORPUS, SENTENCES, origin, text2token, untrained, write_lines
from contenders import CORRECTED, OURS
from curve_points import STS, Bench, overall
from known_items import known_item_search, take_sentence
from page_training import context
from pages import render
from text2token.search import Document
from text2token.settings.recipe import Recipe
from trained import READS, recipe_file, texts_for, tokens_of_a_text

LONG = " ".join(SENTENCES[:5])  # 46 words


def documents(number):
    """Documents whose sentences are all distinct."""
    return [
        Document(str(i), f"Title {i}", " ".join(f"{text[:-1]} {i}." for text in SENTENCES[:5])) for i in range(number)
    ]


def test_an_item_is_not_in_its_document():
    found = known_item_search("items", documents(20), 10)
    assert len(found.documents) == len(found.queries) == 10
    assert found.relevant == {key: {key: 1} for key in found.queries}
    titles = [query for query in found.queries.values() if query.startswith("Title")]
    assert len(titles) == 5
    by_id = {document.id: document for document in found.documents}
    originals = {document.text: document for document in documents(20)}
    for key, query in found.queries.items():
        rest = by_id[key]
        assert query not in rest.content
        assert rest.title == ""
        original = next(text for text in originals if rest.text.split(". ")[0] in text)  # which one it was
        assert query in (originals[original].title, *original.replace(". ", ".|").split("|"))
        assert len(rest.text.split()) < len(original.split())
    assert found == known_item_search("items", documents(20), 10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "One sentence that is long enough to be asked for, but leaves nothing behind.",
        "Too short. " * 30,
        f"{SENTENCES[0]} {SENTENCES[0]}",
    ],
)
def test_a_text_without_a_sentence_to_spare_is_no_item(text):
    assert take_sentence(text, random.Random(0)) is None


def test_a_sentence_that_is_repeated_is_taken_out_everywhere():
    for seed in range(5):
        taken, rest = take_sentence(f"{LONG} {LONG}", random.Random(seed))
        assert taken not in rest


def test_documents_without_a_title_and_further_ones_of_a_title_are_left_out():
    same = [Document("a", "Title", LONG), Document("b", "Title", LONG), Document("c", "", LONG)]
    assert len(known_item_search("items", same, 10).documents) == 1


def test_texts_are_counted_as_the_body_reads_them(backbone, monkeypatch):
    """SimCSE reads two views of a text, LLM2Vec's recipe two of every other one, and only ours has a template."""
    load = Recipe.load
    monkeypatch.setattr(Recipe, "load", lambda file: load(file, backbone=backbone("llama")))
    texts = ["the cat", "the dog", "a small cat sat on the mat"]
    plain = sum(len(untrained(backbone("llama")).tokenizer(text)["input_ids"]) for text in texts) / len(texts)
    counted = {method: tokens_of_a_text(method, texts) for method in READS}
    assert counted["simcse"] == 2 * plain
    assert counted["llm2vec"] == 1.5 * plain
    assert counted[OURS] > plain + 3
    assert texts_for(40_000, 40.0) == 1_000
    assert all(recipe_file(method).is_file() for method in READS)


SCORES = {"3e-5": 1.0, "1e-4": 2.0, "3e-4": 3.0, "1e-3": 4.0, "3e-3": 5.0, "1e-2": 2.5, "3e-2": 0.0}


@pytest.mark.parametrize(
    ("middle", "onwards", "tried"),
    [
        ("1e-3", False, ["3e-4", "1e-3", "3e-3"]),
        ("1e-3", True, ["3e-4", "1e-3", "3e-3", "1e-2"]),
        ("3e-5", False, ["3e-5", "1e-4"]),
        ("3e-3", True, ["1e-3", "3e-3", "1e-2"]),
    ],
)
def test_rates_are_tried_until_the_best_has_two_neighbours(middle, onwards, tried):
    asked = []

    def score(rate):
        asked.append(rate)
        return SCORES[rate]

    assert curve.try_rates(middle, score, onwards=onwards) == {rate: SCORES[rate] for rate in tried}
    assert sorted(asked) == sorted(tried)  # none twice


def row(variant, size, sts, *known, **more):
    scores = {STS: sts, **{f"known items, {i}": score for i, score in enumerate(known)}}
    costs = {"texts": 10.0, "tokens": float(size), "minutes": 1.0, "minutes_beside": 0.5}
    found = {"variant": variant, "size": size, "rate": "3e-4", "tried": {}, "seeds": 1, "scores": scores, **costs}
    return {**found, "mean": overall(scores), **more}


POINTS = [
    row(OURS, 100, 80.0, 60.0, 40.0, seeds=3, tried={"3e-4": 80.0, "1e-3": 70.0}),  # mean 65
    row(OURS, 400, 81.0, 70.0, 50.0),  # 70.5
    row("simcse", 100, 60.0, 60.0, 60.0),  # 60
    row("simcse", 400, 68.0, 68.0, 68.0),
    row(f"simcse{CORRECTED}", 100, 64.0, 64.0, 64.0),
    row(f"simcse{CORRECTED}", 400, 60.0, 60.0, 60.0),
]


def test_figures_of_hand_made_points():
    found = curve.figures(POINTS)
    assert found == pytest.approx(
        {"curve_ours_rise": 5.5, "curve_worst_lead": 1.0, "curve_ours_first_stsb": 80.0}
    )  # leads: 65 - 64 and 70.5 - 68


def test_the_page_shows_the_points_and_goals(tmp_path):
    result = {
        "figures": curve.figures(POINTS),
        "details": {"rows": POINTS},
        **origin("curve"),
    }
    page = render("results-training.md.j2", context(result, tmp_path))
    assert "| 5.5 | ≥ 3 | reached |" in page
    assert "| 1 | ≥ 3 | **missed** |" in page
    assert "| ours | 65.0 | 70.5 |" in page
    assert "| SimCSE, corrected | 64.0 | 60.0 |" in page
    assert "| ours | 100 | 3e-4: 80.0, 1e-3: 70.0 |" in page
    assert "ours at 100 tokens is the mean of 3 seeds; all other points have one." in page
    assert "tokens read in training" in (tmp_path / "curve.svg").read_text()


@pytest.fixture
def bench(backbone, tmp_path, monkeypatch):
    """A benchmark on tiny data with a tiny default backbone, whose commands run in this process; ``trained`` lists them."""
    monkeypatch.setenv("TEXT2TOKEN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(backbone("llama"), tmp_path / "cache" / "backbones" / Recipe().backbone)
    data = tmp_path / "data"
    for file in (curve_points.SENTENCES, curve_points.VALIDATION):
        (data / file).parent.mkdir(parents=True)
    (data / curve_points.SENTENCES).write_text("\n".join(CORPUS))
    scored = zip(CORPUS, CORPUS[5:20], strict=False)
    pairs = [{"sentence1": first, "sentence2": second, "score": score} for score, (first, second) in enumerate(scored)]
    write_lines(data / curve_points.VALIDATION, pairs)
    rows = [{"_id": item.id, "title": item.title, "text": item.text} for item in documents(12)]
    write_lines(data / curve_points.SCIFACT / "corpus.jsonl", rows)
    write_lines(data / curve_points.PARAGRAPHS, [{**each, "id": "same"} for each in rows])
    trained = []

    def run(*arguments):
        trained.append(arguments)
        if len(trained) == 2:
            raise KeyboardInterrupt
        assert text2token(*arguments).exit_code == 0

    monkeypatch.setattr("trained.text2token", run)
    return Bench(data, tmp_path / "runs"), trained


def test_a_stopped_curve_continues_and_a_baseline_is_also_corrected(bench, monkeypatch):
    made, trained = bench
    tokens = 40 * tokens_of_a_text("simcse", CORPUS)
    monkeypatch.setattr(curve, "LADDER", ("1e-4", "3e-4"))
    monkeypatch.setattr(curve, "MIDDLE", {"simcse": "3e-4"})
    with pytest.raises(KeyboardInterrupt):
        curve.climb(made, "simcse", [tokens])
    (plain,) = curve.climb(made, "simcse", [tokens])
    assert [each[each.index("--learning-rate") + 1] for each in trained] == [
        "1e-4",
        "3e-4",
        "3e-4",
    ]  # the first one once
    assert plain["tokens"] == pytest.approx(tokens, rel=0.1)
    (corrected,) = curve.climb(made, f"simcse{CORRECTED}", [tokens])
    assert len(trained) == 3  # one training gives both variants
    assert plain["tried"].keys() == {"1e-4", "3e-4"}
    assert plain["scores"].keys() == {STS, "known items, SciFact", "known items, Wikipedia"}
    assert plain["scores"] != corrected["scores"]
    assert corrected["minutes_beside"] > plain["minutes_beside"]
    assert not [*(made.runs / "models").iterdir()]  # only the numbers stay
    points = [json.loads(file.read_text()) for file in (made.runs / "points").iterdir()]
    assert len(points) == 2


def test_vectors_are_scored_as_mteb_does():
    """A perfect order of pairs is 100, and documents that equal their queries are all found."""
    pairs = curve_points.EmbeddedPairs(
        torch.eye(3),
        torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 1, 0]]),
        torch.tensor([3.0, 2.0, 1.0]).double().numpy(),
    )
    items = known_item_search("items", documents(4), 4)
    embedded = curve_points.Embedded(pairs, [(items, torch.eye(4), torch.eye(4))])
    assert curve_points.scores(embedded, lambda vectors: vectors) == pytest.approx({STS: 100, "items": 100})
    shifted = curve_points.Embedded(pairs, [(items, torch.eye(4), torch.eye(4)[[1, 2, 3, 0]])])
    assert curve_points.scores(shifted, lambda vectors: vectors)["items"] == 0
