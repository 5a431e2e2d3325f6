"""``text2token dynamics``."""

from __future__ import annotations

from pathlib import Path

import click

from text2token.cli.options import json_option, output_option, path_type
from text2token.utils.files import check_folder, output_lock


@click.command("dynamics")
@click.argument("run", type=path_type)
@output_option("Folder for the tables and the figure.")
@json_option
def dynamics_command(run: Path, output: Path, as_json: bool) -> None:
    """Show whether the vocabulary space and the representation space improved together during a training.

    RUN is the output folder of 'text2token fit' with --dynamics N. The fit measures while it trains, and this command only reads
    its measurements. Vocabulary space: target loss, alignment rates and token categories of held-out texts. Representation space:
    alignment and uniformity (Wang and Isola), energy of the first principal component and, if the fit had --sts FILE, STS.

    The command writes dynamics.md, dynamics.json, dynamics.svg and dynamics.png.

    \b
    Example:
      text2token fit notes.txt --dynamics 8 --output model
      text2token dynamics model --output dynamics
    """
    check_folder(output)
    from text2token.analysis.dynamics_report import read_dynamics, write_dynamics

    with output_lock(output):
        write_dynamics(*read_dynamics(run), output)
    click.echo((output / f"dynamics.{'json' if as_json else 'md'}").read_text(encoding="utf-8"))
