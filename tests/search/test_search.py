"""Search: vectors by hand, BM25 as bm25s has it, an index through all that can happen to it, and the command line."""

from __future__ import annotations

import datetime
import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import bm25s
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

from conftest import CORPUS, SENTENCES, done, refused, untrained, write_lines, write_search
from text2token import Embedder, UserError
from text2token.model.tokens import untruncated
from text2token.search import HYBRID, Columns, Document, Fusion, Index, Match, ScoredId, read_documents
from text2token.search.bm25 import K1, B, idf
from text2token.search.documents import simple_metadata
from text2token.search.encoder import TextEncoder
from text2token.search.engines.by_name import open_engine
from text2token.search.engines.embedded import EmbeddedEngine
from text2token.search.engines.postings import Postings
from text2token.search.fusion import fuse
from text2token.search.reasons import _matches, snippet
from text2token.search.shards.record import corpus_size
from text2token.search.splitting import PartSplitter
from text2token.search.vectors import TokenSpace, TokenVectors
from text2token.settings.search import Calibration, VectorSettings
from text2token.settings.templates import Template

DOCUMENTS = [Document(str(i), f"Title {i}", text) for i, text in enumerate(SENTENCES)]
LONG = " ".join(SENTENCES * 6)
SETTING = ["--template", "none", "--pooling", "mean", "--correction", "centre", "--calibration-texts", "5"]
ENCODER = {"template": Template(), "pooling": "mean"}
SETTINGS = {"encoder": ENCODER, "calibration": Calibration(correction="centre", texts=5)}


@pytest.fixture(scope="module")
def embedder(backbone):
    """Calibrated."""
    made = untrained(backbone("llama"), max_length=40)
    made.calibrate(SENTENCES)
    return made


@pytest.fixture
def index(tmp_path, backbone):
    made = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    made.add(DOCUMENTS)
    return made


@pytest.fixture
def files(tmp_path):
    """``docs.jsonl`` with all documents."""
    rows = [{"id": int(d.id), "title": d.title, "text": d.text} for d in DOCUMENTS]
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def scores(index, query, mode, **options):
    return {hit.id: hit.score for hit in index.rank([query], 100, mode, **options)[0]}


# Documents


def test_every_format_gives_the_same_documents(files):
    rows = [d._asdict() for d in DOCUMENTS]
    pq.write_table(
        pa.table({name: [row[name] for row in rows] for name in ("text", "title", "id")}), files / "d.parquet"
    )
    lines = [f'{d.id},"{d.title}","{d.text}"' for d in DOCUMENTS]
    (files / "d.csv").write_text("\n".join(["key,name,body", *lines]))
    assert list(read_documents(files / "docs.jsonl")) == DOCUMENTS
    assert list(read_documents(files / "d.parquet")) == DOCUMENTS
    assert list(read_documents(files / "d.csv", Columns("key", "name", "body"))) == DOCUMENTS


def test_a_folder_of_texts_has_paths_as_ids(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.md").write_text("# One")
    (tmp_path / "two.txt").write_text(" two ")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "other.bin").write_bytes(b"\xff")
    assert list(read_documents(tmp_path)) == [Document("sub/one.md", "one", "# One"), Document("two.txt", "two", "two")]


def test_files_of_a_folder_that_are_left_out_are_counted(tmp_path, caplog):
    for name in ("a.md", "b.TXT", ".hidden.html", "docs.jsonl", "c.html", "d.html", "LICENSE"):
        (tmp_path / name).write_text("a text")
    assert [document.id for document in read_documents(tmp_path)] == ["a.md", "b.TXT"]
    assert caplog.messages == [
        f"{tmp_path}: reading .txt and .md files; other files left out: 4 (.html, no ending, .jsonl)"
    ]


def test_a_beir_folder_is_read_as_its_corpus(tmp_path, caplog):
    write_search(tmp_path, CORPUS[:12])
    (tmp_path / "README.md").write_text("About this task.")
    source = tmp_path / "corpus.jsonl"
    assert list(read_documents(tmp_path)) == list(read_documents(source))
    assert caplog.messages == [f"{tmp_path}: reading corpus.jsonl; other files left out: 3 (.md, .tsv, .jsonl)"]
    assert corpus_size(tmp_path) == corpus_size(source) == source.stat().st_size
    (tmp_path / "corpus.csv").write_text("id,text\n1,a\n")
    with pytest.raises(UserError, match=r"several tables of documents \(corpus\.csv, corpus\.jsonl\): name the one"):
        list(read_documents(tmp_path))


def test_rows_of_every_format_are_named(tmp_path):
    (tmp_path / "d.csv").write_text("id,text\n1,a\n,b\n")
    with pytest.raises(UserError, match=r"d\.csv, line 3: '' is not an id"):
        list(read_documents(tmp_path / "d.csv"))
    pq.write_table(pa.table({"id": [1.0, None], "text": ["a", "b"]}), tmp_path / "d.parquet")
    read = read_documents(tmp_path / "d.parquet")
    assert next(read).id == "1"
    with pytest.raises(UserError, match=r"d\.parquet, row 2: None is not an id"):
        next(read)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (['{"id": 1, "text": "a"}', '{"id": "1", "text": "b"}'], r"line 2: the id '1' occurs a second time"),
        (['{"id": 1, "text": "  "}'], r"There is no document with text"),
        (['{"id": null, "text": "a"}'], r"line 1: None is not an id"),
        (['{"id": 1, "text": [5]}'], r"line 1: expected a text, found list in 'text'; set `text_column`"),
        (['{"text": "a"}'], r"line 1: no column 'id' among its columns \(text\); set `id_column`"),
        (['{"id": 1, "body": "a"}'], r"no column 'text' among its columns \(id, body\)"),
        ([""], r"no document with text in"),
        (["5"], r"line 1: expected a JSON object such as"),
        (['["id", "text"]'], r"line 1: expected a JSON object such as"),
        (['{"id": 1.5, "text": "a"}'], r"line 1: 1.5 is not an id"),
    ],
)
def test_bad_documents_are_named(tmp_path, rows, sentence):
    (tmp_path / "d.jsonl").write_text("\n".join(rows))
    with pytest.raises(UserError, match=sentence):
        list(read_documents(tmp_path / "d.jsonl"))


def test_a_table_of_titles_has_each_of_them_once(tmp_path):
    (tmp_path / "d.csv").write_text("id,title\n1,A cat\n")
    (document,) = read_documents(tmp_path / "d.csv", Columns(text="title"))
    assert document.content == "A cat"


def test_dates_of_numpy_and_pandas_are_metadata_and_a_missing_one_is_not():
    day = np.datetime64("2020-01-02")
    given = {
        "a": day,
        "b": day.astype("datetime64[ns]"),
        "c": pd.Timestamp(day),
        "d": pd.NaT,
        "e": np.datetime64("NaT"),
    }
    assert simple_metadata(given) == dict.fromkeys("abc", "2020-01-02")


def test_integers_beyond_64_bits_are_metadata_as_texts():
    given = {"a": 2**63, "b": -(2**63) - 1, "c": 2**63 - 1, "d": -(2**63), "e": 10**1_000, "f": 10**10_000}
    assert simple_metadata(given) == {"a": str(2**63), "b": str(-(2**63) - 1), "c": 2**63 - 1, "d": -(2**63)}


def test_two_values_of_one_name_are_refused(tmp_path, index):
    metadata = {"m.u": "top", "m": {"u": "nested"}}
    write_lines(tmp_path / "d.jsonl", [{"id": "x", "text": "cat", **metadata}])
    with pytest.raises(UserError, match=r"d.jsonl, line 1: two values of the metadata are called 'm.u'; rename one$"):
        list(read_documents(tmp_path / "d.jsonl"))
    with pytest.raises(UserError, match=r"^The document 'x': two values of the metadata are called 'm.u'"):
        index.add([Document("x", "", "cat", metadata)])


