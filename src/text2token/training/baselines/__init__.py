"""Other unsupervised training methods, for comparison with ``fit``."""
