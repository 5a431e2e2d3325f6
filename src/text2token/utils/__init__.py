"""Files, locks, folders of runs, pages and figures: what knows nothing of models."""
