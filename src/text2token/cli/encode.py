"""``text2token encode``."""

from __future__ import annotations

from pathlib import Path

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
)
from text2token.utils.errors import UserError


@click.command("encode")
@click.argument("model")
@click.argument("file")
@output_option("A .npy or .parquet file.")
@overwrite_option
@click.option("--sparse", is_flag=True, help="Write ids and weights of the aligned tokens. Needs a .parquet file.")
@corpus_options
@encoding_options
@json_option
def encode_command(
    model: str,
    file: str,
    output: Path,
    overwrite: bool,
    sparse: bool,
    reader: CorpusReader,
    encoding: Encoding,
    as_json: bool,
) -> None:
    """Write the dense or sparse vectors of the texts in FILE, in the same order. Blank lines are skipped.

    MODEL is a folder that 'text2token fit' wrote, a SentenceTransformer, or a language model. A row of the Parquet file holds the
    'text' with its 'vector', or with the 'ids' and 'weights' of its tokens, heaviest first. If you stop the command, repeat it to
    continue.

    \b
    Example:
      text2token encode model notes.txt --output vectors.npy
      text2token encode model notes.jsonl --sparse --output tokens.parquet
    """
    if output.suffix not in ({".parquet"} if sparse else {".npy", ".parquet"}):
        needed = "a .parquet file for sparse vectors." if sparse else "a .parquet file or a .npy file."
        raise UserError(f"Cannot write '{output}': name {needed}")
    if output.exists() and not overwrite:
        raise UserError(f"The output '{output}' exists: choose another file, or set `overwrite`.")
    quiet_libraries()
    from text2token.model.embedder import Embedder
    from text2token.model.encode_file import encode_file

    texts = list(reader.open(file))
    embedder = encoding.apply(Embedder.open(model))
    size = encoding.batch_size
    encode_file(embedder, texts, output, sparse=sparse, batch_size=size, overwrite=overwrite, progress=True)
    if as_json:
        echo_json({"output": str(output), "texts": len(texts)})
    else:
        click.echo(f"{len(texts)} vectors in {output}", err=True)
