"""The embedded engine: exact scores and order, whatever was added, deleted, merged or killed in between."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from text2token.search.engines import embedded, postings, segment
from text2token.search.engines.base import ScoredId
from text2token.search.engines.embedded import EmbeddedEngine
from text2token.search.engines.postings import Postings, kth_largest
from text2token.search.engines.segment import Ids
from text2token.utils.errors import UserError

TERMS, SIZE = 40, 6


def rows(count, seed):
    """Vectors of all fields; small whole weights, so that scores tie often and sums are exact in any order."""
    rng = np.random.default_rng(seed)
    sparse = csr_array(rng.integers(0, 4, (count, TERMS)) * (rng.random((count, TERMS)) < 0.2), dtype=np.float32)
    dense = rng.integers(-2, 3, (count, SIZE)).astype(np.float32)
    return {"sparse": sparse, "bm25": csr_array(sparse[:, ::-1]), "dense": dense}


def naive(kept, query, field, k):
    """Every document against the query."""
    scores = {}
    for name, vectors in kept.items():
        score = float((vectors[field] * query[field]).sum())
        if score > 0 or field == "dense":
            scores[name] = score
    return [ScoredId(*pair) for pair in sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]]


def as_arrays(vectors, row):
    return {field: np.asarray(m[[row]].todense() if field != "dense" else m[[row]])[0] for field, m in vectors.items()}


operations = st.lists(
    st.tuples(st.sampled_from(["add", "delete", "finish", "reopen"]), st.lists(st.integers(0, 25), max_size=12)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40)
@given(operations=operations, k=st.integers(1, 12), seed=st.integers(0, 1000))
def test_any_history_gives_what_the_remaining_documents_give(tmp_path_factory, operations, k, seed):
    folder = tmp_path_factory.mktemp("index")
    engine, kept = EmbeddedEngine(folder), {}
    for step, (operation, numbers) in enumerate(operations):
        names = [f"d{number}" for number in numbers]
        if operation == "add":
            vectors = rows(len(names), seed + step)
            engine.add(names, vectors)
            kept |= {name: as_arrays(vectors, row) for row, name in enumerate(names)}
        elif operation == "delete":
            engine.delete(names)
            kept = {name: row for name, row in kept.items() if name not in names}
        elif operation == "finish":
            engine.finish()
        else:
            engine = EmbeddedEngine(folder)
    query = rows(1, seed + 99)
    arrays = as_arrays(query, 0)
    assert engine.count() == len(kept)
    for field in query:
        assert engine.search(field, query[field], k) == naive(kept, arrays, field, k)


def test_many_small_additions_become_few_segments(tmp_path):
    engine = EmbeddedEngine(tmp_path)
    for step in range(embedded.MERGE_FACTOR**2 + 3):
        engine.add([f"d{step:03d}"], rows(1, step))
    assert engine.count() == embedded.MERGE_FACTOR**2 + 3
    assert len(engine._segments) <= 2 * embedded.MERGE_FACTOR
    assert {path.name for path in tmp_path.iterdir()} == {embedded._MANIFEST, *engine._segments}


def test_segments_with_many_deletions_are_rewritten(tmp_path):
    engine = EmbeddedEngine(tmp_path)
    engine.add([f"d{i}" for i in range(10)], rows(10, 0))
    engine.delete(["d1", "d2", "d3"])
    (only,) = engine._segments.values()
    assert (len(only.ids), only.alive) == (7, None)


def test_a_small_addition_leaves_large_segments_alone(tmp_path):
    engine = EmbeddedEngine(tmp_path)
    for step in range(10):
        engine.add([f"d{step}{i}" for i in range(4)], rows(4, step))
    engine.finish()
    (large,) = engine._segments
    engine.add(["new"], rows(1, 11))
    engine.finish()
    assert [len(segment.ids) for segment in engine._segments.values()] == [40, 1]
    assert large in engine._segments
    for step in range(4):
        engine.add([f"n{step}"], rows(1, step))
    engine.finish()
    assert [len(segment.ids) for segment in engine._segments.values()] == [45]


def test_replaced_documents_count_as_deleted_too(tmp_path):
    engine = EmbeddedEngine(tmp_path)
    engine.add([f"d{i}" for i in range(10)], rows(10, 0))
    engine.add(["d1", "d2", "d3"], rows(3, 1))
    assert sorted(len(segment.ids) for segment in engine._segments.values()) == [3, 7]


def test_a_kill_between_segment_and_manifest_loses_nothing_finished(tmp_path, monkeypatch):
    engine = EmbeddedEngine(tmp_path)
    engine.add(["a", "b"], rows(2, 0))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            engine.add(["b", "c"], rows(2, 1))
    for number in range(2):  # also in this process, for instance in a server whose disk is full
        assert engine.search("dense", rows(2, 0)["dense"][[number]], 5) == EmbeddedEngine(tmp_path).search(
            "dense", rows(2, 0)["dense"][[number]], 5
        )
    again = EmbeddedEngine(tmp_path)
    assert again.count() == 2
    again.add(["b", "c"], rows(2, 1))
    whole = EmbeddedEngine(tmp_path / "other")
    whole.add(["a", "b"], rows(2, 0))
    whole.add(["b", "c"], rows(2, 1))
    query = rows(1, 3)["sparse"]
    assert again.search("sparse", query, 5) == whole.search("sparse", query, 5)


@pytest.mark.parametrize("write", ["write_segment", "write_json"])
def test_a_search_during_an_addition_finds_the_documents_that_it_replaces(tmp_path, monkeypatch, write):
    engine, found = EmbeddedEngine(tmp_path), []
    engine.add(["a", "b", "c"], rows(3, 0))
    query = np.ones((1, SIZE), np.float32)
    before, written = engine.search("dense", query, 5), getattr(embedded, write)

    def spied(*arguments):
        found.append(engine.search("dense", query, 5))
        written(*arguments)

    monkeypatch.setattr(embedded, write, spied)
    engine.add(["a", "b"], rows(2, 1))
    assert found[0] == before
    assert all(len(hits) == 3 for hits in found)  # also while the old segment is rewritten


def test_a_dense_search_is_exact_whatever_was_deleted(tmp_path):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(400, 8)).astype(np.float32)
    names = [f"d{i:03d}" for i in range(400)]
    engine = EmbeddedEngine(tmp_path)
    engine.add(names[:390], {"dense": dense[:390]})
    engine.add(names[390:], {"dense": dense[390:]})
    engine.delete(names[:70])
    expected = sorted(zip((dense[70:] @ dense[100]).tolist(), names[70:], strict=True), reverse=True)[:10]
    hits = engine.search("dense", dense[[100]], 10)
    assert [hit.id for hit in hits] == [name for _, name in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for score, _ in expected], rel=1e-5)


def test_ids_of_any_alphabet_are_found_and_keep_their_order(tmp_path):
    names = ["é", "a", "z", "", "中", "𝄞", "A b"]
    segment.write_segment(tmp_path / "s", names, {"dense": np.ones((7, 2), np.float32)})
    ids = segment.Ids(tmp_path / "s")
    assert list(ids) == sorted(names)
    assert [ids.row(name) for name in sorted(names)] == list(range(7))
    assert ids.row("b") is None


def test_a_reader_opens_while_a_writer_clears_away(tmp_path, monkeypatch):
    writer = EmbeddedEngine(tmp_path)
    writer.add(["a", "b", "c"], rows(3, 0))
    opened = EmbeddedEngine._open

    def late(engine, name, deletions):
        monkeypatch.setattr(EmbeddedEngine, "_open", opened)
        writer.add(["a", "b"], rows(2, 1))  # too many dead documents: the first segment is rewritten
        return opened(engine, name, deletions)

    monkeypatch.setattr(EmbeddedEngine, "_open", late)
    reader = EmbeddedEngine(tmp_path)
    assert reader.count() == 3
    query = np.ones((1, SIZE), np.float32)
    assert reader.search("dense", query, 3) == writer.search("dense", query, 3)


def test_a_reader_misses_no_field_of_a_segment_that_is_cleared_away(tmp_path, monkeypatch):
    writer = EmbeddedEngine(tmp_path)
    writer.add(["a", "b", "c"], rows(3, 0))
    write = Ids.__init__

    def late(ids, folder):
        monkeypatch.setattr(Ids, "__init__", write)
        write(ids, folder)
        writer.add(["a", "b"], rows(2, 1))

    monkeypatch.setattr(Ids, "__init__", late)
    reader = EmbeddedEngine(tmp_path)
    assert len(reader.search("dense", np.ones((1, SIZE), np.float32), 3)) == 3


def test_a_reader_follows_a_writer(tmp_path):
    writer = EmbeddedEngine(tmp_path)
    reader = EmbeddedEngine(tmp_path)
    query = np.ones((1, SIZE), np.float32)
    for change in (
        lambda: writer.add([f"d{number}" for number in range(20)], rows(20, 0)),
        lambda: writer.add(["d3", "e"], rows(2, 1)),
        lambda: writer.delete(["d4"]),
        writer.finish,
    ):
        change()
        reader.follow()
        assert reader.search("dense", query, 30) == EmbeddedEngine(tmp_path).search("dense", query, 30)
        assert reader.count() == writer.count()


def test_a_reader_whose_manifest_is_gone_keeps_what_it_has(tmp_path):
    folder, query = tmp_path / "vectors", np.ones((1, SIZE), np.float32)
    EmbeddedEngine(folder).add(["a", "b"], rows(2, 0))
    reader = EmbeddedEngine(folder)
    found = reader.search("dense", query, 5)
    folder.rename(tmp_path / "old")
    reader.follow()
    assert reader.search("dense", query, 5) == found


def test_a_file_that_is_gone_for_good_is_an_error(tmp_path):
    EmbeddedEngine(tmp_path).add(["a"], rows(1, 0))
    for file in (tmp_path / "00000001").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError):
        EmbeddedEngine(tmp_path)


def test_a_field_whose_file_is_gone_is_an_error(tmp_path):
    EmbeddedEngine(tmp_path).add(["a"], rows(1, 0))
    (tmp_path / "00000001" / "dense.vectors.npy").unlink()
    with pytest.raises(UserError, match="has lost its dense vectors"):
        EmbeddedEngine(tmp_path).search("dense", np.ones((1, SIZE), np.float32), 3)


def test_deletions_are_written_once(tmp_path):
    engine = EmbeddedEngine(tmp_path)
    engine.add([f"d{i}" for i in range(20)], rows(20, 0))
    engine.delete(["d3"])
    (deletions,) = tmp_path.glob("*.npy")
    engine.add(["e"], rows(1, 1))
    assert deletions.is_file()
    assert EmbeddedEngine(tmp_path).count() == 20
    engine.delete(["d4"])
    assert not deletions.is_file()
    assert EmbeddedEngine(tmp_path).count() == 19


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_the_kth_largest_value(values, data):
    k = data.draw(st.integers(1, len(values)))
    for few in (0, len(values)):
        with mock.patch.object(postings, "_FEW", few):
            assert kth_largest(np.array(values, np.float32), k) == sorted(values, reverse=True)[k - 1]


def test_compiled_loops_give_the_scores_of_numpy(monkeypatch):
    vectors = rows(20, 0)["sparse"]
    inverted, query = Postings.of(csr_array(vectors)), csr_array(vectors[3:4])
    expected = inverted.scores(query, 20)
    monkeypatch.setattr(postings, "_FEW", 0)
    for found, wanted in zip(inverted.scores(query, 20), expected, strict=True):
        assert found.dtype == wanted.dtype
        assert found.tolist() == wanted.tolist()
    assert len(expected[0])


def test_a_merge_in_small_steps_writes_the_same_files(tmp_path, monkeypatch):
    parts = []
    for number, terms in enumerate((TERMS, TERMS // 2, TERMS)):
        vectors = rows(20, number)
        vectors["sparse"] = csr_array(vectors["sparse"][:, :terms])
        segment.write_segment(tmp_path / f"{number}", [f"{i}-{number}" for i in range(20)], vectors)
        parts.append(segment.Segment(tmp_path / f"{number}", np.arange(20) % (number + 2) > 0))
    segment.merge_segments(tmp_path / "at once", parts)
    monkeypatch.setattr(postings, "_AT_ONCE", 3)
    monkeypatch.setattr(segment, "_COPIED", 4)
    segment.merge_segments(tmp_path / "in steps", parts)
    files = sorted(file.name for file in (tmp_path / "at once").iterdir())
    assert "sparse.weights.npy" in files
    for file in files:
        assert (tmp_path / "in steps" / file).read_bytes() == (tmp_path / "at once" / file).read_bytes()
