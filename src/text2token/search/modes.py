"""The modes of a search: which sides of an index are asked, and how their rankings become one."""

from __future__ import annotations

from collections.abc import Sequence

from text2token.search.fusion import Fusion
from text2token.settings.search import HYBRID_WEIGHTS, Mode, Side
from text2token.utils.errors import UserError

HYBRID = Fusion("scores", HYBRID_WEIGHTS)
"""Of ``hybrid`` searches: scores beat ranks on known items by some points (docs/search.md)."""


def sides_asked(mode: Mode, there: Sequence[Side], fusion: Fusion, *, inference_free: bool) -> list[Side]:
    """The sides of a search.

    Args:
        mode: One side, or ``hybrid``: all that weigh something.
        there: Sides of the index.
        fusion: Of hybrid searches.
        inference_free: Encode no query: its dense side is left out.

    Raises:
        UserError: None is left.
    """
    if mode != "hybrid" and mode not in there:
        reason = "model has no decoding head" if mode == "sparse" else "engine keeps none"
        raise UserError(f"This index has no {mode} side, since its {reason}: use another --mode.")
    weighed: list[Side] = [side for side in there if fusion.weights.get(side, 1.0) > 0]
    if not weighed:
        raise UserError("All sides weigh 0: give one of them more.")
    sides = weighed if mode == "hybrid" else [mode]
    if inference_free and sides == ["dense"]:
        raise UserError("A dense search needs the model: leave --no-model out, or use another --mode.")
    return [side for side in sides if side != "dense" or not inference_free]
