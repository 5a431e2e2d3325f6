"""A training stage frees what the encoding before it made, and a finished one is loaded to where the body was."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from transformers import TrainerCallback

from conftest import CORPUS, SENTENCES, untrained
from text2token.model import encoding_body
from text2token.training.objective import Objective, pad_texts, pooled
from text2token.training.trainer import TrainingSettings, _load_final, train_stage

SETTINGS = TrainingSettings(
    train_length=16, batch_size=4, accumulation=1, learning_rate=1e-3, warmup=0.0, lora_rank=2, full=False, seed=0
)


class Small(Objective):
    """Makes embeddings small."""

    def __init__(self, pooling):
        super().__init__()
        self.pooling = pooling

    def collate(self, rows, pad):
        return {**pad_texts([row["input_ids"] for row in rows], pad), "labels": torch.zeros(len(rows))}

    def forward(self, body, inputs):
        embeddings = pooled(body, self.pooling, inputs)
        return embeddings.square().mean(), embeddings


class IsHeld(TrainerCallback):
    """Notes at each step whether a body has an encoding form."""

    def __init__(self, body):
        self.body, self.seen = body, []

    def on_step_end(self, *_, **__):
        self.seen.append(self.body in encoding_body._BODIES)


def test_packed_weights_are_freed_before_the_training(backbone, tmp_path):
    embedder = untrained(backbone("llama"))
    embedder.embed(SENTENCES)
    held = IsHeld(embedder.encoder[0].model)
    assert held.body in encoding_body._BODIES
    texts, held_out = ([pa.table({"text": part})] for part in (CORPUS[:8], CORPUS[8:12]))
    train_stage(
        embedder.encoder, Small(embedder.encoder[1]), texts, held_out, SETTINGS, tmp_path,
        name="", minutes=None, progress=False, callbacks=[held],
    )  # fmt: skip
    assert held.seen == [False, False]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_finished_stage_is_loaded_to_the_device_of_the_body(backbone, tmp_path, device):
    body = untrained(backbone("llama")).encoder[0].model
    body.save_pretrained(tmp_path)
    assert _load_final(body.to(device), tmp_path).device == torch.device(device)
