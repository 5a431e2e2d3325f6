"""Read what an embedder encodes: aligned tokens, spectra, dynamics of a training."""
