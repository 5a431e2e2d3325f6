"""The documentation: its Python blocks run on a tiny model, and its commands parse.

The blocks of a page run in order in one namespace and in a folder of their own. It holds ``notes.txt``, ``documents.jsonl``, a
similarity task ``my-task`` and ``model``, a fitted model. The default backbone is a tiny one there.
"""

from __future__ import annotations

import doctest
import json
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt

import text2token
from conftest import CORPUS, SENTENCES
from text2token.cli import main
from text2token.utils.cache import cache_dir

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of each code block; an indented block has no language."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [(token.info.strip(), token.content) for token in tokens if token.type in ("fence", "code_block")]


def commands(text: str) -> list[list[str]]:
    """The arguments of each call of ``text2token`` in a block of shell commands."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    words = [
        shlex.split(line.removeprefix("$ "), comments=True) for line in lines if re.match(r"(\$ )?text2token ", line)
    ]
    found = []
    for line in words:
        ends = [i for i, word in enumerate(line) if word in ("&&", "|", ";", ">", "2>")] + [len(line)]
        starts = [0, *(end + 1 for end in ends[:-1])]
        calls = [line[start:end] for start, end in zip(starts, ends, strict=True)]
        found += [call[1:] for call in calls if call[:1] == ["text2token"]]
    return found


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, backbone) -> Path:
    """A folder with the files that the documentation names."""
    folder = tmp_path_factory.mktemp("started")
    texts = [f"{text[:-1]}, says page {i}." for i in range(30) for text in SENTENCES]
    (folder / "notes.txt").write_text("\n".join(texts))
    rows = [{"_id": str(i), "title": f"Page {i}", "text": text} for i, text in enumerate(CORPUS[:30])]
    (folder / "documents.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "my-task").mkdir()
    scored = [{"sentence1": a, "sentence2": b, "score": i % 5} for i, (a, b) in enumerate(pairwise(CORPUS[:13]))]
    (folder / "my-task" / "test.jsonl").write_text("\n".join(map(json.dumps, scored)))
    small = text2token.Recipe(
        backbone=backbone("llama"),
        max_texts=60,
        batch_size=8,
        held_out=16,
        calibration_texts=30,
        prior_texts=20,
        lora_rank=2,
    )
    text2token.fit(CORPUS, folder / "model", small)
    return folder


@pytest.fixture
def reader(started: Path, tmp_path: Path, backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a copy of that folder, where the default backbone is a tiny model."""
    shutil.copytree(started, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TEXT2TOKEN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(backbone("llama"), cache_dir() / "backbones" / "smollm2-135m")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, page in zip(NAMES, PAGES, strict=True)
        if "```python" in page.read_text() and name != "docs/serving.md"  # tests/serving runs these on a server
    ],
)
def test_python_blocks_run(name, reader):
    namespace: dict[str, object] = {}
    for language, code in blocks(ROOT / name):
        if language == "python":
            exec(compile(code, name, "exec"), namespace)


@pytest.mark.parametrize("name", NAMES)
def test_commands_parse(name):
    for language, text in blocks(ROOT / name):
        for arguments in commands(text) if language in ("", "bash", "console", "sh", "shell", "text") else []:
            if "..." in arguments or "…" in " ".join(arguments) or arguments[0].startswith("-"):
                continue
            with click.Context(main, info_name="text2token") as top:
                command = main.get_command(top, arguments[0])
                assert command, f"there is no command '{arguments[0]}'"
                context = click.Context(command, parent=top, info_name=arguments[0])
                command.make_parser(context).parse_args(arguments[1:])  # raises for an unknown option


def test_the_example_of_the_package_runs(reader):
    failures, run = doctest.testmod(text2token, raise_on_error=False)[:2]
    assert (failures, run > 0) == (0, True)


def test_commands_are_found_in_blocks():
    assert commands(
        "$ text2token fit a.txt \\\n   -o m  # comment\nmake test\ntext2token x && text2token y | head"
    ) == [
        ["fit", "a.txt", "-o", "m"],
        ["x"],
        ["y"],
    ]
