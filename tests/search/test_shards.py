"""A corpus encoded in shards: the same index as without them, here and on object stores, after stops and with bad input."""

from __future__ import annotations

import errno
import gzip
import io
import json
import shutil
import sys
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from conftest import SENTENCES, calibrated, done, refused, write_lines
from text2token import UserError
from text2token.search import EncodedShards, Index, ShardJob, encode_shards, read_documents
from text2token.search.encoder import TextEncoder
from text2token.search.shards.record import ShardRecord, corpus_size, read_record
from text2token.settings.search import Calibration
from text2token.settings.templates import Template
from text2token.utils.places import open_place, write_whole

ENCODER = {"template": Template(), "pooling": "mean", "max_length": 24}
CALIBRATION = Calibration(correction="centre", texts=5)
ROWS = [
    {"_id": f"d{i}", "title": f"Title {i}" if i % 3 else "", "text": " ".join(SENTENCES[: i % 4 + 1]), "year": 2000 + i}
    for i in range(23)
] + [{"_id": "long", "title": "", "text": " ".join(SENTENCES * 3)}]
ROWS.insert(7, {"_id": "empty", "title": "", "text": " ", "year": 1})
SETTINGS = ["--template", "none", "--pooling", "mean", "--max-length", "64"]


@pytest.fixture
def corpus_file(tmp_path):
    write_lines(tmp_path / "docs.jsonl", ROWS)
    return tmp_path / "docs.jsonl"


@pytest.fixture
def job(backbone, corpus_file, tmp_path):
    return ShardJob(backbone("llama"), corpus_file, tmp_path / "shards", 3, encoder=ENCODER)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def assert_same_hits(made, expected):
    for mode in expected.fields:
        for query in ("a small cat near the garden", "interest rates", "long galaxy"):
            right = {hit.id: hit.score for hit in expected.search(query, 24, mode).hits}
            found = {hit.id: hit.score for hit in made.search(query, 24, mode).hits}
            assert found == pytest.approx(
                right, abs=1e-5
            )  # texts of several documents are equal, so their order is open


def test_an_index_of_shards_is_that_of_the_corpus(job, tmp_path):
    assert encode_shards(job) == 24
    indexes = [
        Index.create(tmp_path / name, job.model, encoder=ENCODER, calibration=CALIBRATION) for name in ("given", "made")
    ]
    indexes[0].add(read_documents(job.source))
    assert indexes[1].add_encoded(EncodedShards.open(job.folder)) == 24
    names = [row["_id"] for row in ROWS if row["_id"] != "empty"]
    assert indexes[1]._store.documents(names) == indexes[0]._store.documents(names)
    assert_same_hits(indexes[1], indexes[0])
    assert {hit.id for hit in indexes[1].search("cat", 9, filters=["year<2002"]).hits} == {"d0", "d1"}
    assert indexes[1].add_encoded(EncodedShards.open(job.folder)) == 0  # nothing is new


def test_a_shard_holds_the_embeddings_of_all_parts_of_its_documents(job):
    encode_shards(job)
    shards = EncodedShards.open(job.folder)
    embedder = shards.open_model()
    batches = list(shards.batches(5))
    assert [document for batch in batches for document in batch.documents] == list(read_documents(job.source))
    long = batches[-1].select([len(batches[-1].documents) - 1])
    parts = TextEncoder(embedder).parts(long.texts[0])
    assert len(parts) > 3
    np.testing.assert_allclose(long.embedded.rows, embedder.embed(parts), atol=1e-5)


def test_an_index_of_a_model_without_a_head_has_no_sparse_field(backbone, corpus_file, tmp_path):
    model = calibrated(backbone("llama"))
    model.head = model.mean_logits = None
    model.encoder.save(str(tmp_path / "dense"))
    job = ShardJob(str(tmp_path / "dense"), corpus_file, tmp_path / "shards", 2)
    encode_shards(job)
    index = Index.create(tmp_path / "index", job.model)
    assert index.add_encoded(EncodedShards.open(job.folder)) == 24
    assert index.fields == ["dense", "bm25"]


@given(rows=st.integers(1, 10**9), shards=st.integers(1, 500))
def test_every_row_is_in_exactly_one_shard(rows, shards):
    record = ShardRecord.model_construct(rows=rows, shards=shards)
    ranges = [record.row_range(shard) for shard in range(shards)]
    assert ranges[0].start == 0
    assert ranges[-1].stop == rows
    assert all(left.stop == right.start for left, right in pairwise(ranges))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def test_any_order_of_shards_gives_the_same_files(job, tmp_path):
    encode_shards(job)
    other = replace(job, folder=tmp_path / "other")
    for shard in (2, 0, 1):
        encode_shards(other, shard=shard)
    assert contents(other.folder) == contents(job.folder)