def test_names_of_metadata_are_cleaned_as_ids_are(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"id": 1, "text": "a", "m\\ud800": 1, " n ": {"\\u0000o": 2}}')
    (document,) = read_documents(tmp_path / "d.jsonl")
    assert document.metadata == {"m": 1, "n.o": 2}


def test_documents_without_text_are_skipped_and_counted_or_refused(tmp_path, caplog):
    rows = ['{"id": 1, "text": "a"}', '{"id": 2, "title": null, "text": " "}', '{"id": 3, "title": "b", "text": ""}']
    (tmp_path / "d.jsonl").write_text("\n".join(rows))
    assert [document.id for document in read_documents(tmp_path / "d.jsonl")] == ["1", "3"]
    assert [record.message for record in caplog.records] == [
        f"Skipped 1 document without text in {tmp_path / 'd.jsonl'}"
    ]
    (tmp_path / "folder").mkdir()
    for name, text in {"a.txt": "A text.", "b.txt": "\n"}.items():
        (tmp_path / "folder" / name).write_text(text)
    assert [document.id for document in read_documents(tmp_path / "folder")] == ["a.txt"]
    for source in ("d.jsonl", "folder"):
        with pytest.raises(UserError, match="a document without text; remove it, or leave `strict` out"):
            list(read_documents(tmp_path / source, strict=True))


def test_other_columns_are_metadata(tmp_path):
    day, moment = datetime.date(2021, 6, 1), datetime.datetime(2021, 6, 1, 12, 30)
    row = {
        "_id": "a",
        "text": "b",
        "id": 7,
        "n": 2.5,
        "yes": True,
        "day": day,
        "midnight": datetime.datetime(2021, 6, 1),
    }
    row |= {
        "moment": moment,
        "list": [1],
        "long": "x" * 1001,
        "empty": "",
        "none": None,
        "in": {"url": "u", "deep": {"x": 1}},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "d.parquet")
    (document,) = read_documents(tmp_path / "d.parquet")
    assert dict(document.metadata) == {
        "id": 7, "n": 2.5, "yes": True, "day": "2021-06-01", "midnight": "2021-06-01", "moment": "2021-06-01T12:30:00",
        "in.url": "u", "in.deep.x": 1,
    }  # fmt: skip
    (tmp_path / "d.csv").write_text("key,name,body,year\n1,t,b,2020\n")
    (document,) = read_documents(tmp_path / "d.csv", Columns("key", "name", "body"))
    assert document == Document("1", "t", "b", {"year": "2020"})


def test_a_file_name_that_is_no_text_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("coffee")
    with pytest.raises(UserError, match=r"caf\\xe9.txt'.*rename the file"):
        list(read_documents(tmp_path))


# Parts


@given(words=st.lists(st.sampled_from([*LONG.split(), "x" * 90]), min_size=1, max_size=120))
def test_no_word_of_a_long_text_is_lost_and_no_part_is_cut(embedder, words):
    encoder = TextEncoder(embedder)
    text = " ".join(words)
    parts = encoder.parts(text)
    assert "".join("".join(parts).split()) == "".join(words)
    lengths = [len(untruncated(embedder.tokenizer).encode(part)) for part in parts]
    assert max(lengths) <= embedder.encoder.max_seq_length


