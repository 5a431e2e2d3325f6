"""The decoding head: it turns an embedding into logits over the vocabulary."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from text2token.utils.errors import UserError

_DECODE_BATCH = 64  # embeddings decoded at once: 64 × V float32 logits are 13 to 70 MB
# So few embeddings, as of a query, are decoded as W·hᵀ. On a CPU h·Wᵀ takes two to six times as long, and one column alone, too.
_FEW = 8
_PROBE_TOLERANCE = 1e-3  # relative; float32 sums in another order differ by about 1e-5


class DecodingHead(nn.Module):
    """Decode embeddings to token logits ``z = softcap(W·transform(h) + b)``; all parameters are frozen.

    Args:
        weight: The **original** unembedding matrix ``W``, shape V×d.
        bias: ``b``, shape V; None means zeros, since most decoder LLMs have none.
        transform: Modules before ``W``: none for decoder LLMs; Linear, activation and LayerNorm for masked LMs, whose whole
            MLM head is the decoding head (as in the code of arXiv 2406.17378).
        softcap: ``c`` in ``c·tanh(z/c)``; None if the backbone's configuration has none.

    Attributes:
        source: Name of the language model that the head was loaded from; None if unknown.
    """

    source: str | None = None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        transform: nn.Sequential | None = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.detach(), requires_grad=False)
        self.transform = transform if transform is not None else nn.Sequential()
        self.transform.requires_grad_(False)
        self.softcap = softcap

    def uncapped(self, embeddings: Tensor) -> Tensor:
        """Return float32 token logits B×V of embeddings B×d without the soft cap, which never changes their order."""
        inputs = self.transform(embeddings.float())
        if inputs.ndim > 2 or len(inputs) > _FEW:
            return nn.functional.linear(inputs, self.weight, self.bias)
        columns = (inputs if len(inputs) > 1 else inputs.repeat(2, 1)).T
        return (self.weight @ columns)[:, : len(inputs)].T.contiguous().add_(self.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return float32 token logits B×V of embeddings B×d."""
        return self.cap(self.uncapped(embeddings))

    def cap(self, logits: Tensor) -> Tensor:
        """Return token logits under the soft cap, if there is one."""
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits


def widened(head: DecodingHead, columns: int) -> DecodingHead:
    """Return a head that gives the same logits for embeddings with more columns at their end, which it does not read."""
    if not len(head.transform):
        return DecodingHead(nn.functional.pad(head.weight, (0, columns)), head.bias, softcap=head.softcap)
    transform = copy.deepcopy(head.transform)
    linear: Any = transform[0]
    linear.weight = nn.Parameter(nn.functional.pad(linear.weight, (0, columns)))
    linear.in_features += columns
    return DecodingHead(head.weight, head.bias, transform, head.softcap)


@torch.no_grad()
def mean_logits(head: DecodingHead, embeddings: Tensor, *, capped: bool = False) -> Tensor:
    """Return the mean token logits of embeddings N×d, V numbers; summed in float64, decoded batch by batch.

    Args:
        head: The decoding head.
        embeddings: N×d.
        capped: Apply the final soft cap to each logit first, as the language model does.
    """
    decode = head.forward if capped else head.uncapped
    sums = [decode(part).sum(dim=0, dtype=torch.float64) for part in embeddings.split(_DECODE_BATCH)]
    return (torch.stack(sums).sum(dim=0) / len(embeddings)).float()


def extract_head(model: PreTrainedModel) -> DecodingHead:
    """Copy the decoding head of a causal or masked language model, and check that it is complete.

    The head is rebuilt from the modules outside the body, then compared with the model's own logits on a probe input. So a
    family with an unknown part in its head (a scale, another norm) is refused instead of being decoded wrongly.

    Raises:
        UserError: The model has no output embedding, or its width differs from the body's, or the rebuilt head does not give
            the model's logits.
    """
    unembedding = model.get_output_embeddings()
    if unembedding is None:
        raise UserError(f"{model.name_or_path} has no decoding head; use a causal or masked language model.")
    config = model.config.get_text_config()  # of a multimodal model, this is the language model's
    head = DecodingHead(
        unembedding.weight.detach().to(
            torch.float32, copy=True
        ),  # without a copy the whole file would stay mapped into memory
        None if unembedding.bias is None else unembedding.bias.float(),
        _transform(model, unembedding),
        getattr(config, "final_logit_softcapping", None),
    )
    probe = torch.arange(1, 9)[None] % config.vocab_size
    with torch.no_grad():
        hidden = model.base_model(input_ids=probe).last_hidden_state
        expected = model(input_ids=probe).logits.float()
        if hidden.shape[-1] != head.weight.shape[1]:
            raise UserError(
                f"The decoding head of {model.name_or_path} reads {head.weight.shape[1]} dimensions, and its body gives "
                f"{hidden.shape[-1]}: use another backbone."
            )
        error = (head(hidden) - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    if not error < _PROBE_TOLERANCE:
        raise UserError(
            f"The decoding head of {model.name_or_path} ({type(model).__name__}) has a part that text2token does not know: "
            f"its logits differ by {error:.1%}; use another backbone."
        )
    return head


def _transform(model: PreTrainedModel, unembedding: nn.Module) -> nn.Sequential | None:
    """Return Linear, activation and LayerNorm between body and unembedding, found by their types; None for decoder LLMs."""
    body = set(model.base_model.modules())
    outside = [m for m in model.modules() if m not in body and m is not unembedding and not list(m.children())]
    linear = next((m for m in outside if isinstance(m, nn.Linear)), None)
    norm = next((m for m in outside if isinstance(m, nn.LayerNorm)), None)
    if linear is None or norm is None:
        return None
    known = (nn.Linear, nn.LayerNorm, nn.Dropout)
    activation = next((m for m in outside if not isinstance(m, known)), nn.GELU())
    return nn.Sequential(linear, _plain_activation(activation), norm)


def _plain_activation(activation: nn.Module) -> nn.Module:
    """Return the torch module that computes the same function: sentence-transformers loads only torch's own activations."""
    grid = torch.linspace(-5, 5, 101)
    for candidate in (nn.GELU(), nn.ReLU(), nn.SiLU(), nn.Tanh()):
        if torch.allclose(candidate(grid), activation(grid), atol=1e-6):
            return candidate
    raise UserError(
        f"The decoding head has the activation {type(activation).__name__}, which a sentence-transformers folder cannot hold: "
        "use another backbone."
    )
