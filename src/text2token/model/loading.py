"""The border to the libraries that load models: their errors become one sentence, their randomness is fixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from text2token.utils.errors import PassingError, UserError, first_line, is_lack_of_memory
from text2token.utils.files import local_path


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn any exception inside the block into one sentence about the model ``name``; the exception stays as its cause.

    A damaged file, an unreachable hub or an unknown format makes the libraries raise almost anything, so every ``Exception`` is
    caught. Weights that the checkpoint lacks are drawn from a fixed seed inside the block: many BERTs lack the pooler, which no
    embedding depends on, but a fingerprint does.

    Raises:
        PassingError: Memory was too small for the block.
        UserError: Something else inside the block failed.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # torch.manual_seed would reset those of all GPUs, too
            yield
    except UserError:
        raise
    except Exception as error:
        reason = first_line(error).rstrip(".")
        if is_lack_of_memory(error):
            raise PassingError(
                f"Cannot load '{name}': there is too little memory for it ({reason}). End what else uses the memory, or choose a "
                "smaller model."
            ) from error
        raise UserError(_sentence(name, error, reason)) from error


def _sentence(name: str, error: Exception, reason: str) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"Cannot load '{name}': it needs its own Python code (trust_remote_code), and text2token never runs a "
            "model's code. Choose a model whose architecture is part of transformers."
        )
    if isinstance(error, ImportError):
        return f"Cannot load '{name}': it needs something that is not installed here ({reason})."
    if local_path(name).exists():
        return f"Cannot load '{name}': {reason}. The file or folder is damaged, or it holds no model that transformers can read."
    return (
        f"Cannot load '{name}': it is neither a packaged backbone (see 'text2token backbones'), nor a folder, "
        f"nor a model that the hub gives out ({reason})."
    )
