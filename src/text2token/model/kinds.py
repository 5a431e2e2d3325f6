"""The two kinds of models of sentence-transformers that this package reads and writes."""

from __future__ import annotations

from typing import TypeAlias

from sentence_transformers import SentenceTransformer, SparseEncoder

Model: TypeAlias = SentenceTransformer | SparseEncoder
"""A model of dense vectors or of sparse ones."""
