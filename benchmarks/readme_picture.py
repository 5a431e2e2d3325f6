"""Draw the picture of README.md: the aligned tokens of one text before and after training.

    python benchmarks/readme_picture.py MODEL     # MODEL is a folder that 'text2token fit' wrote

The left side is the backbone of the model as it is, with mean pooling and without a prompt. The right side is the model.
Writes docs/figures/before-after.svg and prints the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from matplotlib.figure import Figure

from text2token.model.decoding import AlignedToken
from text2token.model.embedder import Embedder
from text2token.settings.recipe import Recipe
from text2token.settings.record import RunRecord
from text2token.utils.figures import BLUES, INK, ORANGE, figure_style, write_figure
from text2token.utils.page import bars

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
TEXT = "The vet treated the broken leg of a kitten."  # not in the training corpus
PLAIN = Recipe(pooling="mean", template="none")


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
def main(model: Path) -> None:
    """Draw the aligned tokens of one text before and after training."""
    backbone = RunRecord.read(model / "run.json").recipe.backbone
    embedders = {
        f"{backbone}, mean pooling": Embedder.open(backbone, **PLAIN.embedder_settings()),
        "the same model after text2token fit": Embedder.open(model),
    }
    tokens = {title: embedder.explain([TEXT], k=10)[0] for title, embedder in embedders.items()}
    for title, found in tokens.items():
        click.echo(f"{title}: " + "  ".join(f"{token.token!r} {token.weight:.1f}" for token in found))
    write_figure(draw(tokens), FIGURES, "before-after", ("svg",))


def draw(tokens: Mapping[str, Sequence[AlignedToken]]) -> Figure:
    """Draw a panel of bars for each model, the heaviest on top. Tokens that are words of the text have another colour."""
    with figure_style():
        figure = Figure(figsize=(8.0, 3.4), layout="constrained")
        figure.suptitle(f"“{TEXT}”", x=0.01, ha="left", color=INK, parse_math=False)
        for (title, found), axes in zip(tokens.items(), figure.subplots(1, 2), strict=True):
            rows = list(bars(found, TEXT))
            colours = [BLUES[0] if row.in_text else ORANGE for row in rows]
            axes.barh(range(len(rows)), [row.percent for row in rows], color=colours)
            axes.set_yticks(range(len(rows)), [row.token for row in rows], parse_math=False)
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.set_title(title, loc="left", fontsize=10)
            axes.set_xlabel("weight, % of the heaviest (blue: in the text)", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
