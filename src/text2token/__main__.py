"""``python -m text2token``."""

from text2token.cli import main

main(prog_name="text2token")
