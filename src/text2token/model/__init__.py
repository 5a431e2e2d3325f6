"""Open, correct, decode and save embedders."""
