"""``text2token encode``."""

from __future__ import annotations

from pathlib import Path

import click

from text2token.cli.options import bf16_option, overwrite_option, quiet_libraries, text_column_option
from text2token.utils.errors import UserError


@click.command("encode")
@click.argument("model")
@click.argument("file")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help=".npy or .parquet")
@overwrite_option
@click.option("--sparse", is_flag=True, help="(ids, weights) of the aligned tokens; .parquet only")
@text_column_option
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="texts at once")
@bf16_option
def encode_command(
    model: str, file: str, output: Path, overwrite: bool, sparse: bool, text_column: str, batch_size: int, bf16: bool
) -> None:
    """Write dense or sparse vectors of the texts in FILE, in their order; blank lines are no texts.

    MODEL is a folder that 'text2token fit' wrote, a SentenceTransformer folder, or a backbone. A row of the Parquet output
    is a text with its 'vector', or with the 'ids' and 'weights' of its tokens, heaviest first. Stop it whenever you like: the
    same command continues.

    \b
    Example:
      text2token encode model notes.txt --output vectors.npy
      text2token encode model notes.jsonl --sparse --output tokens.parquet
    """
    if output.suffix not in ({".parquet"} if sparse else {".npy", ".parquet"}):
        raise UserError(
            f"Cannot write '{output}': name a .parquet file"
            + (" for sparse vectors." if sparse else " or a .npy file.")
        )
    if output.exists() and not overwrite:
        raise UserError(f"The output '{output}' exists: choose another file, or pass --overwrite.")
    quiet_libraries()
    from text2token.data.corpus import open_corpus
    from text2token.model.embedder import Embedder
    from text2token.model.encode_file import encode_file

    texts = list(open_corpus(file, text_column=text_column))
    embedder = Embedder.open(model)
    if bf16:
        embedder.use_bf16()
    encode_file(embedder, texts, output, sparse=sparse, batch_size=batch_size, overwrite=overwrite, progress=True)
    click.echo(f"{len(texts)} vectors in {output}", err=True)
