"""The benchmark of own documents: what is fitted on what, and its figures and intervals."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import own_corpus
from collection import beir
from conftest import CORPUS, origin, text2token, write_search
from own_corpus import BM25, CONTINUED, MINILM, OWN, WIKIPEDIA, figures, fit_all, summary
from pages import render
from sparse import WAYS
from text2token.settings.recipe import Recipe
from text2token.settings.record import RunRecord

QUERIES = 40


def scores(own, other):
    """Scores of queries: the first half as given, the second half as given plus 0.2."""

    def ways(first, names):
        return dict.fromkeys(names, [first] * (QUERIES // 2) + [first + 0.2] * (QUERIES // 2))

    fitted = {name: ways(value, WAYS) for name, value in {OWN: own, WIKIPEDIA: other, CONTINUED: own}.items()}
    return {BM25: ways(0.5, [BM25]), **fitted, MINILM: ways(0.6, ["dense", "hybrid"])}


def test_figures_and_paired_intervals_of_hand_made_scores():
    found = figures({"a": scores(0.55, 0.5), "b": scores(0.65, 0.5)})
    assert found == pytest.approx(
        {
            "own_corpus_dense_gain": 10.0,
            "own_corpus_hybrid_minus_bm25_min": 5.0,
            "own_corpus_hybrid_minus_hybrid_minilm_min": -5.0,
        }
    )
    table = summary(scores(0.55, 0.5))
    dense = next(row for row in table["ndcg10"] if (row["model"], row["way"]) == (OWN, "dense"))
    assert dense["points"] == pytest.approx(65)
    assert 60 < dense["low"] < 65 < dense["high"] < 70
    for row in table["differences"]:  # all queries differ alike, so a paired interval has no width
        assert row["low"] == pytest.approx(row["points"])
        assert row["high"] == pytest.approx(row["points"])


def test_the_page_shows_rows_and_differences():
    collection = {
        "documents": 1_460,
        "queries": QUERIES,
        "trained": {OWN: {"texts": 4_000, "tokens": 90_000.0, "minutes": 5.0, "minutes of the whole run": 9.0}},
        **summary(scores(0.55, 0.5)),
    }
    unfinished = {model: ways for model, ways in scores(0.55, 0.5).items() if model != CONTINUED}
    result = {
        "figures": figures({"CISI": scores(0.55, 0.5)}),
        "details": {"documents": 500, "collections": {"CISI": collection, "SciFact": collection | summary(unfinished)}},
        **origin("own_corpus"),
    }
    page = render("results-own-corpus.md.j2", {"result": result})
    assert "| 5 | ≥ 4 | reached |" in page
    assert "| own documents, dense | 65.0 (" in page
    assert re.search(r"\| Wikipedia, then own documents, dense \| 65.0 \(.*\) \|  \|", page)
    assert "| BM25 | 60.0 (" in page
    assert "| own documents, hybrid − BM25 | 5.0 (5.0 to 5.0) | 5.0 (5.0 to 5.0) |" in page
    assert "Cut to 500 documents" in page
    assert "| own documents | CISI | 4,000 | 90,000 | 5.0 | 9.0 |" in page


def test_models_read_the_documents_wikipedia_and_both(backbone, tmp_path, monkeypatch):
    """All three are real fits of a tiny backbone; the last one starts from the second one."""
    monkeypatch.setenv("TEXT2TOKEN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(backbone("llama"), tmp_path / "cache" / "backbones" / Recipe().backbone)
    monkeypatch.setattr("trained.text2token", lambda *arguments: ran(text2token(*arguments)))
    collection = beir(write_search(tmp_path / "search"), "tiny", 60)
    (tmp_path / "wikipedia.txt").write_text("\n".join(CORPUS))
    fitted = fit_all(collection, tmp_path / "wikipedia.txt", tmp_path / "runs", 60, continued=True)
    assert list(fitted) == [OWN, WIKIPEDIA, CONTINUED]
    records = {name: RunRecord.read(folder / "run.json") for name, folder in fitted.items()}
    tokens = {name: own_corpus.cost(folder)["tokens"] for name, folder in fitted.items()}
    assert tokens[WIKIPEDIA] == pytest.approx(tokens[OWN], rel=0.1)
    assert tokens[CONTINUED] == tokens[OWN]
    assert records[CONTINUED].corpus == records[OWN].corpus
    assert records[CONTINUED].backbone.name == str(fitted[WIKIPEDIA])
    rows = (tmp_path / "runs" / "texts" / "tiny-60.jsonl").read_text().splitlines()
    assert [json.loads(row)["text"] for row in rows] == [document.content for document in collection.documents]
    monkeypatch.setattr(own_corpus, "REFERENCES", {str(fitted[OWN]): None})  # in place of MiniLM
    found = own_corpus.score_all(collection, fitted, tmp_path / "runs", 60)
    assert found.keys() == {BM25, OWN, WIKIPEDIA, CONTINUED, MINILM}
    assert found[OWN].keys() == WAYS.keys()
    assert found[MINILM] == found[OWN]
    assert found[OWN]["dense"] != found[CONTINUED]["dense"]
    assert len(found[BM25][BM25]) == len(collection.queries)
    assert max(found[BM25][BM25]) > 0.5


def ran(result):
    assert result.exit_code == 0, result.output