@pytest.mark.parametrize("unit", ["x", "这是一句没有标点的话", "ab1"])
def test_long_texts_without_any_boundary_are_cut_in_linear_work(embedder, monkeypatch, unit):
    splitter, read = PartSplitter(embedder.tokenizer, 64), []

    class Splitter:
        def chunks(self, text):
            read.append(len(text))
            return [text]

    text = unit * (35_000 // len(unit))
    assert "".join(splitter.parts(text[:12_000])) == text[:12_000]
    monkeypatch.setattr(splitter, "_splitter", Splitter())
    assert "".join(splitter.parts(text)) == text
    assert max(read) <= 10_000
    assert splitter.parts("word " * 9_000) == ["word " * 9_000]


def test_ctrl_c_ends_the_cutting_of_a_long_text(embedder, monkeypatch):
    """The splitter is compiled code, which no signal reaches; the stub does not let go either."""
    splitter, end = PartSplitter(embedder.tokenizer, 64), Event()

    class Splitter:
        def chunks(self, text):
            os.kill(os.getpid(), signal.SIGINT)
            with suppress(KeyboardInterrupt):
                end.wait(10)
            return [text]

    monkeypatch.setattr(splitter, "_splitter", Splitter())
    with pytest.raises(KeyboardInterrupt):
        splitter.parts("word " * 20_000)
    end.set()


def test_the_dense_vector_of_a_long_text_is_the_mean_of_its_parts(embedder):
    encoder = TextEncoder(embedder)
    embeddings, owners = encoder.embed([SENTENCES[0], LONG])
    parts = encoder.parts(LONG)
    assert len(parts) > 2
    mean = embedder.encode(parts).mean(axis=0)
    expected = [embedder.encode([SENTENCES[0]])[0], mean / np.linalg.norm(mean)]
    np.testing.assert_allclose(encoder.dense(embeddings, owners, 2), expected, atol=1e-5)


# Vectors


def naive_aligned(embedder, space, texts, k):
    """One text, one part and one token at a time."""
    rows = np.zeros((len(texts), space.width), np.float32)
    for row, text in enumerate(texts):
        for part in TextEncoder(embedder).parts(text):
            for token, logit in enumerate(embedder.logits(embedder.embed([part]))[0].tolist()):
                if space.vocabulary.meaningful[token]:
                    rows[row, space.columns[token]] = max(rows[row, space.columns[token]], logit)
        rows[row][np.argsort(-rows[row])[k:]] = 0
        rows[row] /= rows[row].max()
    return rows


def token_space(embedder):
    return TokenSpace(untruncated(embedder.tokenizer), embedder.vocabulary_size)


def test_blank_entries_share_a_column(embedder):
    padded = TokenSpace(untruncated(embedder.tokenizer), embedder.vocabulary_size + 3)
    space = token_space(embedder)
    assert padded.columns[:-3].tolist() == space.columns.tolist()
    assert set(padded.columns[-3:]) == {space.columns[space.vocabulary.surfaces.index(" ")]}
    assert padded.width == space.width


def test_aligned_tokens_are_those_of_a_naive_count(embedder):
    texts = [SENTENCES[0], LONG]
    space, encoder = token_space(embedder), TextEncoder(embedder)
    found = encoder.aligned(space, *encoder.embed(texts), 2, 20)
    np.testing.assert_allclose(found.toarray(), naive_aligned(embedder, space, texts, 20), atol=1e-4)


def test_texts_at_the_corpus_mean_have_no_aligned_tokens(tmp_path, backbone):
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    index.add([Document(str(i), "", "Same text here.") for i in range(5)])
    literal = token_space(index.embedder).count(["Same text here."])
    first, *others = [index._store.vector(str(i)) for i in range(5)]
    assert set(first) == set(literal.indices.tolist())
    assert others == [first] * 4
    assert [hit.id for hit in index.rank(["some text"], 5, "sparse")[0]] == ["0", "1", "2", "3", "4"]
    batch = ["Same text here.", *SENTENCES]  # another batch has other rounding errors
    encoder = TextEncoder(index.embedder)
    found = encoder.aligned(token_space(index.embedder), *encoder.embed(batch), len(batch), 20)
    assert (found.sum(axis=1) > 0).tolist() == [False, *[True] * len(SENTENCES)]


def test_vectors_of_documents_and_queries_by_hand(embedder):
    space = token_space(embedder)
    maker = TokenVectors(space, VectorSettings(document_share=0.5, query_share=0.25))
    cat, mat, the = (space.names.index(name) for name in ("cat", "mat", "the"))
    counts = space.count(["The cat, the cat the mat"])
    assert [counts[[0], [column]][0] for column in (cat, mat, the)] == [2, 1, 3]
    aligned = csr_array(([1.0], ([0], [cat])), shape=counts.shape)
    length = counts.sum()
    document = maker.documents(counts, aligned, average=length / 2).toarray()[0]
    assert document[mat] == pytest.approx(1 / (1 + K1 * (1 - B + B * 2)))
    assert document[cat] == pytest.approx(2 / (2 + K1 * (1 - B + B * 2)) + 0.5)
    frequencies = np.zeros(space.width, np.int64)
    frequencies[cat] = 3
    query = maker.queries(counts, aligned, frequencies, 10).toarray()[0]
    assert query[cat] == pytest.approx(2.25 * np.log1p(7.5 / 3.5))
    assert query[mat] == pytest.approx(np.log1p(10.5 / 0.5))
    assert query[the] == 0  # a stop word, and the query has others
    only = maker.queries(space.count(["The the"]), None, frequencies, 10).toarray()[0]
    assert only[the] == pytest.approx(2 * np.log1p(10.5 / 0.5))


def test_characters_in_pieces_are_told_apart_and_white_space_is_nothing(embedder):
    space = token_space(embedder)
    snow, star, blank = (set(row.indices) for row in map(space.count, (["☃"], ["★"], [" \n "])))
    assert len(snow | star) > len(snow)
    assert len(snow & star) < len(snow)
    assert blank == set()
    assert set(space.count(["CAT sat"]).indices) == set(space.count(["cat sat"]).indices)


# BM25


def test_bm25_scores_are_those_of_bm25s(index):
    rng = random.Random(0)
    words = LONG.split()
    more = [Document(f"m{i}", "", " ".join(rng.choices(words, k=rng.randint(3, 60)))) for i in range(60)]
    fresh = Index.create(index._folder.parent / "other", index.settings.model, **SETTINGS)
    fresh.add([*DOCUMENTS, *more])
    everything = [*DOCUMENTS, *more]
    options = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    reference = bm25s.BM25(method="lucene")
    reference.index(bm25s.tokenize([d.content for d in everything], **options), show_progress=False)
    for query in ["the cat cat and stars", "rates of interest", "number astronomers 7", "Banks raised the bank"]:
        (tokens,) = bm25s.tokenize([query], return_ids=False, **options)
        expected = {d.id: s for d, s in zip(everything, reference.get_scores(tokens), strict=True) if s > 0}
        assert scores(fresh, query, "bm25") == pytest.approx(expected, rel=1e-5)


def test_idf_follows_the_documents_that_are_there_now(index):
    before = scores(index, "telescope", "bm25")
    index.add([Document("new", "", "A telescope.")])
    after = scores(index, "telescope", "bm25")
    assert after["5"] / before["5"] == pytest.approx(idf(np.array([2]), 11)[0] / idf(np.array([1]), 10)[0], rel=1e-5)
    assert index.delete(["new", "nowhere"]) == 1
    assert scores(index, "telescope", "bm25") == before


# The index


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_matches_add_up_to_the_score_of_each_field(tmp_path, backbone, family):
    index = Index.create(tmp_path / "index", backbone(family), **SETTINGS)
    index.add(DOCUMENTS)
    for mode in ("sparse", "bm25"):
        for inference_free in (True, False):
            found = index.search("young stars of a galaxy", mode=mode, inference_free=inference_free)
            assert found.note is None
            assert found.hits
            for hit in found.hits:
                assert {match.field for match in hit.matches} == {mode}
                assert sum(match.amount for match in hit.matches) == pytest.approx(hit.score, rel=1e-4)
    assert index.search("young stars of a galaxy", mode="bm25").hits[0].title == "Title 5"
    assert "galaxy" in index.search("galaxy", 1, "bm25").hits[0].snippet
    for fusion in (HYBRID, Fusion("rrf", {"dense": 2.0}, depth=3)):
        found = index.search(DOCUMENTS[5].content, fusion=fusion)
        assert {match.field for hit in found.hits for match in hit.matches} == {"sparse", "bm25"}
        assert next(hit for hit in found.hits if hit.id == DOCUMENTS[5].id).dense > 0
        for hit in found.hits:
            assert hit.dense + sum(match.amount for match in hit.matches) == pytest.approx(hit.score, rel=1e-4)
    assert all(hit.dense == hit.score for hit in index.search("stars", mode="dense").hits)


def test_dense_and_hybrid_searches_are_what_engine_and_embedder_say(index):
    embedder = index.embedder
    cosines = embedder.encode([SENTENCES[3]]) @ embedder.encode([d.content for d in DOCUMENTS]).T
    assert scores(index, SENTENCES[3], "dense") == pytest.approx(
        dict(zip((d.id for d in DOCUMENTS), cosines[0].tolist(), strict=True)), abs=1e-5
    )
    fusion = Fusion("rrf")
    rankings = {field: index.rank([SENTENCES[3]], 100, field)[0] for field in index.fields}
    assert index.rank([SENTENCES[3], " "], 3, fusion=fusion) == [fuse(rankings, 3, fusion), []]


def test_an_index_does_not_depend_on_batches(index, monkeypatch):
    queries = [*SENTENCES, " ", "stars"]
    expected = index.rank(queries, 5, "bm25")
    monkeypatch.setattr("text2token.search.searcher._QUERIES", 3)
    monkeypatch.setattr("text2token.utils.databases._PARAMETERS", 2)
    assert index.rank(queries, 5, "bm25") == expected
    monkeypatch.setattr("text2token.search.writer._READ", 3)
    assert index.add([*DOCUMENTS, Document("x", "", "One more telescope.")]) == 1


def test_changes_give_what_a_new_index_gives(index, tmp_path):
    """But for the average lengths, which stay as they were: documents keep them equal here."""
    index.delete(["1", "2"])
    index.add([Document("3", "Title 2", SENTENCES[2]), Document("x", "Title 1", SENTENCES[1]), DOCUMENTS[4]])
    again = Index.open(tmp_path / "index")
    assert len(again) == 9
    kept = [d for d in DOCUMENTS if d.id not in "123"]
    fresh = Index.create(tmp_path / "fresh", again.settings.model, **SETTINGS)
    shutil.copy(tmp_path / "index" / "calibration.safetensors", tmp_path / "fresh")
    fresh._store.set(average_words=again._store.get("average_words"), average_tokens=again._store.get("average_tokens"))
    fresh.add([*kept, Document("3", "Title 2", SENTENCES[2]), Document("x", "Title 1", SENTENCES[1])])
    for mode in ("sparse", "dense", "bm25", "hybrid"):
        assert scores(again, "markets and dogs", mode) == pytest.approx(
            scores(fresh, "markets and dogs", mode), abs=1e-4
        )


def test_what_has_not_changed_is_not_encoded_again(index):
    assert index.add([*DOCUMENTS[:4], Document("4", "Another title", SENTENCES[4])]) == 1


def test_a_killed_build_continues_and_loses_nothing_finished(tmp_path, backbone, monkeypatch):
    whole = Index.create(tmp_path / "whole", backbone("llama"), **SETTINGS)
    whole.add(DOCUMENTS)
    monkeypatch.setattr("text2token.search.writer._ENCODED", 3)
    broken = Index.create(tmp_path / "broken", backbone("llama"), **SETTINGS)
    added = EmbeddedEngine.add
    calls = []

    def killed(engine, ids, vectors, metadata):
        calls.append(ids)
        if len(calls) == 3:
            raise KeyboardInterrupt
        added(engine, ids, vectors, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedEngine, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            broken.add(DOCUMENTS)
    with pytest.raises(UserError, match="is not finished: repeat the command"):
        Index.open(tmp_path / "broken")
    resumed = Index.create(tmp_path / "broken", backbone("llama"), **SETTINGS)
    assert resumed.add(DOCUMENTS) == 4
    for mode in ("sparse", "dense", "bm25"):
        assert scores(resumed, "cats of the garden", mode) == pytest.approx(
            scores(whole, "cats of the garden", mode), abs=1e-5
        )


def test_a_note_says_when_an_index_learns_from_few_documents(tmp_path, backbone, caplog):
    def notes(name, count):
        caplog.clear()
        index = Index.create(tmp_path / name, backbone("llama"), encoder=ENCODER)
        index.add([Document(str(i), "", text) for i, text in enumerate(CORPUS[:count])])
        index.add([Document("more", "", "The first documents were the ones to learn from.")])
        return [record.message for record in caplog.records]

    advice = "and keeps them: build it again when it has 48 documents or more."
    assert notes("few", 47) == [f"The index learns its corpus mean and correction from 47 documents {advice}"]
    assert notes("one", 1) == [f"The index learns its corpus mean and correction from 1 document {advice}"]
    assert notes("enough", 48) == []


def test_a_build_that_is_repeated_with_other_documents_has_those(tmp_path, backbone, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    first = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr("text2token.search.writer._ENCODED", 3)
        patch.setattr(EmbeddedEngine, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            first.add(DOCUMENTS)
    again = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    again.add(DOCUMENTS[:4])
    assert len(Index.open(tmp_path / "index")) == 4
    assert scores(again, "telescope stars", "bm25") == {}
    assert again._store.get("documents") == 4


@pytest.mark.parametrize("same_object", [True, False])
@pytest.mark.parametrize("kept", [0, 3], ids=["other documents", "some of them"])
def test_a_build_that_is_repeated_with_other_documents_learns_from_those(
    tmp_path, backbone, monkeypatch, kept, same_object
):
    def killed(*_):
        raise KeyboardInterrupt

    first = [document._replace(text=f"{document.text} {LONG}", metadata={"gone": 1}) for document in DOCUMENTS]
    first[:kept] = DOCUMENTS[:kept]
    settings = {"encoder": ENCODER, "calibration": Calibration(correction="centre")}
    fresh = Index.create(tmp_path / "fresh", backbone("llama"), **settings)
    fresh.add(DOCUMENTS)
    again = Index.create(tmp_path / "again", backbone("llama"), **settings)
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedEngine, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            again.add(first)
    if not same_object:
        again = Index.create(tmp_path / "again", backbone("llama"), **settings)
    assert again.add(DOCUMENTS) == len(DOCUMENTS)
    assert again.metadata_columns == []
    for average in ("average_words", "average_tokens"):
        assert again._store.get(average) == fresh._store.get(average)
    learnt, expected = (load_file(index._folder / "calibration.safetensors") for index in (again, fresh))
    for name, tensor in expected.items():
        np.testing.assert_allclose(learnt[name], tensor, atol=1e-5)
    for mode in ("sparse", "dense", "bm25"):
        assert scores(again, "cats and stars", mode) == pytest.approx(scores(fresh, "cats and stars", mode), abs=1e-4)


def test_a_build_that_is_repeated_with_one_other_document_encodes_that(tmp_path, backbone, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    many = [document._replace(id=f"{document.id}-{copy}") for copy in range(5) for document in DOCUMENTS]
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedEngine, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            index.add(many)
    learnt = index._store.get("average_words")
    assert index.add([many[0]._replace(text="A new text about cats."), *many[1:]]) == 1
    assert index._store.get("average_words") == learnt


def test_an_index_is_searched_from_other_threads(index):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda query: index.search(query, 3).hits, ["cat", "stars"] * 4))
    assert found == [index.search(query, 3).hits for query in ["cat", "stars"] * 4]


def test_what_an_index_cannot_do_without_is_missed(index):
    (index._folder / "calibration.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors' is missing"):
        Index.open(index._folder).search("cat")
    for damage in (lambda file: file.write_text("{"), lambda file: file.unlink()):
        damage(index._folder / "tokenizer" / "tokenizer.json")
        with pytest.raises(UserError, match="is damaged: make it again"):
            Index.open(index._folder)


def test_a_model_that_has_moved_is_named(files, backbone):
    shutil.copytree(backbone("llama"), files / "before")
    done("index", files / "before", files / "docs.jsonl", "--output", files / "index", *SETTING)
    found = done("search", files / "index", "cat", "--json")
    (files / "before").rename(files / "after")
    assert "if it was moved, name its place" in refused("search", files / "index", "cat")
    assert done("search", files / "index", "cat", "--json", "--model", files / "after") == found
    (files / "more.jsonl").write_text('{"id": 77, "text": "One more cat."}')
    done("index", files / "after", "--output", files / "index", "--add", files / "more.jsonl")
    assert "77" in done("search", files / "index", "more cat", "--json", "--model", files / "after")


@pytest.mark.parametrize(
    "rows", ['{"id": 1, "text": ""}', '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}', '{"id": 1}']
)
@pytest.mark.parametrize("there", [True, False])
def test_a_build_that_fails_before_it_has_documents_leaves_nothing(files, backbone, rows, there):
    (files / "bad.jsonl").write_text(rows)
    if there:
        (files / "index").mkdir()
    refused("index", backbone("llama"), files / "bad.jsonl", "--output", files / "index", *SETTING)
    assert (files / "index").exists() == there
    assert not there or not any((files / "index").iterdir())


def test_the_weights_of_tiny_products_are_no_second_hit():
    rows = csr_array(np.array([[1e-30, 1e-30, 0.5], [0, 0, 0], [0, 0, 0]], dtype=np.float32))
    query = csr_array(np.array([[1e-30, 1e-30, 1.0]], dtype=np.float32))
    found, totals = Postings.of(rows).scores(query, 3)
    assert (found.tolist(), totals.tolist()) == ([0], [0.5])


def test_documents_that_cannot_be_read_leave_an_index_as_it_was(index):
    def rows():
        yield Document("new", "", "Text")
        raise UserError("no")

    before = scores(index, "cat", "bm25")
    with pytest.raises(UserError, match="no"):
        index.add(rows())
    assert scores(Index.open(index._folder), "cat", "bm25") == before
    assert index._store.waiting_count() == 0


def test_an_index_of_another_model_is_refused(index, backbone, embedder):
    other = untrained(backbone("qwen3"))
    before = scores(index, "telescope", "bm25")
    with pytest.raises(UserError, match="made by another model"):
        Index.open(index._folder, embedder=other).search("cat")
    with pytest.raises(UserError, match="made by another model"):
        Index.open(index._folder, embedder=other).add(
            [Document("5", "", "Nothing."), Document("x", "", "A telescope.")]
        )
    assert scores(Index.open(index._folder), "telescope", "bm25") == before
    assert index.waiting == 0
    assert Index.open(index._folder, embedder=embedder).search("cat", mode="bm25").hits  # no model is needed


def kill_while_adding(index, documents, monkeypatch):
    """Add documents, but stop before the engine gets their vectors."""

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedEngine, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            index.add(documents)


def test_an_addition_that_was_killed_leaves_an_index_that_can_be_searched(index, monkeypatch):
    kill_while_adding(index, [Document("0", "", "Another cat."), Document("x", "", "One more cat.")], monkeypatch)
    again = Index.open(index._folder)
    assert {hit.id for hit in again.search("cat").hits} >= {"0", "1"}
    assert len(again) == 10
    assert again.add([]) == 2
    assert {hit.id for hit in again.search("more", mode="bm25").hits} == {"x"}


def test_a_replaced_document_is_the_old_one_until_the_new_one_is_encoded(index, monkeypatch):
    kill_while_adding(index, [Document("0", "", "Another cat.")], monkeypatch)
    again = Index.open(index._folder)
    for mode in ("sparse", "bm25", "hybrid"):
        hits = {hit.id: hit for hit in again.search("cat on a mat", mode=mode).hits}
        assert "warm mat" in hits["0"].snippet
        for hit in hits.values():
            assert sum(match.amount for match in hit.matches) + hit.dense == pytest.approx(hit.score, rel=1e-4)
    again.add([])
    assert {hit.id: hit.snippet for hit in again.search("cat").hits}["0"] == "Another cat."
    again.delete(["0"])
    assert again._store.found(["0"]) == {}


def test_an_unfinished_index_keeps_its_precision(tmp_path, backbone, monkeypatch):
    Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)._store.set(documents=1)
    monkeypatch.setattr(Embedder, "precision", "bf16")
    with pytest.raises(UserError, match="unfinished index with another precision"):
        Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)


def test_an_index_that_another_process_has_begun_anew_is_left_to_it(tmp_path, backbone):
    first = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    second = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS, language="german")
    with pytest.raises(UserError, match="has begun the index"):
        first.add(DOCUMENTS)
    assert second.add(DOCUMENTS) == len(DOCUMENTS)