def test_only_shards_without_a_file_are_encoded(job):
    encode_shards(job)
    before = contents(job.folder)
    (job.folder / "shard-00001-of-00003.parquet").unlink()
    kept = {file.name: file.stat().st_mtime_ns for file in job.folder.iterdir()}
    assert encode_shards(job, shard=0) == 0
    assert 0 < encode_shards(job) < 24
    assert contents(job.folder) == before
    assert {file.name: file.stat().st_mtime_ns for file in job.folder.iterdir() if file.name in kept} == kept


def test_a_stopped_writer_leaves_no_file(job, monkeypatch):
    def interrupt(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_whole(job.source.parent / "file", b"content")
    assert [file.name for file in job.source.parent.iterdir()] == [job.source.name]
    write_whole(job.source.parent / "file", b"content")
    assert (job.source.parent / "file").read_bytes() == b"content"


def test_an_index_of_shards_continues_after_a_stop(job, tmp_path, monkeypatch):
    encode_shards(job)
    index = Index.create(tmp_path / "index", job.model, encoder=ENCODER, calibration=CALIBRATION)
    batches = EncodedShards.batches

    def stop(self, size):
        for number, batch in enumerate(batches(self, 5)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(EncodedShards, "batches", stop)
        with pytest.raises(KeyboardInterrupt):
            index.add_encoded(EncodedShards.open(job.folder))
    assert index.waiting == 17
    index.close()
    index = Index.create(tmp_path / "index", job.model, encoder=ENCODER, calibration=CALIBRATION)
    assert index.add_encoded(EncodedShards.open(job.folder)) == 17
    assert len(index) == 24


# --- object stores ----------------------------------------------------------------------------------------------------


def test_documents_and_shards_may_be_on_an_object_store(job, tmp_path):
    encode_shards(job)
    source = open_place("memory://corpus/docs.jsonl.gz")
    write_whole(source, gzip.compress(job.source.read_bytes()))
    remote = replace(job, source=source, folder=open_place("memory://shards"))
    assert encode_shards(remote) == 24
    made, expected = EncodedShards.open(remote.folder), EncodedShards.open(job.folder)
    for ours, theirs in zip(made.batches(9), expected.batches(9), strict=True):
        assert ours.documents == theirs.documents
        assert (ours.embedded.rows == theirs.embedded.rows).all()


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.csv", "docs.parquet", "texts"])
def test_every_kind_of_documents_is_read_from_an_object_store(name, tmp_path):
    rows = [{"id": str(i), "text": text} for i, text in enumerate(SENTENCES)]
    local, remote = tmp_path / name, open_place(f"memory://kinds/{name}")
    if name == "docs.jsonl":
        write_lines(local, rows)
    elif name == "docs.csv":
        local.write_text("id,text\n" + "".join(f'{row["id"]},"{row["text"]}"\n' for row in rows))
    elif name == "docs.parquet":
        pq.write_table(pa.Table.from_pylist(rows), local, row_group_size=3)
    else:
        for row in rows:
            (local / "a").mkdir(parents=True, exist_ok=True)
            (local / "a" / f"{row['id']}.txt").write_text(row["text"])
    for file in [local] if local.is_file() else local.rglob("*.txt"):
        write_whole(remote if local.is_file() else remote / "a" / file.name, file.read_bytes())
    assert list(read_documents(remote)) == list(read_documents(local))
    assert len(list(read_documents(remote))) == len(SENTENCES)


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of moto's S3 server, where it is installed."""
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket"
    server.stop()


def test_a_corpus_on_s3_by_command(job, bucket, tmp_path):
    write_whole(open_place(f"{bucket}/docs.jsonl"), job.source.read_bytes())
    command = ["encode", job.model, f"{bucket}/docs.jsonl", "--shards", "2", "-o", f"{bucket}/a/shards", *SETTINGS]
    assert json.loads(done(*command, "--shard", "1", "--json"))["documents"] == 13
    assert "numbers 0)" in refused("index", "--vectors", f"{bucket}/a/shards", "-o", tmp_path / "i")
    assert json.loads(done(*command, "--json")) == {"output": f"{bucket}/a/shards", "documents": 11}
    calibration = ["--correction", "centre", "--calibration-texts", "5"]
    done("index", "--vectors", f"{bucket}/a/shards", "-o", tmp_path / "i", *calibration)
    done("index", job.model, f"{bucket}/docs.jsonl", "-o", tmp_path / "j", *SETTINGS, *calibration)
    assert_same_hits(Index.open(tmp_path / "i"), Index.open(tmp_path / "j"))
    write_whole(open_place(f"{bucket}/more.jsonl"), b'{"id": "more", "text": "a comet"}')
    added = done("index", "-o", tmp_path / "j", "--add", f"{bucket}/more.jsonl", "--json")
    assert json.loads(added)["documents"] == 25
    elsewhere = [job.model, job.source, "--shards", "2", "-o", "s3://elsewhere/shards"]
    assert "'s3://elsewhere/shards' cannot be reached" in refused("encode", *elsewhere)
    assert "There is no file" in refused(*command[:2], f"{bucket}/none.jsonl", *command[3:-6], "-o", f"{bucket}/b")


def test_documents_on_a_store_that_does_not_answer(job, tmp_path, index_folder, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    dead = "memory://dead/docs.jsonl"
    for method in ("info", "isdir", "isfile", "ls", "_open"):
        monkeypatch.setattr(MemoryFileSystem, method, refuse)
    for command in (
        ["index", job.model, dead, "-o", tmp_path / "i"],
        ["index", "-o", index_folder, "--add", dead],
        ["encode", job.model, dead, "--shards", "2", "-o", tmp_path / "shards", *SETTINGS],
    ):
        assert f"'{dead}' cannot be reached" in refused(*command)
    with pytest.raises(UserError, match="cannot be reached"):
        corpus_size(open_place(dead))


def test_a_store_that_breaks_off_while_documents_are_read(monkeypatch):
    class Breaking(io.BytesIO):
        left = 100

        def __next__(self):
            self.left -= 1
            if self.left < 0:
                raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            return super().__next__()

    source = open_place("memory://breaking/docs.jsonl")
    content = "".join(f'{{"id": {i}, "text": "a"}}\n' for i in range(200)).encode()
    write_whole(source, content)
    monkeypatch.setattr(type(source.fs), "_open", lambda *_, **__: Breaking(content))
    documents = read_documents(source)
    assert [document.id for document in islice(documents, 100)] == list(map(str, range(100)))
    with pytest.raises(UserError, match=r"docs\.jsonl' cannot be reached \(.*Connection reset"):
        next(documents)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_the_shards_that_are_there_is_refused(job, backbone):
    encode_shards(job, shard=0)
    before = contents(job.folder)
    with pytest.raises(UserError, match="a corpus in 3 shards, not in 4: set `shards` to 3, or choose another folder"):
        encode_shards(replace(job, shards=4))
    with pytest.raises(UserError, match="shards of another model: repeat the command"):
        encode_shards(replace(job, model=backbone("qwen3")))
    with pytest.raises(UserError, match="shards of another model"):
        encode_shards(replace(job, encoder={**ENCODER, "max_length": 20}))
    write_lines(job.source, [*ROWS, {"_id": "new", "title": "", "text": "one more"}])
    with pytest.raises(UserError, match="shards of another corpus"):
        encode_shards(job)
    assert contents(job.folder) == before


def test_auto_is_the_precision_of_the_shards_that_are_there(job, monkeypatch):
    job = replace(job, precision="auto")
    encode_shards(job, shard=0)  # on a machine without bf16
    monkeypatch.setattr("text2token.model.precision.has_bf16", lambda device: True)
    assert encode_shards(job) > 0
    assert read_record(job.folder).precision == "fp32"
    with pytest.raises(UserError, match="shards of another precision"):
        encode_shards(replace(job, precision="bf16"))


def test_numbers_that_no_shard_can_have_are_refused(job):
    with pytest.raises(UserError, match="There is no shard 3: the shards have the numbers 0 to 2"):
        encode_shards(job, shard=3)
    with pytest.raises(UserError, match="has 25 rows, too few for 26 shards"):
        encode_shards(replace(job, shards=26, folder=job.folder.with_name("other")))
    assert not job.folder.with_name("other").exists()


def test_a_bad_document_is_refused_before_a_shard_is_encoded(job):
    write_lines(job.source, [*ROWS, ROWS[0]])
    with pytest.raises(UserError, match="the id 'd0' occurs a second time"):
        encode_shards(job, shard=0)
    assert not job.folder.exists()


def indexed(job, folder):
    index = Index.create(folder, job.model, encoder=ENCODER, calibration=CALIBRATION)
    return index.add_encoded(EncodedShards.open(job.folder))


def test_what_is_wrong_with_shards_is_found_before_an_index_is_made(job, tmp_path, backbone):
    with pytest.raises(UserError, match="There are no shards in"):
        EncodedShards.open(job.folder)
    encode_shards(job)
    file = job.folder / "shard-00001-of-00003.parquet"
    content = file.read_bytes()

    file.unlink()
    with pytest.raises(UserError, match=r"1 of the 3 shards in '.*' are missing \(numbers 1\)"):
        indexed(job, tmp_path / "i")
    for damaged in (content[: len(content) // 2], b"", content[:200] + bytes([content[200] ^ 1]) + content[201:]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"The shard '.*00001-of-00003.parquet' is damaged"):
            indexed(job, tmp_path / "i")
    shutil.copy(job.folder / "shard-00000-of-00003.parquet", file)
    with pytest.raises(UserError, match=r"shard-00001-of-00003.parquet' is of another model or corpus.*encode shard 1"):
        indexed(job, tmp_path / "i")
    with pytest.raises(UserError, match="were encoded by another model"):
        EncodedShards.open(job.folder).open_model(backbone("qwen3"))
    file.write_bytes(content)
    assert indexed(job, tmp_path / "i") == 24


def test_a_corpus_that_changes_while_it_is_encoded_is_found(job, tmp_path):
    encode_shards(job, shard=0)
    changed = [{**row, "text": row["text"].upper()} for row in ROWS]
    write_lines(job.source, changed)  # has the same size
    encode_shards(job)
    with pytest.raises(UserError, match="do not hold the documents of their corpus"):
        indexed(job, tmp_path / "i")
    assert not Index.create(tmp_path / "i", job.model, encoder=ENCODER, calibration=CALIBRATION)._store.ids()


def test_a_folder_with_something_else_is_refused(job):
    job.folder.mkdir()
    (job.folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than shards"):
        encode_shards(job)
    (job.folder / "notes.txt").rename(job.folder / "shards.json")
    with pytest.raises(UserError, match=r"shards.json' is damaged"):
        encode_shards(job)
    (job.folder / "shards.json").write_text('{"format": 9}')
    with pytest.raises(UserError, match="of a later version"):
        read_record(job.folder)


# --- commands ---------------------------------------------------------------------------------------------------------


def test_shards_by_command(job, tmp_path, model_folder):
    command = ["encode", model_folder, job.source, "--shards", "2", "-o", tmp_path / "s"]
    for shard in "10":
        done(*command, "--shard", shard)
    assert json.loads(done(*command, "--json")) == {"output": str(tmp_path / "s"), "documents": 0}
    done("index", "--vectors", tmp_path / "s", "-o", tmp_path / "i", "--language", "none")
    done("index", model_folder, job.source, "-o", tmp_path / "j", "--language", "none")
    assert_same_hits(Index.open(tmp_path / "i"), Index.open(tmp_path / "j"))
    index = ["index", "--vectors", tmp_path / "s", "-o", tmp_path / "k"]
    assert "DOCS does not go together" in refused(*index, model_folder, job.source)
    assert "--add does not go together" in refused(*index, "--add", job.source)
    assert "--id-column does not go" in refused(*index, "--id-column", "x")
    assert "--pooling does not go" in refused(*index, "--pooling", "mean")
    assert "encoded by another model" in refused(*index, job.model)
    assert "There are no shards" in refused("index", "--vectors", tmp_path / "none", "-o", tmp_path / "k")
    model_of_shards = shutil.copytree(model_folder, tmp_path / "model")
    done("index", model_of_shards, "--vectors", tmp_path / "s", "-o", tmp_path / "l")
    assert not (tmp_path / "k").exists()


def test_options_of_shards_that_do_not_belong_together(job, tmp_path, monkeypatch):
    command = ["encode", job.model, job.source, "-o", tmp_path / "s"]
    assert "--shard applies to shards only: add --shards" in refused(*command, "--shard", "1")
    assert "--template applies to shards only" in refused(*command, "--template", "none")
    assert "--sparse does not apply to shards" in refused(*command, "--shards", "2", "--sparse")
    assert "--overwrite does not apply to shards" in refused(*command, "--shards", "2", "--overwrite")
    assert "leave one of them out" in refused(*command, "--shards", "2", "--shard", "0", "--ray", "local")
    assert "--actors has no effect without --ray" in refused(*command, "--shards", "2", "--actors", "2")
    assert "Only shards are written to an object store" in refused(*command[:-1], "memory://x/y.npy")
    assert "'nowhere://x' cannot be opened" in refused(*command[:-1], "nowhere://x", "--shards", "2")
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused(*command, "--shards", "2", "--ray", "local")
    assert "This needs the package 'ray': pip install 'text2token[ray]'" in said
    assert not (tmp_path / "s").exists()
