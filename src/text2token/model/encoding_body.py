"""A second form of a transformer body that only encodes: same weights, less work."""

from __future__ import annotations

import copy
import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from text2token.model import grouped_attention
from text2token.model.half_layers import replace_layers
from text2token.model.last_row import LastRow, Rows
from text2token.model.lean_stack import make_lean
from text2token.model.packed_product import limit_kernels
from text2token.model.shared_prefix import Prefix, begins_all

_BODIES: WeakKeyDictionary[nn.Module, dict[bool, EncodingBody]] = WeakKeyDictionary()
_LOCK = threading.RLock()
_SAMPLED = 4  # numbers of each parameter that are compared with those at the time of packing


def encoding_body(body: nn.Module, *, half: bool) -> EncodingBody | None:
    """Return the encoding form of a body. It is made at the first call, and again after the weights have changed.

    A body has none while another library, or a training, has replaced the ``forward`` of one of its modules: a copy of such a
    module would not do what the replacement does. Nor has one whose weights are split over processes (FSDP).

    Args:
        body: A transformer body.
        half: Compute in bfloat16. The packed weights take half of the memory of the float32 weights, in addition to them. In
            float32 those of lean layers take as much again.
    """
    with _LOCK:
        made = _BODIES.setdefault(body, {})
        if half not in made or not made[half].is_current():
            made.pop(half, None)  # free the old weights first
            replaced = any("forward" in vars(module) for module in body.modules() if module is not body)
            if replaced or is_split(body):
                return None
            made[half] = EncodingBody(body, half=half)
        return made[half]


def is_split(body: nn.Module) -> bool:
    """Return whether the weights of a body are split over processes (FSDP), so that each has a part of them."""
    if not torch.distributed.is_available():  # as on a Jetson
        return False
    from torch.distributed.tensor import DTensor  # not there where torch was built without it

    return any(isinstance(parameter, DTensor) for parameter in body.parameters())


def forget(body: nn.Module) -> None:
    """Free the encoding forms of a body."""
    with _LOCK:
        _BODIES.pop(body, None)


class EncodingBody:
    """The encoding form of a body: a copy of its modules around the same parameters.

    If asked for, linear layers compute in bfloat16, and so does :mod:`text2token.model.grouped_attention` where the body
    uses torch's attention on a CPU. Keys and values are not kept. The last layer can be told to finish one row of each text.

    Args:
        body: A transformer body in evaluation mode.
        half: Compute linear layers in bfloat16.
    """

    def __init__(self, body: nn.Module, *, half: bool) -> None:
        limit_kernels()
        self._weights = _Weights(body)
        self._half, self._device = half, next(body.parameters()).device.type
        self._modules: Any = _copy(body)
        config = getattr(self._modules, "config", None)
        if config is not None:
            config.use_cache = False
        self._rows = Rows()
        if make_lean(self._modules, self._rows, torch.bfloat16 if half else torch.float32):
            return
        last = LastRow(self._modules, self._rows)  # tries its parts out, in float32
        if half:
            replace_layers(self._modules)
            if self._device == "cpu" and config is not None and config._attn_implementation == "sdpa":
                config._attn_implementation = grouped_attention.NAME
        last.install()

    def is_current(self) -> bool:
        """Return whether modules and weights of the body are those that this form was made from."""
        return not self._weights.have_changed()

    def __call__(self, *args: Any, last_row: bool = False, prefix: Prefix = (), **kwargs: Any) -> Any:
        """Run the body.

        Args:
            args: Arguments of the body.
            last_row: Only the row of the last token of each text will be read; the others are undefined.
            prefix: Ids of the tokens that most texts begin with. A causal stack of lean layers computes them once.
            kwargs: Arguments of the body.
        """
        mask = kwargs.get("attention_mask")
        mask = mask if mask is not None and mask.ndim == 2 else None
        prefix = prefix if last_row and begins_all(prefix, kwargs.get("input_ids"), mask) else ()
        autocast = torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._half)
        with self._rows.of(mask, last=last_row, prefix=prefix), autocast:
            return self._modules(*args, **kwargs)


def _copy(body: nn.Module) -> nn.Module:
    """Return a copy of the modules of a body around the same parameters and buffers, with the forward of its class."""
    kept = {id(tensor): tensor for tensor in (*body.parameters(), *body.buffers())}
    wrapper = vars(body).get("forward")
    copied = copy.deepcopy(body, kept if wrapper is None else {**kept, id(wrapper): wrapper})
    vars(copied).pop("forward", None)
    return copied


class _Weights:
    """Tells whether the parameters of a body have changed.

    Addresses and versions show an optimiser's step and a loaded checkpoint. Changes through ``.data`` have no version, so some
    numbers of each parameter are compared too.
    """

    def __init__(self, body: nn.Module) -> None:
        modules = list(body.modules())
        self._children = [(held._modules, name, child) for held in modules for name, child in held._modules.items()]
        self._parameters = [(held._parameters, name) for held in modules for name in held._parameters]
        self._state = self._read()
        flat = [parameter.detach().view(-1) for parameter in body.parameters() if parameter.is_contiguous()]
        self._views = [part[:: max(1, len(part) // _SAMPLED)][:_SAMPLED] for part in flat]
        self._values = self._sample()

    def have_changed(self) -> bool:
        """Return whether a module was replaced, or a parameter replaced or changed."""
        if any(children.get(name) is not child for children, name, child in self._children):
            return True
        return self._read() != self._state or not torch.equal(self._sample(), self._values)

    def _sample(self) -> Tensor:
        return torch.cat(self._views) if self._views else torch.empty(0)

    def _read(self) -> list[tuple[int, int]]:
        found = (parameters.get(name) for parameters, name in self._parameters)
        return [(0, 0) if one is None else (one.data_ptr(), 0 if one.is_inference() else one._version) for one in found]
