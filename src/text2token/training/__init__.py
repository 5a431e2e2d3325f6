"""Turn a backbone and unlabelled texts into an embedder, by training (``fit``) or by correction (``adapt``)."""
