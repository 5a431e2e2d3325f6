"""Adapters are on every matrix of a body, or the user is told."""

from __future__ import annotations

import logging

import pytest
import transformers

from conftest import FAMILIES
from text2token import UserError
from text2token.training.adapters import add_adapters, layers_without_adapter

TINY = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def body(name, **settings):
    return transformers.AutoModel.from_config(getattr(transformers, f"{name}Config")(**TINY, **settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_common_families_are_covered(backbone, family, caplog):
    model = transformers.AutoModel.from_pretrained(backbone(family))
    assert layers_without_adapter(add_adapters(model, 4, seed=0)) == []
    assert not [record for record in caplog.records if record.name.startswith("text2token")]


def test_layers_without_an_adapter_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        adapted = add_adapters(body("GptOss", num_local_experts=4, head_dim=16), 4, seed=0)
    left = layers_without_adapter(adapted)
    assert {"layers.*.mlp.experts.gate_up_proj", "layers.*.mlp.experts.down_proj"} <= set(left)
    [record] = [record for record in caplog.records if record.name.startswith("text2token")]
    assert record.getMessage().startswith(
        "These layers of GptOssModel get no adapter and keep their weights: layers.*.mlp"
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Mamba2", {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "expand": 2}),
        (
            "FalconH1",
            {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1},
        ),
    ],
)
def test_an_architecture_that_takes_no_adapters_is_one_sentence(name, settings):
    with pytest.raises(
        UserError, match=f"PEFT cannot put LoRA adapters on {name}Model .*: set `full` to train all weights"
    ):
        add_adapters(body(name, **settings), 4, seed=0)
