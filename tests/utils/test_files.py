"""Folders that appear whole, and locks."""

import errno
import fcntl

import pytest

from text2token import UserError
from text2token.utils.files import atomic_folder, output_lock


def test_a_folder_takes_the_place_of_the_old_one_and_has_nothing_of_a_killed_run(tmp_path):
    folder, left = tmp_path / "above" / "model.v1", tmp_path / "above" / "model.v1.part"
    for old in (folder, left):
        old.mkdir(parents=True)
        (old / "old").touch()
    with atomic_folder(folder) as part:
        assert (folder / "old").exists()  # until the new one is whole
        (part / "new").touch()
    assert [file.name for file in folder.iterdir()] == ["new"]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_failure_leaves_the_old_folder_and_no_half_of_the_new(tmp_path):
    def write_half(part):
        (part / "new").touch()
        raise KeyboardInterrupt

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as part:
        write_half(part)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["model", "old"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    sentence = r"^The disk of '.*' has no file locks \(No locks available\): use a folder on a local disk\.$"
    with pytest.raises(UserError, match=sentence), output_lock(tmp_path / "new" / "model"):
        pass
