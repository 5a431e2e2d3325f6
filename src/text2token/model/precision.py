"""Mixed precision: the matrix products of a transformer body in bfloat16, where the hardware has it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from sentence_transformers import SentenceTransformer, SparseEncoder
from torch import nn

from text2token.utils.errors import UserError

# CPU features of x86 (two) and ARM. Without one of them bf16 is emulated, which is many times slower than float32.
_CPU_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
_LOCK = Lock()  # guards the replacement of a body's ``forward``


def has_bf16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies bfloat16 matrices in hardware; False if this torch cannot tell."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(feature) for feature in _CPU_FEATURES)


def body_in_bf16(model: SentenceTransformer | SparseEncoder) -> nn.Module:
    """Return the transformer body of a model, for :func:`mixed_precision`.

    Raises:
        UserError: The model has no transformer, or its device has no bf16.
    """
    body = getattr(model[0], "model", None)
    if not isinstance(body, nn.Module) or not has_bf16(model.device):
        raise UserError("This model or machine has no bf16: leave bf16 out.")
    return body


@contextmanager
def mixed_precision(body: nn.Module) -> Iterator[None]:
    """Run the forward passes of ``body`` under bf16 autocast inside the block; their outputs are float32.

    Only the thread that entered the block is affected. Blocks may be nested, and several threads may be inside at once.
    Weights, norms and everything that follows the body (pooling, loss) stay float32. On a CPU with AVX512-BF16 this is about
    twice as fast. Without bf16 in hardware the block changes nothing.
    """
    if not has_bf16(next(body.parameters()).device):
        yield
        return
    with _LOCK:
        mixed = vars(body).get("forward")
        if not isinstance(mixed, _MixedForward):
            mixed = body.forward = _MixedForward(body)
        mixed.threads[get_ident()] += 1
    try:
        yield
    finally:
        with _LOCK:
            mixed.threads[get_ident()] -= 1
            if not mixed.threads.total():
                mixed.restore(body)


class _MixedForward:
    """Stands in for the ``forward`` of a body while at least one thread is inside :func:`mixed_precision`.

    Attributes:
        threads: Blocks that each thread is inside of, by thread id.
    """

    def __init__(self, body: nn.Module) -> None:
        self.threads: Counter[int] = Counter()
        self._plain = body.forward
        self._of_instance = "forward" in vars(body)  # another library may have replaced it already
        self._device = next(body.parameters()).device.type
        functools.update_wrapper(self, body.forward)  # transformers reads the signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.threads[get_ident()]:
            return self._plain(*args, **kwargs)
        with torch.autocast(self._device, dtype=torch.bfloat16):
            outputs = self._plain(*args, **kwargs)
        return convert_to_fp32(outputs)

    def restore(self, body: nn.Module) -> None:
        """Give the body its own ``forward`` back."""
        if self._of_instance:
            body.forward = self._plain
        else:
            del body.forward
