"""What the verbs have in common: locks on their output, batch sizes, JSON, and options that they refuse."""

from __future__ import annotations

import io
import json
import os
import re
import shutil

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from conftest import CORPUS, SENTENCES, done, refused, text2token
from text2token import Embedder
from text2token.cli import _VERBS, main
from text2token.cli.options import grouped
from text2token.cli.search import _table
from text2token.search.reasons import Match, SearchHit, snippet
from text2token.search.searcher import SearchResults
from text2token.utils.files import output_lock

SETTINGS = ("--pooling", "mean", "--template", "keywords", "--max-length", "64")


@pytest.fixture
def texts(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(CORPUS[:40]))
    return file


@pytest.fixture
def index(tmp_path, backbone):
    rows = [{"_id": str(number), "text": text} for number, text in enumerate(SENTENCES)]
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = done("index", backbone("llama"), tmp_path / "docs.jsonl", "-o", tmp_path / "i", *SETTINGS, "--json")
    assert json.loads(said) == {"index": str(tmp_path / "i"), "documents": len(SENTENCES), "deleted": 0}
    return tmp_path / "i"


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["align", "search", "targets", "encode", "spectrum"])
def test_a_second_process_with_the_same_output_is_refused_at_once(
    backbone, texts, tmp_path, request, monkeypatch, verb
):
    model, output = backbone("llama"), tmp_path / "out.npy"
    command = {
        "align": [model, "--corpus", texts, "-o", output],
        "targets": [texts, "--backbone", model, "-o", output],
        "encode": [model, texts, "-o", output],
        "spectrum": [model, model, "--corpus", texts, "-o", output],
    }
    if verb == "search":
        (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "cat"}')
        command["search"] = [request.getfixturevalue("index"), "--queries", tmp_path / "q.jsonl", "-o", output]
    monkeypatch.setattr(Embedder, "embed", lambda *_, **__: pytest.fail("texts were encoded before the refusal"))
    with output_lock(output):
        assert "Another process" in refused(verb, *command[verb])
    assert not output.exists()


def test_reports_have_one_writer_too(model_folder, tmp_path):
    out = tmp_path / "out"
    with output_lock(out):
        for command in (
            ("compare", tmp_path, "-o"),
            ("dynamics", model_folder, "-o"),
            ("explain", model_folder, "cat", "--html"),
        ):
            assert "Another process is at work" in refused(*command, out)


def test_a_lock_leaves_no_folder_behind(tmp_path):
    with output_lock(tmp_path / "a" / "b" / "out"):
        assert (tmp_path / "a" / "b" / ".out.lock").exists()
    assert list(tmp_path.iterdir()) == []
    with output_lock(tmp_path / "a" / "b" / "out"):
        (tmp_path / "a" / "b" / "out").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]


# --- options ----------------------------------------------------------------------------------------------------------


def test_settings_of_the_training_are_not_options_of_targets(texts, tmp_path):
    said = refused("targets", texts, "-o", tmp_path / "out", "--learning-rate", "1")
    assert "No such option '--learning-rate'" in said
    assert "this command does not use that setting" in said


def test_ids_are_deleted_from_a_file_with_any_ending(index, tmp_path):
    (tmp_path / "more.jsonl").write_text(json.dumps({"_id": "2\u2028x", "text": "A separator is no line feed."}))
    done("index", "-o", index, "--add", tmp_path / "more.jsonl")
    (tmp_path / "ids").write_bytes("\ufeff1\r\n\n 2\u2028x \nno such id\n".encode())
    said = done("index", "-o", index, "--delete-file", tmp_path / "ids", "--json")
    assert json.loads(said)["deleted"] == 2
    (tmp_path / "ids").write_bytes(b"\xff\xfe1\x00")
    assert "line 1: not UTF-8 text" in refused("index", "-o", index, "--delete-file", tmp_path / "ids")


