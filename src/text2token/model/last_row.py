"""The last layer of a decoder computes only the rows that pooling reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_TRIED = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])  # the mask with which parts are tried out


class Rows:
    """Holds which rows of hidden states will be read, for each thread."""

    def __init__(self) -> None:
        self._thread = threading.local()

    @property
    def is_token(self) -> Tensor | None:
        """B×L, false at padding, which nobody reads; None: nothing is known."""
        mask: Tensor | None = getattr(self._thread, "mask", None)
        return None if mask is None else mask.bool()

    @property
    def chosen(self) -> Tensor | None:
        """The one row of each text that will be read, B numbers; None: all rows are read."""
        mask: Tensor | None = getattr(self._thread, "mask", None)
        if mask is None or not self._thread.last:
            return None
        return mask.shape[1] - 1 - mask.flip(1).argmax(1)

    @property
    def prefix(self) -> tuple[int, ...]:
        """Ids of the first tokens, which all texts share and whose rows will not be read."""
        prefix: tuple[int, ...] = getattr(self._thread, "prefix", ())
        return prefix

    @contextmanager
    def of(self, mask: Tensor | None, *, last: bool, prefix: tuple[int, ...] = ()) -> Iterator[None]:
        """Choose the rows inside the block, in this thread.

        Args:
            mask: B×L, 1 at the tokens of a text. None: choose all rows.
            last: Choose only the last token of each text.
            prefix: Ids of the first tokens, if all texts share them and each has more tokens.
        """
        self._thread.mask, self._thread.last, self._thread.prefix = mask, last, prefix
        try:
            yield
        finally:
            self._thread.mask, self._thread.prefix = None, ()


class LastRow:
    """Lets the last layer compute the row of the last token of each text alone, once it has the keys and values of all rows.

    Which of its parts may leave the other rows out differs between layers, so it is tried out: the layer reads random numbers,
    and a part may if that row of the output stays the same. In a decoder these are the output of attention, the norm after it
    and the feed-forward layer. The remaining rows of the output are undefined.

    Args:
        modules: A transformer body in float32 and in evaluation mode.
        rows: Tells which row of each text will be read.
    """

    def __init__(self, modules: nn.Module, rows: Rows) -> None:
        self._modules, self._rows = modules, rows
        stacks = [
            name for name, module in modules.named_modules() if isinstance(module, nn.ModuleList) and len(module) > 1
        ]
        deepest = max(stacks, key=lambda name: len(modules.get_submodule(name)), default=None)  # type: ignore[arg-type]
        self._parts: list[str] = []
        if deepest is not None:
            stack: Any = modules.get_submodule(deepest)
            self._parts = self._skippable(f"{deepest}.{len(stack) - 1}")

    def install(self) -> None:
        """Let the parts leave rows out from now on, while rows are chosen."""
        for name in self._parts:
            self._modules.get_submodule(name).register_forward_pre_hook(self._cut)

    def _cut(self, part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows = self._rows.chosen
        if rows is None or inputs[0].shape[1] == 1:  # the part before this one has left the rows out
            return None
        return (_row(inputs[0], rows)[:, None], *inputs[1:])

    @torch.no_grad()
    def _skippable(self, name: str) -> list[str]:
        """Return the names of the parts of a layer that may leave rows out: children, and their children."""
        layer = self._modules.get_submodule(name)
        run = self._on_random_numbers(layer)
        expected = None if run is None else run()
        if run is None or expected is None:
            return []
        found: list[str] = []
        for part, module in layer.named_modules():
            inside = f"{name}.{part.rpartition('.')[0]}" in found
            if not part or part.count(".") > 1 or inside:
                continue
            hook = module.register_forward_pre_hook(self._cut)
            with self._rows.of(_TRIED, last=True):
                outputs = run()
            hook.remove()
            if outputs is not None and (outputs - expected).abs().max() <= 1e-5 * expected.abs().max():
                found.append(f"{name}.{part}")
        return found

    def _on_random_numbers(self, layer: nn.Module) -> Callable[[], Tensor | None] | None:
        """Return a function that runs the layer on random hidden states and returns the rows that count; None if that fails."""
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        watch = layer.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
        ids = torch.tensor([[2, 3, 4, 5], [5, 4, 3, 2]], device=next(self._modules.parameters()).device)
        try:
            self._modules(input_ids=ids, attention_mask=torch.ones_like(ids))
        except Exception:  # a body that reads no token ids
            return None
        finally:
            watch.remove()
        if len(calls) != 1 or not calls[0][0]:
            return None
        (hidden, *rest), named = calls[0]
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(hidden.shape, generator=generator).to(hidden)

        def run() -> Tensor | None:
            try:
                outputs = layer(noise, *rest, **named)
                return _row(outputs[0] if isinstance(outputs, tuple) else outputs, torch.tensor([3, 1]))
            except Exception:  # a part that needs all rows
                return None

        return run


def _row(hidden: Tensor, rows: Tensor) -> Tensor:
    """Return one row of each text, B×d, from B×L×d."""
    return hidden[torch.arange(len(rows)), rows]