def test_two_writers_one_is_refused_and_no_document_is_lost(index, backbone):
    other = Index.open(index._folder)

    def rows():
        for write in (
            lambda: other.add([]),
            lambda: other.delete(["1"]),
            lambda: Index.create(index._folder, backbone("llama"), **SETTINGS),
        ):
            with pytest.raises(UserError, match=r"nother process is writing|already exists: add or delete"):
                write()
        yield Document("x", "", "A telescope.")

    index.add(rows())
    other.add([Document("y", "", "Another telescope.")])
    index.delete(["1"])
    assert len(other) == len(Index.open(index._folder)) == 11
    assert set(scores(Index.open(index._folder), "telescope", "bm25")) == {"5", "x", "y"}


def test_an_unfinished_index_has_one_writer_too(tmp_path, backbone):
    first = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)

    def rows():
        with pytest.raises(UserError, match="Another process is writing the index"):
            Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
        yield DOCUMENTS[0]

    assert first.add(rows()) == 1


def test_a_reader_follows_what_another_process_writes(index):
    reader = Index.open(index._folder)
    assert reader.search("telescope", mode="bm25").hits[0].id == "5"
    index.add([Document("0", "", "Zebras by a river."), Document("x", "", "A telescope.")])
    index.delete(["5"])
    assert [hit.id for hit in reader.search("telescope", mode="bm25").hits] == ["x"]
    assert len(reader) == len(index)
    for mode in ("sparse", "dense", "hybrid"):
        assert reader.search("zebras by a cat", 20, mode) == index.search("zebras by a cat", 20, mode)


