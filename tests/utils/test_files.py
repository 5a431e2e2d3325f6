"""Folders that appear whole, and locks."""

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from text2token import UserError
from text2token.utils.errors import PassingError
from text2token.utils.files import atomic_folder, check_file, output_lock, write_json, write_text
from text2token.utils.run_folder import RunFolder


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


def test_a_lone_surrogate_is_written_as_its_escape(tmp_path):
    write_text(tmp_path / "page.md", "caf\u00e9 \ud800")
    write_json(tmp_path / "page.json", "caf\u00e9 \ud800")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == "caf\u00e9 \\ud800"
    assert json.loads((tmp_path / "page.json").read_text(encoding="utf-8")) == "caf\u00e9 \ud800"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("new", "old"):
        (tmp_path / f"{name}.json").symlink_to(tmp_path / "disk" / name)
        (tmp_path / f"{name}-run").symlink_to(tmp_path / "disk" / f"{name}-run")
    (tmp_path / "disk" / "old").write_text("1")
    (tmp_path / "disk" / "old-run").mkdir()
    for name in ("new", "old"):
        write_json(tmp_path / f"{name}.json", 2)
        run = RunFolder.open(tmp_path / f"{name}-run", overwrite=True)
        with run.session({}):
            run.result.mkdir()
            (run.result / "run.json").touch()
            run.publish()
        assert (tmp_path / f"{name}.json").is_symlink()
        assert (tmp_path / f"{name}-run").is_symlink()
    written = {path.name for path in (tmp_path / "disk").rglob("*")}
    assert written == {"new", "new-run", "old", "old-run", "run.json"}
    assert (tmp_path / "disk" / "old").read_text() == "2"


def test_a_run_replaces_nothing_of_another_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("years of work")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, is_file in (("notes.txt", False), ("folder", True), ("pipe", False), ("pipe", True)):
        with pytest.raises(UserError, match=f"{name}' is not a (folder|regular file), so it is not replaced"):
            RunFolder.open(tmp_path / name, overwrite=True, is_file=is_file)
    with pytest.raises(UserError, match="exists"):
        RunFolder.open(tmp_path / "folder" / "..", overwrite=False)
    with pytest.raises(UserError, match="'/' is a mount point, which cannot be replaced: name a folder inside it"):
        RunFolder.open(Path("/"), overwrite=True)


def test_a_file_is_written_only_where_nothing_or_a_file_is(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "new", "new folder/new"):
        check_file(tmp_path / name)
    for name, reason in ((".", "is a folder"), ("pipe", "is not a regular file"), ("file/new", "Cannot write to")):
        with pytest.raises(UserError, match=reason):
            check_file(tmp_path / name)


def test_a_folder_is_never_half_deleted_and_is_found_after_a_kill_between_the_renames(tmp_path, monkeypatch):
    folder, deleted = tmp_path / "model", []
    monkeypatch.setattr("shutil.rmtree", lambda place, **_: deleted.append(place))
    for name in ("old", "new"):
        with atomic_folder(folder) as part:
            (part / name).touch()
    assert folder not in deleted
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "model.old")
    folder.rename(tmp_path / "model.old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder):
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.rglob("*")] == ["model", "new"]


def test_the_work_folder_of_a_run_that_begins_is_left_to_it(tmp_path):
    (tmp_path / ".m.work" / "result").mkdir(parents=True)
    with output_lock(tmp_path / "m"):
        RunFolder.open(tmp_path / "m", overwrite=False)
        assert (tmp_path / ".m.work" / "result").is_dir()
    RunFolder.open(tmp_path / "m", overwrite=False)
    assert not (tmp_path / ".m.work").exists()


@pytest.mark.parametrize(("error", "kept"), [(PassingError("The network is gone."), True), (UserError("No."), False)])
def test_what_may_pass_does_not_delete_what_a_new_run_has_finished(tmp_path, error, kept):
    run = RunFolder.open(tmp_path / "m", overwrite=False)

    def work():
        with run.session({}):
            run.cached("value.json", lambda: 1)
            raise error

    with pytest.raises(UserError):
        work()
    assert (run.work / "value.json").exists() == kept


def test_a_full_disk_does_not_delete_what_a_new_run_has_finished(tmp_path):
    for cause, kept in ((OSError(errno.ENOSPC, "No space left on device"), True), (ValueError("no"), False)):
        run = RunFolder.open(tmp_path / "new" / "m", overwrite=False)
        with pytest.raises(UserError), run.session({}):
            raise UserError("The index cannot be written.") from cause
        assert run.work.exists() == kept
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
