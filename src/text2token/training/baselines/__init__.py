"""Baselines without labels, trained as ``fit`` trains."""
