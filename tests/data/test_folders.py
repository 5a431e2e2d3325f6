"""The lister of folders: links, loops and folders that cannot be read, the same for corpora and for documents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from text2token.data import open_corpus
from text2token.data.folders import visible_files
from text2token.search import read_documents


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}")
    return folder


def listed(folder):
    """The files that both readers find, which are the same: each file holds its own name."""
    documents = [document.id for document in read_documents(folder)]
    assert sorted(open_corpus(folder)) == sorted(document.text for document in read_documents(folder))
    assert documents == [file.relative_to(folder).as_posix() for file in visible_files(folder)]
    return documents


def test_a_folder_is_listed_at_any_depth_without_hidden_names(tmp_path):
    write(tmp_path, "b.txt", "a/x.txt", "a.txt", ".hidden/x.txt", "a/.x.txt", "a/b/.git/x.txt", "a/b/y.txt")
    assert listed(tmp_path) == ["a/b/y.txt", "a/x.txt", "a.txt", "b.txt"]


def test_links_are_followed_and_a_folder_is_read_once(tmp_path):
    folder = write(tmp_path / "docs", "m/x.txt", "m/deep/y.txt")
    write(tmp_path / "other", "z.txt", "deep/z.txt")
    for link, target in {
        "again": ".",
        "m/up": "..",
        "early": "m/deep",  # the files keep their ids, also where a link comes first
        "more": "../other",
        "more-again": "../other",
        ".hidden": "../other/deep",
        "file.txt": "../other/z.txt",
        "lost.txt": "nowhere.txt",
    }.items():
        (folder / link).symlink_to(target)
    (tmp_path / "other" / "back").symlink_to(folder)
    assert listed(folder) == ["file.txt", "m/deep/y.txt", "m/x.txt", "more/deep/z.txt", "more/z.txt"]
    (tmp_path / "link").symlink_to(folder)
    assert len(listed(tmp_path / "link")) == 5


@pytest.mark.parametrize("read", [open_corpus, lambda folder: list(read_documents(folder))])
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch, read):
    write(tmp_path, "a.txt", "closed/b.txt", ".closed/c.txt")
    scandir = os.scandir

    def refusing(folder):
        if Path(folder).name.endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)  # as without permission; root may read every folder
    with pytest.raises(PermissionError, match=r"Permission denied: '.*/closed'"):
        read(tmp_path)
