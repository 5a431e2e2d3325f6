"""The student of an index: it encodes queries in place of the model, without torch (ours).

The index keeps a copy of the student's table, so a search needs neither the student's folder nor the model. When the index is
built, the copy learns its documents.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from text2token.model.query_table import QUERY, QueryTable, copy_query_table, write_query_table
from text2token.search.store import DocumentStore
from text2token.utils.errors import UserError
from text2token.utils.files import local_path

NO_STUDENT = "none"
_FACT = "student"  # the checksum of the student, in the database of the index
_LEARNT = 20_000  # documents that a student learns, some minutes of work; a larger index gives a sample


def find_student(model: str, query_model: str | Path | None) -> QueryTable | None:
    """Return the student that is to encode the queries of a new index.

    Args:
        model: The model of the index, as :func:`text2token.model.names.from_anywhere` names it.
        query_model: Folder of the student; ``none``: the model encodes the queries; None: the student in ``model/student``, if
            the model is a folder that has one.

    Raises:
        UserError: The folder holds no student.
    """
    if query_model == NO_STUDENT:
        return None
    if query_model is None and not Path(model).is_absolute():
        return None  # a packaged model or one of the hub: a folder of this name is something else
    folder = Path(model, "student") if query_model is None else local_path(query_model)
    if not (folder / QUERY).is_dir():
        if query_model is None:
            return None
        raise UserError(
            f"'{folder}' holds no student: name a folder that 'text2token distill' wrote, or '{NO_STUDENT}'."
        )
    return QueryTable.open(folder / QUERY)


def check_teacher(student: QueryTable, fingerprints: Iterable[str], model: str) -> None:
    """Check that a student imitates the model of the index, with its present correction and corpus mean.

    Args:
        student: The student.
        fingerprints: Those of the model, see :func:`text2token.model.fingerprint.taught_fingerprints`.
        model: The model's name.

    Raises:
        UserError: It imitates another one.
    """
    if student.teacher not in fingerprints:
        raise UserError(
            f"The student in '{student.folder.parent}' was distilled from another model than '{model}', or before its last "
            f"calibration, and their vectors cannot be compared: distil that one, or set the query model to '{NO_STUDENT}'."
        )


def keep_student(folder: Path, store: DocumentStore, student: QueryTable | None) -> None:
    """Copy a student into the folder of an index, or check that an unfinished index has the same one.

    Raises:
        UserError: The unfinished index has another student.
    """
    checksum = student.sha256 if student else None
    if store.get("documents", 0):
        if store.get(_FACT) != checksum:
            raise UserError(
                f"'{folder}' holds an unfinished index with another query model: repeat the command that began it, or choose "
                "another folder."
            )
        if student and not (folder / QUERY).is_dir():  # a process was killed while it replaced the copy
            copy_query_table(student.folder, folder / QUERY)
        return
    if student:
        copy_query_table(student.folder, folder / QUERY)
    else:
        shutil.rmtree(folder / QUERY, ignore_errors=True)
    store.set(**{_FACT: checksum})


def open_student(folder: Path, store: DocumentStore, query_model: str | Path | None) -> QueryTable | None:
    """Return the student of an index; None if the model encodes the queries.

    Args:
        folder: Folder of the index.
        store: Database of the index.
        query_model: None: the student of the index, if it has one; ``none``: the model; or the folder of a student, which must be
            that of the index.

    Raises:
        UserError: The index has another student, or its copy is missing or damaged.
    """
    checksum = store.get(_FACT)
    if query_model == NO_STUDENT or (query_model is None and checksum is None):
        return None
    if query_model is not None:
        given = find_student("", query_model)
        if given is not None and given.sha256 != checksum:
            raise UserError(
                f"The student in '{query_model}' is not that of the index in '{folder}': make the index again with it, or leave "
                "it out."
            )
    return QueryTable.open(folder / QUERY)


def keep_lessons(store: DocumentStore, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
    """Keep the dense vectors of documents that the student will learn. The sample depends on the ids alone.

    Args:
        store: Database of an unfinished index, which has counted all its documents.
        ids: N documents.
        vectors: Their dense vectors, N×k.
    """
    documents = store.get("documents")
    drawn = [place for place, name in enumerate(ids) if crc32(name.encode()) * documents < _LEARNT << 32]
    store.keep_lessons([ids[place] for place in drawn], vectors[drawn])


def learn(store: DocumentStore, student: QueryTable, *, progress: bool) -> QueryTable:
    """Return the student after it has learnt the documents of an index, once; it replaces the copy in the index."""
    texts, vectors = store.lessons()
    if texts and not student.documents:
        from text2token.model.query_training import train_on_documents  # torch, which a search does not need

        write_query_table(train_on_documents(student, texts, vectors, progress=progress))
        student = QueryTable.open(student.folder)
    store.forget_lessons()
    return student
