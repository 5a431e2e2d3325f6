"""``text2token dynamics``."""

from __future__ import annotations

from pathlib import Path

import click

from text2token.cli.options import json_option


@click.command("dynamics")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="folder for tables and figure")
@json_option
def dynamics_command(run: Path, output: Path, as_json: bool) -> None:
    """Did the vocabulary space and the representation space improve together along a training?

    RUN is what 'text2token fit' wrote with --dynamics N: it measured along the training, and this command reads what it stored,
    since no checkpoint is kept to measure afterwards. Vocabulary space: target loss, alignment rates and token categories of
    held-out texts. Representation space: alignment and uniformity of Wang and Isola, energy of the first principal component and,
    with --sts FILE in the fit, STS. Writes dynamics.md, dynamics.json, dynamics.svg and dynamics.png.

    \b
    Example:
      text2token fit notes.txt --dynamics 8 --output model
      text2token dynamics model --output dynamics
    """
    from text2token.analysis.dynamics_report import read_dynamics, write_dynamics

    write_dynamics(*read_dynamics(run), output)
    click.echo((output / f"dynamics.{'json' if as_json else 'md'}").read_text(encoding="utf-8"))