def test_a_run_of_queries_replaces_neither_the_queries_nor_a_device(index, tmp_path):
    queries = tmp_path / "q.jsonl"
    queries.write_text('{"_id": "1", "text": "cat"}')
    (tmp_path / "link").symlink_to(queries)
    run = ("search", index, "--mode", "bm25", "--queries", queries, "-o")
    assert "holds the queries" in refused(*run, tmp_path / "link")
    assert queries.read_text() == '{"_id": "1", "text": "cat"}'
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refused(*run, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_page_goes_into_a_new_folder_and_replaces_no_device(model_folder, tmp_path, monkeypatch):
    done("explain", model_folder, "cat", "--html", tmp_path / "new" / "page.html")
    assert (tmp_path / "new" / "page.html").is_file()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(Embedder, "open", lambda *_, **__: pytest.fail("a model was loaded before the refusal"))
    assert "is not a regular file" in refused("explain", model_folder, "cat", "--html", tmp_path / "pipe")


@pytest.mark.parametrize("name", ["", "-", "s3://bucket/model", "file:///model"])
def test_an_address_or_nothing_is_no_path_of_this_machine(texts, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    reason = "the name is empty|is an address|does not mean standard input or output"
    for command in (["adapt", "x", "--corpus", texts], ["compare", "x"], ["align", "x", "--corpus", texts]):
        assert re.search(reason, refused(*command, "-o", name))
    assert re.search(reason, refused("explain", "x", "cat", "--html", name))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", ["", '{"segments": '])
def test_a_damaged_manifest_is_named(backbone, index_folder, texts, tmp_path, content):
    shutil.copytree(index_folder, tmp_path / "i")
    (tmp_path / "i" / "vectors" / "segments.json").write_text(content)
    assert re.search(r"Cannot read '.*segments\.json'", refused("search", tmp_path / "i", "cat", "--no-model"))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "manifest.json").write_text(content)
    command = ("targets", texts, "--backbone", backbone("llama"), "--stage", "1", "-o", tmp_path / "t")
    assert re.search(r"Cannot read '.*manifest.json'", refused(*command))


@pytest.mark.parametrize("file", ["vectors/*/ids.npy", "vectors/*/bm25.start.npy", "calibration.*"])
@pytest.mark.parametrize("kept", [0, 20])
def test_a_damaged_index_is_told(index_folder, tmp_path, file, kept):
    shutil.copytree(index_folder, tmp_path / "i")
    (found,) = (tmp_path / "i").glob(file)
    found.write_bytes(found.read_bytes()[:kept])
    assert "damaged" in refused("search", tmp_path / "i", "cat")


def test_an_empty_name_is_not_the_current_folder(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "name of a corpus is empty" in refused("encode", "x", "", "-o", "v.npy")
    assert "the name is empty" in refused("index", "x", "", "-o", "i")


def test_an_index_of_short_texts_needs_no_setting_of_the_training(backbone, tmp_path):
    (tmp_path / "d.csv").write_text("id,text\n1,a cat\n2,a dog\n")
    where = tmp_path / "d.csv", "-o", tmp_path / "i"
    done("index", backbone("llama"), *where, "--template", "none", "--max-length", "32")
    assert "a dog" in done("search", tmp_path / "i", "dog", "--no-model", "--json")


@pytest.mark.parametrize(("charset", "sign", "shown"), [("utf-8", "\udce9", r"\udce9"), ("latin-1", "→", r"\u2192")])
def test_a_table_escapes_what_standard_output_cannot_encode(index_folder, charset, sign, shown):
    command = ["search", str(index_folder), f"cat {sign}", "--no-model"]
    result = CliRunner(charset=charset).invoke(main, command)
    assert result.exit_code == 0, result.output
    assert shown in result.stdout


def test_a_query_that_begins_with_a_dash_needs_two_dashes(index):
    assert "-- -5" in refused("search", index, "-5")
    assert json.loads(done("search", index, "--no-model", "--json", "--", "-5"))


@pytest.mark.parametrize("verb", ["align", "spectrum", "encode", "explain", "index", "search", "adapt"])
def test_the_batch_size_reaches_the_embedder(backbone, texts, tmp_path, request, monkeypatch, verb):
    model, output, sizes, long = backbone("llama"), tmp_path / "out.npy", set(), tmp_path / "long.txt"
    long.write_text("\n".join(CORPUS))
    commands = {
        "align": [model, "--corpus", texts],
        "spectrum": [model, model, "--corpus", texts, "-o", output],
        "encode": [model, texts, "-o", output],
        "index": [model, tmp_path / "d.jsonl", "-o", tmp_path / "new", *SETTINGS],
        "adapt": [model, "--corpus", long, "-o", tmp_path / "new", "--correction", "centre"],
    }
    (tmp_path / "d.jsonl").write_text('{"_id": "1", "text": "a cat"}\n{"_id": "2", "text": "a dog"}')
    if verb not in commands:
        commands = {"search": [request.getfixturevalue("index"), "a cat"], "explain": [model, "a cat"]}
    embed = Embedder.embed

    def record(self, texts, **options):
        sizes.add(options.get("batch_size") or self.batch_size)
        return embed(self, texts, **options)

    monkeypatch.setattr(Embedder, "embed", record)
    if verb == "explain":
        assert "No such option" in refused(verb, *commands[verb], "--batch-size", "3")  # it encodes a few texts
        return
    done(verb, *commands[verb], "--batch-size", "3")
    assert sizes == {3}


def test_grouped_options_arrive_as_one_argument():
    @click.command()
    @grouped("pair", dict, click.option("--first", default=1), click.option("--second", "other", default=2))
    @click.option("--third", default=3)
    def command(pair, third):
        click.echo(json.dumps([pair, third]))

    from click.testing import CliRunner

    assert json.loads(CliRunner().invoke(command, ["--second", "5"]).output) == [{"first": 1, "other": 5}, 3]
    assert [parameter.name for parameter in command.params] == ["first", "other", "third"]


@pytest.mark.parametrize("verb", _VERBS)
def test_option_texts_are_sentences(verb):
    """Each help text begins with a capital letter; an option without a text is not listed."""
    context = click.Context(main)
    for parameter in main.get_command(context, verb).params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name
            assert parameter.help[0] == parameter.help[0].upper(), parameter.help


def test_every_verb_that_prints_has_json():
    context = click.Context(main)
    for verb in _VERBS.keys() - {"serve"}:  # which prints nothing but its log
        assert "as_json" in {parameter.name for parameter in main.get_command(context, verb).params}, verb


def test_help_is_shown_for_no_arguments():
    assert "Commands:" in text2token().output


def test_a_snippet_without_spaces_is_shown_as_a_whole():
    """A table cuts words that are longer than a column, and in Chinese the whole snippet is one."""
    text = "今天天气很好我们去公园散步" * 4 + "猫在睡觉" + "明天下雨" * 20
    match = Match("猫在", "bm25", 1.0)
    hit = SearchHit("zh", 1.0, "", snippet(text, [match]), 0.0, [match])
    console = Console(width=60, file=io.StringIO(), record=True)
    console.print(_table("猫在", SearchResults([hit], None)))
    assert "猫在睡觉" in re.sub(r"[\s│]", "", console.export_text().replace("bm25 猫在 1.00", ""))