def test_a_relative_folder_stays_the_same_when_the_current_folder_changes(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = Index.open("index")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    opened.add([Document("x", "", "A zebra.")])
    opened.delete(["5"])
    assert not any((tmp_path / "elsewhere").iterdir())
    again = Index.open(index._folder)
    assert (len(again), len(opened)) == (10, 10)
    assert scores(again, "zebra telescope", "bm25") == scores(opened, "zebra telescope", "bm25")
    assert set(scores(again, "zebra telescope", "bm25")) == {"x"}


def moved(folder, other):
    folder.rename(folder.with_name("old"))
    other.rename(folder)


def pointed_elsewhere(folder, other):
    (folder.with_name("link")).symlink_to(other)
    folder.with_name("link").replace(folder)


def removed(folder, other):
    shutil.rmtree(folder.resolve())


def copied_as_rsync_does(folder, other):
    """With ``--delete``: each file is a new one with the old name, and files that the source lacks go."""
    for rest in ("-wal", "-shm"):
        (folder / f"documents.sqlite{rest}").unlink(missing_ok=True)
    for file in sorted(file for file in other.rglob("*") if file.is_file()):
        there = folder / file.relative_to(other)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, f"{there}.new")
        os.replace(f"{there}.new", there)  # noqa: PTH105


@pytest.mark.parametrize("exchange", [moved, pointed_elsewhere, removed, copied_as_rsync_does])
def test_a_folder_that_another_index_takes_is_left_to_it(index, tmp_path, backbone, exchange):
    folder = tmp_path / "place"
    if exchange is pointed_elsewhere:
        folder.symlink_to(index._folder)
    else:
        index._folder.rename(folder)
    reader = Index.open(folder)
    asked = [("stars of a galaxy", 20, mode) for mode in ("hybrid", "sparse", "dense", "bm25")]
    before = [reader.search(*query) for query in asked]
    other = Index.create(tmp_path / "other", backbone("llama"), **SETTINGS)
    other.add([Document(str(i), "", f"Zebras {text}") for i, text in enumerate(reversed(SENTENCES[:7]))])
    other.close()
    there = shutil.copytree(tmp_path / "other", tmp_path / "expected")
    exchange(folder, tmp_path / "other")
    assert [reader.search(*query) for query in asked] == before
    for write in (lambda: reader.add([Document("x", "", "A zebra.")]), lambda: reader.delete(["1"])):
        with pytest.raises(UserError, match=r"has taken the place of the one in '.*place': open it again"):
            write()
    assert len(reader) == len(DOCUMENTS)
    if exchange is removed:
        assert not folder.exists()
    else:
        again, expected = Index.open(folder), Index.open(there)
        assert [again.search(*query) for query in asked] == [expected.search(*query) for query in asked]


def test_an_index_whose_folder_may_only_be_read_stays_as_it_was_opened(index, monkeypatch):
    index.close()
    with monkeypatch.context() as patch:
        patch.setattr("text2token.search.store.os.access", lambda *_: False)
        reader = Index.open(index._folder)
    before = reader.search("cats of the garden", 20)
    writer = Index.open(index._folder)
    writer.add([Document("1", "", "Zebras."), Document("x", "", "A cat of the garden.")])
    found = reader.search("cats of the garden", 20)
    assert [(hit.id, hit.score, hit.snippet) for hit in found.hits] == [
        (hit.id, hit.score, hit.snippet) for hit in before.hits
    ]
    assert len(reader) == 10


def test_the_address_that_an_index_has_takes_no_lock(tmp_path, backbone):
    index = Index.create(tmp_path / "index", backbone("llama"), engine="milvus", **SETTINGS, uri=str(tmp_path / "a.db"))
    index.add(DOCUMENTS[:2])

    def rows():
        assert len(Index.open(tmp_path / "index", uri=str(tmp_path / "a.db"))) == 2
        yield DOCUMENTS[2]

    assert index.add(rows()) == 1


def test_an_id_that_the_engine_refuses_stops_no_later_addition(index, monkeypatch):
    monkeypatch.setattr(EmbeddedEngine, "max_id_bytes", 10)
    with pytest.raises(UserError, match="The id 'ééééééé…' has 14 bytes, and the engine of the index takes 10"):
        index.add([Document("before", "", "A zebra."), Document("é" * 7, "", "A quokka.")])
    assert index.add([Document("é" * 5, "", "A quokka.")]) == 1
    assert len(index) == 11


def test_a_deletion_that_was_killed_is_repaired_by_the_next_addition(index, monkeypatch):
    deleted = EmbeddedEngine.delete

    def killed(engine, ids):
        deleted(engine, ids)
        raise KeyboardInterrupt

    before = scores(index, "telescope galaxy", "bm25")
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedEngine, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            index.delete(["5"])
    again = Index.open(index._folder)
    assert again.add([]) == 1
    assert scores(again, "telescope galaxy", "bm25") == pytest.approx(before)


def test_more_hits_than_the_fusion_is_deep(index):
    query = " ".join(SENTENCES)
    assert len(index.rank([query], 9, fusion=Fusion("scores", depth=2))[0]) == 9
    assert len(index.search(query, 9, fusion=Fusion("rrf", depth=2)).hits) == 9


def test_vectors_that_are_gone_are_no_empty_result(index):
    shutil.rmtree(index._folder / "vectors")
    with pytest.raises(UserError, match="are missing from its engine"):
        Index.open(index._folder)


