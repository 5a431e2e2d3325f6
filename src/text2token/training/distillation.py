"""``distill``: train a student without a transformer that imitates an embedder."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from text2token.model.decoding import sparse_vectors
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint, with_calibration
from text2token.model.query_table import QUERY, QueryTable, TokenRows, write_query_table
from text2token.model.spans import draw_span, join_words, split_words
from text2token.model.static import pool, spaced, static_encoder
from text2token.model.tokens import tokenise
from text2token.settings.distillation import DistillSettings
from text2token.settings.facts import TeacherFacts
from text2token.settings.record import RECORD, DistillRecord
from text2token.training.card import write_student_cards
from text2token.training.pairs import with_pairs
from text2token.training.start import CorpusLike, Draw, Drawn, as_corpus, read_corpus
from text2token.training.student import Lesson, start_table, train_table
from text2token.utils.errors import UserError
from text2token.utils.places import check_outside
from text2token.utils.processes import require_one_process
from text2token.utils.progress import track
from text2token.utils.run_folder import RunFolder

_FEWEST_TEXTS = 16
_SPAN_WORDS = (2, 12)  # a query is short; whole texts show the rest
_CHUNK = 512  # texts that the teacher encodes between two files; a killed process loses at most these
_PAIR_TOKENS = 1_024  # of a text from which pairs of spans are drawn
_QUERY_TOKENS = 64  # aligned tokens of a vocabulary entry in the query table


def distill(
    teacher: Embedder | str | Path,
    corpus: CorpusLike,
    output: str | Path,
    settings: DistillSettings | None = None,
    *,
    text_column: str = "text",
    overwrite: bool = False,
    progress: bool = False,
) -> Embedder:
    """Train a static student that imitates an embedder, and write it to a folder.

    The student is a table with one vector per token; the vector of a text is the mean over its tokens. It keeps tokenizer,
    decoding head, corpus mean and correction of the teacher, so its aligned tokens can be compared with those of the teacher.
    With ``pair_texts``, further columns learn from the corpus alone (:mod:`text2token.training.pairs`). If the process was
    killed, the same call continues: the teacher encodes no text twice.

    Args:
        teacher: A folder that ``fit`` or ``adapt`` wrote, or the opened embedder.
        corpus: A file, folder, glob, hub name or ``-``; a list of texts; or an opened corpus.
        output: New folder for ``dense``, ``sparse``, ``query`` (the arrays that an index keeps) and ``run.json``.
        settings: All settings. None uses the defaults.
        text_column: Column of the texts in a table.
        overwrite: Replace ``output`` if it holds a run, and discard an unfinished run with other settings.
        progress: Show progress bars on a terminal.

    Returns:
        The student.

    Raises:
        UserError: Teacher, corpus or output folder cannot be used.
    """
    require_one_process("distill")
    settings = settings or DistillSettings()
    folder = RunFolder.open(output, overwrite=overwrite)
    opened = as_corpus(corpus, text_column)
    check_outside(folder.output, *opened.opened)
    name = str(teacher) if isinstance(teacher, str | Path) else (teacher.backbone or "an embedder")
    teacher = teacher if isinstance(teacher, Embedder) else Embedder.open(teacher)
    _check(teacher, name)
    teacher = teacher.finished()  # the student then fits the folder of an embedder that was calibrated in Python
    facts = TeacherFacts(
        name=name, fingerprint=with_calibration(embedder_fingerprint(teacher, corrected=False), teacher)
    )
    most = max(settings.max_texts, settings.pair_texts)
    amount = Draw("max_texts", most, settings.held_out, part=10, fewest=_FEWEST_TEXTS)
    (read, held_out), corpus_facts = read_corpus(opened, amount, settings.seed)
    drawn = Drawn(read[: settings.max_texts], held_out)
    identity = {"corpus": corpus_facts.fingerprint, "teacher": facts.fingerprint, "precision": teacher.precision}
    with folder.session({"verb": "distill", **identity, "settings": settings.model_dump()}):
        tokenizer = spaced(teacher.tokenizer.backend_tokenizer)
        with folder.clock("teacher"):
            lesson, test = (
                _lesson(part, texts, teacher, tokenizer, settings, folder, progress)
                for part, texts in zip(Drawn._fields, drawn, strict=True)
            )
        with folder.clock("train"):
            start = start_table(teacher, lesson)
            table = train_table(teacher, start, lesson, settings, progress=progress)
        imitation = Embedder(
            static_encoder(tokenizer, table), teacher.head, teacher.correction, teacher.mean_logits, teacher.top_k
        )
        with folder.clock("pairs"):
            pairs = tokenise(tokenizer, read[: settings.pair_texts], _PAIR_TOKENS)
            student = with_pairs(imitation, pairs, settings.seed, progress=progress)
        student.save(folder.result)
        with folder.clock("query table"):
            rows = token_rows(imitation, progress=progress)  # documents have the vectors of the teacher alone
            checksum = hashlib.sha256(b"".join(array.tobytes() for array in rows)).hexdigest()
            write_query_table(QueryTable(rows, tokenizer, checksum, facts.fingerprint, folder.result / QUERY))
        record = DistillRecord.of(
            folder.origin()
            | {"settings": settings, "teacher": facts, "corpus": corpus_facts, "read": len(lesson.ids)}
            | {"before": _agreement(teacher, test, start), "after": _agreement(teacher, test, table)}
            | {"query_table": checksum}
        )
        record.write(folder.result / RECORD)
        write_student_cards(record, folder.result)
        folder.publish()
    return student


def views(texts: Sequence[str], spans: int, seed: int) -> list[str]:
    """Return each text as a whole, and short spans of it, as a query or a title is short. All are distinct, in random order.

    Args:
        texts: N texts.
        spans: Spans of 2 to 12 words drawn from each text.
        seed: Seed of the spans and of the order.
    """
    rng = random.Random(seed)
    words = [split_words(text) for text in texts]
    drawn = [join_words(draw_span(own, rng.randint(*_SPAN_WORDS), rng)) for own in words for _ in range(spans)]
    found = list(dict.fromkeys([*texts, *drawn]))
    rng.shuffle(found)
    return found


@torch.no_grad()
def token_rows(student: Embedder, *, progress: bool = False) -> TokenRows:
    """Compute the rows of a query table: the dense vector and the aligned tokens of every vocabulary entry."""
    table = student.encoder[0].embedding.weight
    k = min(_QUERY_TOKENS, student.vocabulary_size)
    ids, weights = sparse_vectors(table, student.logits, k, progress=progress)
    return TokenRows(student.correct(table).half().numpy(), ids, weights.astype(np.float16))


def _check(teacher: Embedder, name: str) -> None:
    """Refuse a teacher that cannot be imitated."""
    teacher.require_calibration()
    if teacher.similarity != "cosine":
        raise UserError(f"'{name}' was made for the similarity {teacher.similarity}, and a student learns cosines.")
    if not hasattr(teacher.tokenizer, "backend_tokenizer"):
        raise UserError(f"'{name}' has no fast tokenizer of transformers, which a student needs: choose another model.")


def _lesson(
    part: str,
    texts: list[str],
    teacher: Embedder,
    tokenizer: Tokenizer,
    settings: DistillSettings,
    folder: RunFolder,
    progress: bool,
) -> Lesson:
    """Read texts and their spans with the teacher and the student's tokenizer. Encoded chunks stay in the work folder."""
    read = views(texts, settings.spans, settings.seed)
    chunks = [read[start : start + _CHUNK] for start in range(0, len(read), _CHUNK)]
    embeddings: list[Tensor] = []
    for number, chunk in enumerate(track(chunks, "Teacher encodes", unit="texts", each=_CHUNK, enabled=progress)):
        embeddings.append(folder.cached(f"{part}-{number}.npy", partial(teacher.embed, chunk)))
    ids = tokenise(tokenizer, read, teacher.encoder.max_seq_length)  # the teacher reads no more
    kept = [place for place, row in enumerate(ids) if len(row)]
    return Lesson([ids[place] for place in kept], torch.cat(embeddings)[kept])


def _agreement(teacher: Embedder, test: Lesson, table: Tensor) -> float:
    """Mean cosine of the dense vectors of a table and of the teacher."""
    student, own = (teacher.densify(embeddings) for embeddings in (pool(table, test.ids), test.embeddings))
    return float((student * own).sum(dim=1).mean())
