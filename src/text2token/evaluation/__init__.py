"""The judge: mteb's tasks and a user's own, on any embedder, with intervals."""
