"""``text2token encode``: vectors in one file, or a corpus in shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from text2token.cli.options import (
    BACKBONE,
    CorpusReader,
    Encoding,
    as_flag,
    corpus_options,
    echo_json,
    encoding_options,
    grouped,
    json_option,
    output_option,
    overwrite_option,
    place_type,
    quiet_libraries,
    recipe_options,
    refuse_settings,
)
from text2token.settings.recipe import Recipe
from text2token.utils.errors import UserError, requires_extra
from text2token.utils.places import check_outside


@dataclass(frozen=True)
class Shards:
    """The options of a corpus in shards."""

    shards: int | None
    shard: int | None
    ray: str | None
    actors: int | None
    actor_cpus: int | None
    actor_gpus: float | None
    id_column: str | None
    title_column: str | None

    def given(self) -> list[str]:
        """Names of the options that the user gave."""
        return [name for name, value in vars(self).items() if value is not None]

    def check(self, *, sparse: bool, overwrite: bool) -> None:
        """Refuse options that do not belong together.

        Raises:
            UserError: There are such options.
        """
        if sparse or overwrite:
            flag = "--sparse" if sparse else "--overwrite"
            why = "'text2token index' makes sparse vectors of them" if sparse else "delete a shard to encode it again"
            raise UserError(f"{flag} does not apply to shards, since {why}: leave it out.")
        if self.ray and self.shard is not None:
            raise UserError(
                "--shard encodes one shard here, and --ray all missing ones on a cluster: leave one of them out."
            )
        idle = [name for name in self.given() if name.startswith("actor")]
        if idle and not self.ray:
            raise UserError(f"{as_flag(idle[0])} has no effect without --ray: leave it out, or add --ray.")


@click.command("encode")
@click.argument("model")
@click.argument("file")
@output_option("A .npy or .parquet file; with --shards a folder, also s3://bucket/folder.", place_type)
@overwrite_option
@click.option("--sparse", is_flag=True, help="Write ids and weights of the aligned tokens. Needs a .parquet file.")
@corpus_options
@encoding_options
@grouped(
    "cut",
    Shards,
    click.option("--shards", type=click.IntRange(1), help="Encode a corpus for an index, in this many files."),
    click.option("--shard", type=int, help="Encode this shard only, from 0.  [default: all that have no file yet]"),
    click.option(
        "--ray",
        is_flag=False,
        flag_value="local",
        metavar="[ADDRESS]",
        help="Encode the shards on a Ray cluster: its address, 'auto', or 'local' to start one here.",
    ),
    click.option("--actors", type=click.IntRange(1), help="Models that encode at the same time on Ray.  [default: 1]"),
    click.option("--actor-cpus", type=click.IntRange(1), help="CPUs of each of them.  [default: 1]"),
    click.option("--actor-gpus", type=click.FloatRange(0), help="GPUs of each of them.  [default: 0]"),
    click.option("--id-column", help="Column of the ids, with --shards.  [default: _id or id]"),
    click.option("--title-column", help="Column of the titles, with --shards.  [default: title, if there is one]"),
)
@json_option
@recipe_options(*BACKBONE)
def encode_command(
    model: str,
    file: str,
    output: Path,
    overwrite: bool,
    sparse: bool,
    reader: CorpusReader,
    encoding: Encoding,
    cut: Shards,
    as_json: bool,
    recipe: Recipe,
) -> None:
    """Write the dense or sparse vectors of the texts in FILE, in the same order. Blank lines are skipped.

    MODEL is a folder that 'text2token fit' wrote, a SentenceTransformer, or a language model. A row of the Parquet file holds the
    'text' with its 'vector', or with the 'ids' and 'weights' of its tokens, heaviest first. If you stop the command, repeat it to
    continue.

    With --shards, FILE holds documents as 'text2token index' reads them. Each shard is a file that any process on any machine can
    write, and 'text2token index --vectors' makes an index of all. The settings below turn a language model into an encoder of
    documents.

    \b
    Example:
      text2token encode model notes.txt --output vectors.npy
      text2token encode model notes.jsonl --sparse --output tokens.parquet
      text2token encode model docs.jsonl --shards 16 --shard 3 --output shards
    """
    if cut.shards is not None:
        cut.check(sparse=sparse, overwrite=overwrite)
        encoded = _encode_shards(model, file, output, reader, encoding, cut, recipe)
        facts: dict[str, Any] = {"documents": encoded}
        said = f"{encoded} documents encoded in {output}"
    else:
        if idle := [*cut.given(), *recipe.model_fields_set.intersection(BACKBONE)]:
            raise UserError(f"{as_flag(min(idle))} applies to shards only: add --shards, or leave it out.")
        encoded, used = _encode_file(model, file, output, reader, encoding, sparse=sparse, overwrite=overwrite)
        facts = {"texts": encoded, "precision": used}
        said = f"{encoded} vectors in {output}"
    if as_json:
        echo_json({"output": str(output), **facts})
    else:
        click.echo(said, err=True)


def _encode_file(
    model: str, file: str, output: Path, reader: CorpusReader, encoding: Encoding, *, sparse: bool, overwrite: bool
) -> tuple[int, str]:
    if output.suffix not in ({".parquet"} if sparse else {".npy", ".parquet"}):
        needed = "a .parquet file for sparse vectors." if sparse else "a .parquet file or a .npy file."
        raise UserError(f"Cannot write '{output}': name {needed}")
    if not isinstance(output, Path):
        raise UserError(f"Only shards are written to an object store: name a local file in place of '{output}'.")
    if output.exists() and not overwrite:
        raise UserError(f"The output '{output}' exists: choose another file, or set `overwrite`.")
    quiet_libraries()
    from text2token.model.embedder import Embedder
    from text2token.model.encode_file import encode_file

    corpus = reader.open(file)
    check_outside(output, *corpus.opened)
    texts = list(corpus)
    embedder = encoding.apply(Embedder.open(model))
    size = encoding.batch_size
    encode_file(embedder, texts, output, sparse=sparse, batch_size=size, overwrite=overwrite, progress=True)
    return len(texts), embedder.precision


def _encode_shards(
    model: str, file: str, output: Path, reader: CorpusReader, encoding: Encoding, cut: Shards, recipe: Recipe
) -> int:
    quiet_libraries()
    with requires_extra("search"):
        from text2token.search import Columns, ShardJob, encode_shards
    from text2token.model.saved import is_saved

    if is_saved(model):
        refuse_settings(model, recipe.model_fields_set.intersection(BACKBONE))
    job = ShardJob(
        model,
        place_type(file),
        output,
        cut.shards or 1,
        encoder=recipe.encoder_settings(),
        columns=Columns(cut.id_column, cut.title_column, reader.text_column),
        batch_size=encoding.batch_size,
        precision=encoding.precision or "auto",
        strict=reader.strict,
    )
    if cut.ray is None:
        return encode_shards(job, shard=cut.shard, progress=True)
    from text2token.search.shards.on_ray import RayCluster, encode_shards_on_ray

    address = None if cut.ray == "local" else cut.ray
    cluster = RayCluster(address, cut.actors or 1, cut.actor_cpus or 1, cut.actor_gpus or 0.0)
    return encode_shards_on_ray(job, cluster, progress=True)