def test_a_file_of_milvus_is_found_from_everywhere(tmp_path, backbone, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Index.create("index", backbone("llama"), **SETTINGS, engine="milvus", uri="vectors.db").add(DOCUMENTS)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(Index.open(tmp_path / "index")) == 10


def test_another_setting_is_no_continuation(tmp_path, backbone, embedder):
    Index.create(tmp_path / "index", backbone("qwen3"))  # nothing in it yet, so anything may follow
    begun = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    begun._store.set(documents=1)
    with pytest.raises(UserError, match="unfinished index with another fingerprint"):
        Index.create(tmp_path / "index", backbone("llama"), **SETTINGS, embedder=embedder)
    with pytest.raises(UserError, match="unfinished index with another encoder"):
        Index.create(tmp_path / "index", backbone("llama"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="holds something else"):
        Index.create(tmp_path / "full", backbone("llama"))


def test_a_model_without_a_head_has_dense_and_bm25(tmp_path, embedder):
    SentenceTransformer(modules=[*embedder.encoder]).save(str(tmp_path / "st"))
    index = Index.create(tmp_path / "index", str(tmp_path / "st"))
    index.add(DOCUMENTS)
    assert index.fields == ["dense", "bm25"]
    assert index.search("telescope", 1, "hybrid", fusion=HYBRID).hits[0].id == "5"
    with pytest.raises(UserError, match="no sparse field"):
        index.search("cat", mode="sparse")


def test_a_model_is_asked_with_its_prompts(tmp_path, embedder):
    prompts = {"query": "find a text that says: ", "document": "the text of a document: "}
    SentenceTransformer(modules=[*embedder.encoder], prompts=prompts).save(str(tmp_path / "st"))
    model = SentenceTransformer(str(tmp_path / "st"))
    index = Index.create(tmp_path / "index", str(tmp_path / "st"))
    index.add([*DOCUMENTS, Document("long", "", LONG)])
    vectors = [model.encode_document([d.content])[0] for d in DOCUMENTS]
    query = model.encode_query([SENTENCES[3]])[0]
    cosines = {
        d.id: float(v @ query / np.linalg.norm(v) / np.linalg.norm(query))
        for d, v in zip(DOCUMENTS, vectors, strict=True)
    }
    found = scores(index, SENTENCES[3], "dense")
    assert {name: found[name] for name in cosines} == pytest.approx(cosines, abs=1e-5)
    whole = untruncated(model.tokenizer)
    parts = TextEncoder(index.embedder, "query").parts(LONG)
    assert max(len(whole.encode(prompts["query"] + part)) for part in parts) <= model.max_seq_length


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_model_ranks_by_the_similarity_that_it_was_made_for(tmp_path, embedder, similarity):
    model = SentenceTransformer(modules=[*embedder.encoder], similarity_fn_name=similarity)
    model.save(str(tmp_path / "st"))
    index = Index.create(tmp_path / "index", str(tmp_path / "st"))
    index.add([*DOCUMENTS, Document("long", "", LONG)])
    contents = [document.content for document in DOCUMENTS]
    expected = model.similarity(model.encode([SENTENCES[3]]), model.encode(contents))[0]
    found = scores(index, SENTENCES[3], "dense")
    assert [found[document.id] for document in DOCUMENTS] == pytest.approx(expected.tolist(), rel=1e-4)
    parts = TextEncoder(index.embedder).parts(LONG)
    mean = model.encode(parts, normalize_embeddings=similarity == "cosine").mean(axis=0)
    assert found["long"] == pytest.approx(float(model.similarity(model.encode([SENTENCES[3]]), mean[None])), rel=1e-4)


def test_a_model_of_another_similarity_is_refused(tmp_path, embedder):
    SentenceTransformer(modules=[*embedder.encoder], similarity_fn_name="euclidean").save(str(tmp_path / "st"))
    with pytest.raises(UserError, match="made for the similarity euclidean, and an index ranks by cosine or dot"):
        Index.create(tmp_path / "index", str(tmp_path / "st"))
    assert not (tmp_path / "index").exists()


def test_a_model_without_a_fast_tokenizer_is_refused(tmp_path):
    words = WordEmbeddings(WhitespaceTokenizer(["cat", "dog"]), np.eye(2, dtype=np.float32))
    SentenceTransformer(modules=[words, Pooling(2, "mean")]).save(str(tmp_path / "st"))
    with pytest.raises(UserError, match="has no fast tokenizer"):
        Index.create(tmp_path / "index", str(tmp_path / "st"))
    assert not (tmp_path / "index").exists()


def test_one_embedder_serves_several_indexes(tmp_path, backbone):
    shared = untrained(backbone("llama"))
    found = {}
    for name, documents in {"a": DOCUMENTS[:5], "b": DOCUMENTS[5:]}.items():
        index = Index.create(tmp_path / name, backbone("llama"), **SETTINGS, embedder=shared)
        index.add(documents)
        found[name] = {mode: scores(index, "cats of the garden", mode) for mode in ("dense", "sparse")}
        assert shared.mean_logits is None
    for name, expected in found.items():
        again = Index.open(tmp_path / name)
        for mode in ("dense", "sparse"):
            assert scores(again, "cats of the garden", mode) == pytest.approx(expected[mode], abs=1e-5)


def test_what_a_given_embedder_was_taught_is_kept_with_the_index(tmp_path, backbone):
    taught = untrained(backbone("llama"))
    taught.calibrate(SENTENCES[:3])
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS, embedder=taught)
    index.add(DOCUMENTS)
    again = Index.open(tmp_path / "index")
    for mode in ("dense", "sparse"):
        assert scores(again, "cats of the garden", mode) == pytest.approx(
            scores(index, "cats of the garden", mode), abs=1e-5
        )


def test_nothing_added_settles_nothing_and_of_an_id_twice_the_last_counts(tmp_path, backbone, index):
    fresh = Index.create(tmp_path / "fresh", backbone("llama"), **SETTINGS)
    assert fresh.add([]) == 0
    with pytest.raises(UserError, match="document 'x' has no text"):
        fresh.add([DOCUMENTS[0], Document("x", " ", "")])
    assert fresh.add([Document("3", "", "Something else."), *DOCUMENTS]) == 10
    expected = scores(index, "cats of the garden", "bm25")
    assert scores(fresh, "cats of the garden", "bm25") == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"id": "n", "title": "", "text": "Text", "metadata": {}}, "A Document is expected, not {'id': 'n'"),
        (("n", "", "Text"), "A Document is expected"),
        (Document("n", "", "Text", None), "The metadata of the document 'n' are of type NoneType"),
        (Document(5, "", "Text"), "The id of the document 5 is of type int"),
        (Document("n", "", None), "The text of the document 'n' is of type NoneType"),
        (Document("n", b"title", "Text"), "The title of the document 'n' is of type bytes"),
        (Document("a\ud800", "", "Text"), r"'a\\ud800' cannot be an id"),
        (Document("a\0b", "", "Text"), r"'a\\x00b' cannot be an id"),
        (Document(" ", "", "Text"), "' ' cannot be an id"),
        (Document("n", "", "\0"), "The document 'n' has no text"),
    ],
)
def test_a_document_that_cannot_be_used_is_one_sentence(index, document, sentence):
    with pytest.raises(UserError, match=sentence):
        index.add([Document("before", "", "A text."), document])
    assert (len(index), index.waiting, index._store.get("documents")) == (10, 0, 10)


def test_an_id_that_no_document_can_have_is_unknown(index):
    assert index.delete(["1\udcff", "1\0"]) == 0
    assert len(index) == 10


def test_a_string_is_no_list_of_ids_or_queries(index):
    with pytest.raises(UserError, match="A list of ids is expected"):
        index.delete("12")
    with pytest.raises(UserError, match="A list of texts is expected"):
        index.rank("cat")
    assert len(index) == 10


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse", "bm25"])
def test_fewer_than_one_hit_is_refused(index, mode):
    for k in (0, -1, 2.5):
        with pytest.raises(UserError, match=f"`k` is {k}: give a whole number from 1 up"):
            index.search("cat", k, mode)
        with pytest.raises(UserError, match=f"`k` is {k}: give a whole number from 1 up"):
            index.rank(["cat"], k, mode)


