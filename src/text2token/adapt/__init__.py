"""Corrections of an embedding that need no training."""
