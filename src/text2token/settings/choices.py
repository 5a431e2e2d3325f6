"""The words that a setting can be, where more than one room reads it."""

from __future__ import annotations

from typing import Literal

Attention = Literal["own", "causal", "bidirectional"]
PoolingMode = Literal["mean", "last", "weighted-mean"]
Weighting = Literal["uniform", "tf-idf", "bm25", "pmi"]
NumberFormat = Literal["fp32", "bf16"]
"""The precision in which a model computes."""
Precision = Literal["auto", NumberFormat]
"""The precision that is asked for; ``auto`` is bf16 where the hardware has it."""
