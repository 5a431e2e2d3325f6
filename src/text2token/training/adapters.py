"""LoRA adapters on the linear layers of a body."""

from __future__ import annotations

import logging
import re

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from text2token.utils.errors import UserError, first_line

_log = logging.getLogger(__name__)


def add_adapters(body: PreTrainedModel, rank: int, seed: int) -> PeftModel:
    """Put LoRA adapters on all linear layers of the body.

    Alpha is 2·rank as in LLM2Vec. There is no dropout: one pass over the texts cannot overfit, and dropout costs a fifth of the
    speed. A warning names the layers that get no adapter, for example the experts of a mixture of experts.

    Raises:
        UserError: PEFT cannot put adapters on this architecture.
    """
    torch.manual_seed(seed)
    architecture = type(body).__name__
    try:
        adapted = get_peft_model(body, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        raise UserError(
            f"PEFT cannot put LoRA adapters on {architecture} ({first_line(error)}): set `full` to train all weights."
        ) from error
    if left := layers_without_adapter(adapted):
        _log.warning(
            "These layers of %s get no adapter and keep their weights: %s. Set `full` to train them, too.",
            architecture,
            ", ".join(left),
        )
    return adapted


def layers_without_adapter(adapted: PeftModel) -> list[str]:
    """Matrices of the body that have no adapter, embeddings aside. Layer numbers are written as ``*``."""
    body = adapted.get_base_model()
    covered = {
        id(parameter)
        for module in body.modules()
        if isinstance(module, LoraLayer | nn.Embedding)
        for parameter in module.parameters()
    }
    names = (name for name, parameter in body.named_parameters() if parameter.ndim > 1 and id(parameter) not in covered)
    return list(dict.fromkeys(re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in names))
