"""Target stores: whole, resumed, refused; never half-written, never built twice."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import CORPUS, untrained
from text2token import UserError
from text2token.targets import store
from text2token.targets.base import Targets
from text2token.targets.store import build_store, tokenizer_fingerprint

SHARDS = ["shard-000000.parquet", "shard-000001.parquet", "shard-000002.parquet"]


class FirstAndForeign:
    """Half of the mass on a text's first token, half on token 7; none for texts that begin with 'Stars'; counts its texts."""

    settings: dict[str, object]

    def __init__(self, tokenizer, fails_at=None, **settings):
        self.tokenizer, self.fails_at, self.settings, self.seen = (
            tokenizer,
            fails_at,
            {"builder": "first", **settings},
            [],
        )

    def __call__(self, texts):
        self.seen += texts
        if self.fails_at is not None and len(self.seen) > self.fails_at:
            raise KeyboardInterrupt
        firsts = [self.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in texts]
        used = [
            np.array([] if text.startswith("Stars") else [first, 7], np.int32)
            for text, first in zip(texts, firsts, strict=True)
        ]
        return Targets(used, [np.full(len(ids), 0.5, np.float32) for ids in used])


@pytest.fixture(scope="module")
def embedder(backbone):
    return untrained(backbone("llama"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(store, "_SHARD", 50)


def files(path):
    return sorted(file.name for file in path.iterdir() if not file.name.startswith("."))


def texts_of(built):
    return [text for table in built.tables() for text in table["text"].to_pylist()]


def test_rows_manifest_and_mass(embedder, tmp_path):
    built = build_store(tmp_path / "s", CORPUS, FirstAndForeign(embedder.tokenizer), embedder)
    assert files(built.path) == ["manifest.json", *SHARDS]
    assert built.manifest == json.loads((built.path / "manifest.json").read_text())
    assert built.manifest["texts"] == len(CORPUS) == 120
    assert built.manifest["settings"] == {"builder": "first"}
    table = [row for shard in built.shards for row in pq.read_table(shard).to_pylist()]
    assert [row["text"] for row in table] == CORPUS
    without = [text for text in CORPUS if text.startswith("Stars")]
    assert built.manifest["mass_beyond_text"] == pytest.approx(0.5 * (120 - len(without)) / 120)
    assert texts_of(built) == [text for text in CORPUS if text not in without]
    ids, weights = built.padded()
    assert ids.shape == weights.shape == (120, 2)
    assert [row["ids"] for row in table] == [row[:n].tolist() for row, n in zip(ids, (weights > 0).sum(1), strict=True)]


def test_a_finished_store_is_returned_as_it_is(embedder, tmp_path):
    first = build_store(tmp_path / "s", CORPUS, FirstAndForeign(embedder.tokenizer), embedder)
    before = {file: file.stat().st_mtime_ns for file in first.path.iterdir()}
    idle = FirstAndForeign(embedder.tokenizer)
    assert build_store(tmp_path / "s", CORPUS, idle, embedder) == first
    assert idle.seen == []
    assert {file: file.stat().st_mtime_ns for file in first.path.iterdir()} == before


def test_an_interrupted_store_continues_at_its_last_shard(embedder, tmp_path):
    whole = build_store(tmp_path / "whole", CORPUS, FirstAndForeign(embedder.tokenizer), embedder)
    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path / "s", CORPUS, FirstAndForeign(embedder.tokenizer, fails_at=100), embedder)
    assert files(tmp_path / "s") == ["manifest.json", *SHARDS[:2]]
    (tmp_path / "s" / f"{SHARDS[2]}.part").write_bytes(b"PAR1 cut off")
    rest = FirstAndForeign(embedder.tokenizer)
    resumed = build_store(tmp_path / "s", CORPUS, rest, embedder)
    assert rest.seen == CORPUS[100:]
    assert resumed.manifest == whole.manifest
    assert list(resumed.tables()) == list(whole.tables())
    assert files(resumed.path) == files(whole.path)


def test_a_damaged_shard_is_told_with_the_way_out(embedder, tmp_path):
    built = build_store(tmp_path / "store", CORPUS, FirstAndForeign(embedder.tokenizer), embedder)
    os.truncate(tmp_path / "store" / SHARDS[1], 100)
    for read in (built.padded, lambda: texts_of(built)):
        with pytest.raises(UserError, match="store' is damaged: delete it"):
            read()


def test_a_kill_while_the_store_is_opened_does_not_block_it(embedder, tmp_path):
    (tmp_path / "manifest.json.part").write_text('{"sett')
    build_store(tmp_path, CORPUS, FirstAndForeign(embedder.tokenizer), embedder)
    assert files(tmp_path) == ["manifest.json", *SHARDS]


def test_a_store_of_something_else_is_refused_untouched(embedder, backbone, tmp_path):
    build = FirstAndForeign(embedder.tokenizer)
    build_store(tmp_path / "s", CORPUS, build, embedder)
    before = {file: file.read_bytes() for file in (tmp_path / "s").glob("*.*")}
    other = untrained(backbone("bert"))
    for wrong, arguments in {
        "settings": (CORPUS, FirstAndForeign(embedder.tokenizer, top_k=3), embedder),
        "corpus": ([*CORPUS[:-1], "another text"], build, embedder),
        "corpus, texts": (CORPUS[:-1], build, embedder),
        "tokenizer": (CORPUS, build, other),
    }.items():
        with pytest.raises(UserError, match=f"different {wrong}: choose another folder"):
            build_store(tmp_path / "s", *arguments)
    assert {file: file.read_bytes() for file in (tmp_path / "s").glob("*.*")} == before


def test_a_folder_or_file_of_something_else_is_refused_untouched(embedder, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(UserError, match="not a target store"):
            build_store(place, CORPUS, FirstAndForeign(embedder.tokenizer), embedder)
    assert files(tmp_path) == ["thesis.txt"]


def test_settings_that_cannot_work_leave_nothing(embedder, tmp_path):
    def impossible(texts):
        raise UserError("no room for the template")

    impossible.settings = {}
    with pytest.raises(UserError, match="no room"):
        build_store(tmp_path / "s", CORPUS, impossible, embedder)
    assert not (tmp_path / "s").exists()


def test_texts_without_any_target_are_refused(embedder, tmp_path):
    built = build_store(tmp_path / "s", ["Stars.", "Stars!"], FirstAndForeign(embedder.tokenizer), embedder)
    with pytest.raises(UserError, match="No text has a target"):
        list(built.tables())


def test_tokenizer_fingerprint_is_of_the_ids_alone(backbone):
    from text2token.settings.templates import TEMPLATES

    plain, dressed = (untrained(backbone("llama"), template=t, max_length=n).tokenizer
                      for t, n in ((TEMPLATES["none"], 32), (TEMPLATES["eol"], 64)))  # fmt: skip
    before = tokenizer_fingerprint(plain)
    plain(["some text", "a longer text of several words"], padding=True, truncation=True)
    assert tokenizer_fingerprint(plain) == before == tokenizer_fingerprint(dressed)
    plain.add_tokens(["zebra"])
    assert tokenizer_fingerprint(plain) != before