def test_a_database_that_is_none_is_a_damaged_index(index):
    index.close()
    (index._folder / "documents.sqlite").write_bytes(b"no database, " * 100)
    with pytest.raises(UserError, match="is damaged: make it again"):
        Index.open(index._folder)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_what_the_system_refuses_to_read_is_no_damage(index, monkeypatch, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number), "ids.npy")

    for reads in ("text2token.search.engines.segment.np.load", "text2token.search.vectorizer.Path.read_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(reads, refused)
            with pytest.raises(UserError) as error:
                Index.open(index._folder)
        assert f"cannot be read ([Errno {number}] {os.strerror(number)}: 'ids.npy'): check its permissions" in str(
            error.value
        )
        assert "damaged" not in str(error.value)


def test_words_are_numbered_in_the_order_of_the_texts_whatever_the_seed_of_hashes(index):
    # A set has another order in each process, and so would the files of the index.
    split = index._vectorizer._words.split([document.content for document in DOCUMENTS])
    words = list(dict.fromkeys(word for own in split for word in own))
    numbers = [index._store.words([word])[word].number for word in words]
    assert numbers == sorted(numbers)


def test_a_sample_holds_what_can_be_found(index, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("text2token.search.writer.IndexWriter._index", lambda *_: 1 / 0)
        with suppress(ZeroDivisionError):
            index.add([Document("new", "", "One more cat."), DOCUMENTS[0]._replace(text="Another text.")])
    documents, rows, _ = index.sample(100)
    assert index.waiting == 2
    assert sorted(document.id for document in documents) == [str(number) for number in range(1, 10)]
    assert rows.sum(axis=1).min() > 0


def test_a_query_that_says_nothing_finds_nothing(index):
    assert index.search("  ") == ([], "The query has no text.")
    assert index.search("zyxomma", mode="bm25") == ([], "No word of the query is known in: bm25.")
    assert index.search("☃", mode="sparse", inference_free=True).hits == []
    with pytest.raises(UserError, match="needs the model"):
        index.search("cat", mode="dense", inference_free=True)


def test_columns_of_one_name_are_matches_of_their_own():
    query = {"sparse": csr_array(np.array([[1.0, 2.0, 4.0]], dtype=np.float32))}
    found = _matches(ScoredId("a", 5.0), "sparse", query, {0: 1.0, 2: 1.0}, ["�", "a", "�"])
    assert found == [Match("�", "sparse", 4.0), Match("�", "sparse", 1.0)]
    shared = _matches(ScoredId("a", 0.5, {"sparse": 0.25}), "sparse", query, {0: 1.0, 2: 1.0}, ["�", "a", "�"])
    assert [match.amount for match in shared] == [0.2, 0.05]


def test_snippets_show_the_most_telling_word():
    text = "word " * 60 + "the telescope of the observatory " + "word " * 60
    shown = snippet(text, [Match("word", "bm25", 1.0), Match("telescop", "bm25", 2.0)])
    assert shown.startswith("… ")
    assert "telescope of the observatory" in shown
    assert len(shown) <= 210
    assert snippet("short\n text", [Match("absent", "bm25", 1.0)]) == "short text"


def test_another_engine_finds_the_same(tmp_path, backbone, index):
    other = Index.create(tmp_path / "milvus", backbone("llama"), engine="milvus", **SETTINGS)
    other.add(DOCUMENTS)
    assert other.fields == index.fields
    for mode in ("sparse", "bm25", "dense"):
        found, expected = (i.search("stars of a galaxy", 1, mode).hits[0] for i in (other, index))
        assert (found.id, found.score) == (expected.id, pytest.approx(expected.score, rel=1e-4))


def test_additions_share_one_connection_which_closing_closes(tmp_path, backbone, monkeypatch):
    opened, closed = [], []

    def open_one(*arguments):
        opened.append(open_engine(*arguments))
        monkeypatch.setattr(opened[-1], "close", lambda: closed.append(opened[0]))
        return opened[-1]

    monkeypatch.setattr("text2token.search.index.open_engine", open_one)
    index = Index.create(tmp_path / "index", backbone("llama"), engine="milvus", **SETTINGS)
    index.add(DOCUMENTS[:2])
    index.add(DOCUMENTS[2:])
    index.delete(["1"])
    assert len(index) == 9
    assert closed == []
    index.close()
    assert opened == closed == [index.engine]


def test_milvus_is_told_the_token_of_the_environment(tmp_path, monkeypatch):
    told = []

    class Client:
        def __init__(self, uri, token, **_):
            told.append((uri, token))

        def has_collection(self, *_, **__):
            return False

    monkeypatch.setattr("text2token.search.engines.milvus.MilvusClient", Client)
    monkeypatch.setenv("MILVUS_TOKEN", "root:secret")
    open_engine("milvus", tmp_path, "http://milvus:19530", "c")
    assert told == [("http://milvus:19530", "root:secret")]


# The command line


def test_index_and_search_by_command(files, backbone):
    output = files / "index"
    done("index", backbone("llama"), files / "docs.jsonl", "--output", output, *SETTING)
    found = json.loads(done("search", output, "galaxy full of stars", "--json", "-k", "2", "--mode", "bm25"))
    assert [hit["id"] for hit in found] == ["5", "6"]
    assert found[0]["matches"][0].keys() == {"token", "field", "amount"}
    for flag in ("--no-model", "--inference-free"):
        assert "Title 5" in done("search", output, "galaxy", flag, "--mode", "sparse")
    (files / "more.jsonl").write_text('{"id": 99, "text": "Another galaxy."}')
    done("index", "--output", output, "--add", files / "more.jsonl", "--delete", "5")
    found = json.loads(done("search", output, "galaxy", "--json", "--mode", "bm25"))
    assert [hit["id"] for hit in found] == ["99"]
    assert done("search", output, "zyxomma", "--mode", "bm25") == "No hits.\n"


def test_a_file_of_queries_becomes_a_trec_run(files, backbone):
    done("index", backbone("llama"), files / "docs.jsonl", "--output", files / "index", *SETTING)
    queries = [(7, "", "galaxy"), ("b", "galaxy", "cat"), ("c", "cat", "")]  # titles are no part of a query
    write_lines(files / "q.jsonl", [{"_id": name, "title": title, "text": text} for name, title, text in queries])
    done(
        "search", files / "index", "--queries", files / "q.jsonl", "-o", files / "run.trec", "-k", "3", "--mode", "bm25"
    )
    rows = [line.split() for line in (files / "run.trec").read_text().splitlines()]
    assert rows[0][:4] == ["7", "Q0", "5", "1"]
    assert {row[0] for row in rows} == {"7", "b"}
    assert all(row[5] == "bm25" and float(row[4]) > 0 for row in rows)
    assert "5" not in {row[2] for row in rows if row[0] == "b"}
    beir = write_search(files / "beir")
    assert "is not a table" in refused("search", files / "index", "--queries", beir, "-o", files / "run.trec")


def test_white_space_in_ids_does_not_break_a_run(tmp_path, backbone):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "my notes.txt").write_text("A galaxy.")
    (tmp_path / "docs" / "my%20notes.txt").write_text("A galaxy, and so much more.")
    done("index", backbone("llama"), tmp_path / "docs", "--output", tmp_path / "index", *SETTING)
    (tmp_path / "q.jsonl").write_text('{"_id": "q\\t1", "text": "galaxy"}')
    done("search", tmp_path / "index", "--queries", tmp_path / "q.jsonl", "-o", tmp_path / "run", "--mode", "bm25")
    lines = [line.split() for line in (tmp_path / "run").read_text().splitlines()]
    assert [line[:4] for line in lines] == [
        ["q%091", "Q0", "my%20notes.txt", "1"],
        ["q%091", "Q0", "my%2520notes.txt", "2"],
    ]


def test_settings_of_vectors_and_fusion_are_options(files, backbone):
    output = files / "index"
    options = ["--document-k", "7", "--query-m", "3", "--document-share", "0"]
    done("index", backbone("llama"), files / "docs.jsonl", "--output", output, *SETTING, *options)
    index = Index.open(output)
    assert index.settings.vectors == VectorSettings(document_k=7, query_m=3, document_share=0)
    fusions = {
        ("--fusion", "rrf"): Fusion("rrf"),
        ("--fusion", "scores"): HYBRID,
        ("--weight", "dense", "3", "--weight", "bm25", "0"): Fusion(
            "scores", {**HYBRID.weights, "dense": 3, "bm25": 0}
        ),
    }
    for options, fusion in fusions.items():
        found = json.loads(done("search", output, "galaxy full of stars", "--json", *options))
        hits = index.search("galaxy full of stars", fusion=fusion).hits
        assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in hits])
    assert "setting 'document_k': Input should be greater" in refused(
        "index", backbone("llama"), files / "docs.jsonl", "--output", files / "i", "--document-k", "0"
    )
    assert "--engine cannot change in an existing index" in refused(
        "index", "--output", output, "--delete", "5", "--engine", "milvus"
    )
    assert "--query-m cannot change" in refused("index", "--output", output, "--delete", "5", "--query-m", "2")
    assert len(index) == 10


