"""``text2token distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from text2token.cli.options import (
    CorpusReader,
    Encoding,
    corpus_options,
    echo_json,
    encoding_options,
    json_option,
    output_option,
    overwrite_option,
    quiet_libraries,
    setting_options,
)
from text2token.settings.distillation import DistillSettings
from text2token.settings.recipe import one_sentence
from text2token.settings.record import RECORD, DistillRecord


@click.command("distill")
@click.argument("model")
@click.argument("corpus", nargs=-1, required=True)
@output_option("New folder for the student.")
@corpus_options
@overwrite_option
@encoding_options
@json_option
@setting_options("given", DistillSettings, *(name for name in DistillSettings.model_fields if name != "batch_size"))
def distill_command(
    model: str,
    corpus: tuple[str, ...],
    output: Path,
    reader: CorpusReader,
    overwrite: bool,
    encoding: Encoding,
    as_json: bool,
    given: dict[str, Any],
) -> None:
    """Train a student that imitates MODEL without a transformer: a table with one vector per token.

    MODEL is a folder that 'text2token fit' or 'text2token adapt' wrote. CORPUS is given as for 'text2token fit'; texts of the
    kind that will be encoded or searched are best. OUTPUT/dense and OUTPUT/sparse load with sentence-transformers.

    A student can also encode the queries of an index, whose documents keep the vectors of MODEL: 'text2token index' takes the
    student in MODEL/student, or the one that --query-model names. If you stop the command, repeat it to continue.

    \b
    Example:
      text2token distill model notes.txt --output model/student
      text2token index model documents.jsonl --output index
    """
    with one_sentence("Distill", DistillSettings):
        settings = DistillSettings(**given)
    quiet_libraries()
    from text2token.model.embedder import Embedder
    from text2token.training.distillation import distill

    teacher = encoding.apply(Embedder.open(model))
    distill(teacher, reader.open(corpus), output, settings, overwrite=overwrite, progress=True)
    record = DistillRecord.model_validate_json((output / RECORD).read_text(encoding="utf-8"))
    if as_json:
        echo_json(record.model_dump(mode="json", include={"read", "before", "after"}))
    else:
        click.echo(
            f"Mean cosine with the teacher on held-out texts: {record.before:.3f} at first, {record.after:.3f} at last."
        )
        click.echo(f"{output}/dense and {output}/sparse load with sentence-transformers.")
