"""Precision: the matrix products of a transformer body in bfloat16, where the hardware has it."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any, NamedTuple, get_args

import torch
from accelerate.utils import convert_to_fp32
from torch import nn

from text2token.model.encoding_body import encoding_body, forget, is_split
from text2token.model.kinds import Model
from text2token.model.packed_product import can_pack
from text2token.model.shared_prefix import Prefix, shared_prefix
from text2token.settings.choices import Precision
from text2token.utils.errors import UserError, check_choice

# CPU features of x86 (two) and ARM. Without one of them bf16 is emulated, which is many times slower than float32.
_CPU_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
_LOCK = Lock()  # guards the replacement of a body's ``forward``


def has_bf16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies bfloat16 matrices in hardware; False if this torch does not, or cannot tell."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(feature) for feature in _CPU_FEATURES) and can_pack(torch.bfloat16)


def use_of_bf16(model: Model, precision: Precision) -> bool:
    """Return whether a model computes in bfloat16 when ``precision`` is asked for.

    ``auto`` takes bfloat16 for a transformer body on hardware that has it.

    Raises:
        UserError: ``precision`` is none of these, or ``bf16`` is asked for, but the model has no transformer body, or its device
            has no bfloat16.
    """
    check_choice("precision", precision, get_args(Precision))
    can = has_body(model) and has_bf16(model.device)
    if precision == "bf16" and not can:
        raise UserError("This model or machine has no bf16: set precision to auto or fp32.")
    return can and precision != "fp32"


def has_body(model: Model) -> bool:
    """Return whether a model begins with a transformer body."""
    return isinstance(getattr(model[0], "model", None), nn.Module)


@contextmanager
def encoding(model: Model, *, bf16: bool = False, prompt: str = "") -> Iterator[None]:
    """Run the body of a model in its encoding form inside the block, see :mod:`text2token.model.encoding_body`.

    The vectors are those of the plain body: to 1e-6 in float32, to the third digit in bf16. Only the thread that entered the
    block is affected, and only calls without gradients.

    Args:
        model: A model of sentence-transformers. Nothing changes for one without a transformer body.
        bf16: Compute in bfloat16 where the hardware has it.
        prompt: Text before each text. Texts with another one are encoded, too, and may take longer.
    """
    if not has_body(model):
        yield
        return
    last_row = len(model) > 1 and getattr(model[1], "pooling_mode", None) == "lasttoken"
    prefix = shared_prefix(model, prompt) if last_row else ()
    with _replaced_forward(model[0].model, _Mode(bf16 and has_bf16(model.device), last_row, prefix, direct=True)):
        yield


@contextmanager
def mixed_precision(body: nn.Module) -> Iterator[None]:
    """Run the forward passes of ``body`` in bf16 inside the block; their outputs are float32.

    Passes with gradients run under autocast, others in the encoding form of the body, see
    :mod:`text2token.model.encoding_body`. Only the thread that entered the block is affected. Blocks may be nested, and several
    threads may be inside at once. Weights, norms and everything that follows the body (pooling, loss) stay float32. Without
    bf16 in hardware the block changes nothing.
    """
    if not has_bf16(next(body.parameters()).device):
        yield
        return
    with _replaced_forward(body, _Mode(half=True, last_row=False)):
        yield


class _Mode(NamedTuple):
    """How a block computes: in bfloat16, whether only the row of the last token is read, and how most texts begin.

    ``direct`` tells that ``forward`` itself is called, as sentence-transformers does, and not the body with its hooks.
    """

    half: bool
    last_row: bool
    prefix: Prefix = ()
    direct: bool = False


@contextmanager
def _replaced_forward(body: nn.Module, mode: _Mode) -> Iterator[None]:
    with _LOCK:
        forward = vars(body).get("forward")
        if not isinstance(forward, _Forward):
            forward = body.forward = _Forward(body)
        forward.modes.setdefault(get_ident(), []).append(mode)
    try:
        yield
    finally:
        with _LOCK:
            forward.modes[get_ident()].pop()
            if not any(forward.modes.values()):
                forward.restore(body)


class _Forward:
    """Stands in for the ``forward`` of a body while at least one thread is inside a block.

    Attributes:
        modes: The blocks that each thread is inside of, outermost first, by thread id.
    """

    def __init__(self, body: nn.Module) -> None:
        self.modes: dict[int, list[_Mode]] = {}
        self._body = weakref.ref(body)
        self._plain = body.forward
        self._of_instance = "forward" in vars(body)  # another library has replaced it already
        self._device = next(body.parameters()).device.type
        functools.update_wrapper(self, body.forward)  # transformers reads the signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        modes, body = self.modes.get(get_ident()), self._body()
        if not modes or body is None:
            return self._plain(*args, **kwargs)
        if modes[-1].direct and is_split(body):  # its hooks gather the weights
            modes.append(modes[-1]._replace(direct=False))
            try:
                return body(*args, **kwargs)
            finally:
                modes.pop()
        half = any(mode.half for mode in modes)
        form = None
        if torch.is_grad_enabled():
            forget(body)  # a training: its next step makes packed weights old
        elif not body.training and not self._of_instance:
            form = encoding_body(body, half=half)
        if form is not None:
            outputs = form(*args, last_row=modes[-1].last_row, prefix=modes[-1].prefix, **kwargs)
        else:
            with torch.autocast(
                self._device, dtype=torch.bfloat16, enabled=half or torch.is_autocast_enabled(self._device)
            ):
                outputs = self._plain(*args, **kwargs)
        return convert_to_fp32(outputs) if half else outputs

    def restore(self, body: nn.Module) -> None:
        """Give the body its own ``forward`` back."""
        if self._of_instance:
            body.forward = self._plain
        else:
            del body.forward