def test_settings_that_a_model_does_not_take_are_refused(files, backbone):
    saved = files / "model"
    untrained(backbone("bert")).encoder.save(str(saved), create_model_card=False)
    arguments = "index", saved, files / "docs.jsonl", "--output", files / "i"
    assert "--template only applies to language models" in refused(*arguments, "--template", "eol")
    assert "--document-k changes the sparse field" in refused(*arguments, "--document-k", "7")
    assert not (files / "i").exists()


def test_a_file_of_ids_is_deleted(files, backbone):
    done("index", backbone("llama"), files / "docs.jsonl", "--output", files / "index", *SETTING)
    before = len(Index.open(files / "index"))
    gone = [document.id for document in DOCUMENTS[:2]]
    (files / "ids.txt").write_text("\n".join([*gone, "no such id"]))
    done("index", "--output", files / "index", "--delete-file", files / "ids.txt", "--delete", DOCUMENTS[2].id)
    assert len(Index.open(files / "index")) == before - 3


def test_a_broken_database_is_one_sentence(index):
    (index._folder / "documents.sqlite").write_bytes(b"no database, " * 100)
    for rest in ("-wal", "-shm"):
        (index._folder / f"documents.sqlite{rest}").unlink(missing_ok=True)
    assert "file is not a database" in refused("search", index._folder, "cat")


def test_a_field_without_weight_is_not_searched(index, backbone):
    without = Fusion("scores", {"bm25": 1.0, "sparse": 0.0, "dense": 0.0})
    fresh = Index.open(index._folder)
    hits = fresh.search("cats of the garden", 10, "hybrid", fusion=without).hits
    assert [(hit.id, hit.score) for hit in hits] == [
        (hit.id, hit.score) for hit in fresh.search("cats of the garden", 10, "bm25").hits
    ]
    assert "_model" not in vars(fresh)  # words need no model
    with pytest.raises(UserError, match="All fields have weight 0"):
        fresh.search("cat", fusion=Fusion("scores", dict.fromkeys(("bm25", "sparse", "dense"), 0.0)))


def test_a_search_with_words_alone_needs_neither_torch_nor_transformers(index):
    script = "import sys; from text2token.cli import main; sys.argv[1:] = ['search', *sys.argv[1:], '--no-model', '--json']\n"
    script += (
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)"
    )
    for mode in ("sparse", "hybrid"):
        command = [sys.executable, "-c", script, str(index._folder), "cats of the garden", "--mode", mode]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        hits = index.search("cats of the garden", mode=mode, inference_free=True).hits
        assert [hit["id"] for hit in json.loads(said.stdout)] == [hit.id for hit in hits]
        assert said.stderr.splitlines()[-1] == "False False"


def test_an_index_that_may_only_be_read_is_searched(index, monkeypatch):
    expected = scores(index, "cats of the garden", "bm25")
    folder = index._folder
    index._store.close()
    monkeypatch.setattr("text2token.search.store.os.access", lambda *_: False)
    reader = Index.open(folder)
    assert scores(reader, "cats of the garden", "bm25") == expected
    with pytest.raises(sqlite3.OperationalError):
        reader._store.set(finished=False)
    reader._store.close()
    with monkeypatch.context() as patch:
        patch.setattr("text2token.search.store.os.access", lambda *_: True)
        writer = Index.open(folder)
        writer.add(
            [Document("new", "", "A quokka.")]
        )  # which lies in the log beside the file, as the writer has it open
    assert set(scores(Index.open(folder), "quokka", "bm25")) == {"new"}


def test_a_model_without_a_limit_is_given_whole_texts_and_one_without_room_is_refused(backbone, monkeypatch):
    embedder = untrained(backbone("llama"), max_length=40)
    monkeypatch.setattr(type(embedder.encoder), "max_seq_length", property(lambda _: None), raising=False)
    assert TextEncoder(embedder).parts(LONG) == [LONG]
    embedder.encoder.prompts["document"] = "word " * 40
    monkeypatch.setattr(type(embedder.encoder), "max_seq_length", property(lambda _: 8), raising=False)
    with pytest.raises(UserError, match="leaves no room for text"):
        TextEncoder(embedder)


def test_commands_refuse_in_one_sentence(files, backbone):
    assert "no file or folder" in refused("index", "m", files / "no.jsonl", "-o", files / "i")
    assert "Name MODEL and DOCS" in refused("index", "-o", files / "i")
    assert "no index in" in refused("search", files / "no", "cat")
    assert "Give one QUERY" in refused("search", files / "no")
    done("index", backbone("llama"), files / "docs.jsonl", "--output", files / "index", *SETTING)
    assert "already exists: add or delete" in refused(
        "index", backbone("llama"), files / "docs.jsonl", "--output", files / "index", *SETTING
    )
    assert "if it was moved, name its place" in refused(
        "index", "m", "-o", files / "index", "--add", files / "docs.jsonl"
    )
    assert "Name MODEL and DOCS" in refused("index", "m", files / "docs.jsonl", "-o", files / "index", "--delete", "1")
    assert "--text-column has no effect on --delete" in refused(
        "index", "-o", files / "index", "--delete", "1", "--text-column", "x"
    )
    assert "The embedded engine has no address: leave --uri out" in refused(
        "index", "m", files / "docs.jsonl", "-o", files / "i", "--uri", "file.db"
    )
    assert "'localhost:1' is not an address of milvus: set --uri to http://host:19530" in refused(
        "index",
        backbone("llama"),
        files / "docs.jsonl",
        "-o",
        files / "i",
        "--engine",
        "milvus",
        "--uri",
        "localhost:1",
    )
    assert "this search does not load it" in refused(
        "search", files / "index", "cat", "--mode", "bm25", "--precision", "bf16"
    )
    assert "--weight needs a number" in refused("search", files / "index", "cat", "--weight", "bm25", "nan")
    huge = ("--weight", "bm25", "1e308", "--weight", "dense", "1e308")
    assert "--weight needs a number" in refused("search", files / "index", "cat", *huge)
    assert "is a folder: name a file" in refused(
        "search", files / "index", "--queries", files / "docs.jsonl", "-o", files
    )
    (files / "q.jsonl").write_text('{"id": 2, "text": " "}')
    assert "There is no query with text" in refused(
        "search", files / "index", "--queries", files / "q.jsonl", "-o", files / "run"
    )
    assert "only apply to a hybrid search" in refused(
        "search", files / "index", "cat", "--mode", "bm25", "--weight", "bm25", "2"
    )
    assert "Give one QUERY" in refused(
        "search", files / "index", "--queries", files / "docs.jsonl", "-o", files / "run", "--json"
    )
