"""Read relevance judgements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from text2token.data.lines import file_format, read_lines
from text2token.data.tables import read_table
from text2token.data.text import clean_id, finite_number
from text2token.utils.errors import UserError
from text2token.utils.files import local_path

WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0+)?")
"""A whole number in text: ``7``, ``-1`` and ``7.0``, but not ``007``."""


def read_qrels(file: str | Path) -> dict[str, dict[str, int]]:
    """Read relevance judgements: query → document → relevance.

    In a ``.tsv`` file a line holds query, document and relevance, between tabs or else between spaces; the four columns of TREC,
    with a constant in second place, are read too, and a header is optional. Other tables have the columns ``query-id``,
    ``corpus-id`` and ``score``.

    Raises:
        UserError: A line has other columns, an id is empty, or a relevance is not a whole number.
    """
    file = local_path(file)
    judged: dict[str, dict[str, int]] = {}
    for place, query, document, score in _tsv_qrels(file) if file_format(file) == ".tsv" else _table_qrels(file):
        relevance = WHOLE_NUMBER.fullmatch(score)
        if not relevance:
            raise UserError(f"{place}: expected query, document and a whole number between tabs, found '{score[:40]}'.")
        query, document = clean_id(query), clean_id(document)
        if not query or not document:
            raise UserError(f"{place}: the id of the {'document' if query else 'query'} is empty; fill it in.")
        judged.setdefault(query, {})[document] = int(relevance[1])
    return judged


def _tsv_qrels(file: Path) -> Iterator[tuple[str, str, str, str]]:
    for number, line in enumerate(read_lines(file), start=1):
        place = f"{file}, line {number}"
        cells = [cell.strip() for cell in line.strip().split("\t")]
        if len(cells) < 3:
            cells = line.split()
        if len(cells) == 4:
            del cells[1]
        if len(cells) not in (0, 3):
            raise UserError(
                f"{place}: expected query, document and a whole number between tabs, found {len(cells)} columns."
            )
        if cells and (number > 1 or finite_number(cells[2]) is not None):  # otherwise it is the header
            yield place, cells[0], cells[1], cells[2]


def _table_qrels(file: Path) -> Iterator[tuple[str, str, str, str]]:
    for row in read_table(file, ["query-id", "corpus-id", "score"]):
        yield row.place, row.id("query-id"), row.id("corpus-id"), row.text("score")
