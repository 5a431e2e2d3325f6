"""Train an encoder on one objective, on transformers' own Trainer."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from text2token.model.precision import mixed_precision
from text2token.settings.recipe import Recipe
from text2token.training.callbacks import Seal, ShowProgress, TimeLimit, last_whole_checkpoint
from text2token.training.objective import Objective
from text2token.utils.errors import UserError
from text2token.utils.files import atomic_folder
from text2token.utils.progress import progress_bar

_EVALUATIONS = 4  # per stage: enough points for a curve, some percent of the time
_CHECKPOINT_STEPS = 20  # a minute or two on a laptop CPU: what a kill can lose


def train_stage(
    encoder: SentenceTransformer,
    objective: Objective,
    texts: datasets.Dataset,
    held_out: datasets.Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    name: str,
    minutes: float | None,
    progress: bool,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict[str, float]]:
    """Train the body of ``encoder`` in place for one pass over ``texts``; continue where an earlier run was killed.

    Args:
        encoder: Transformer and Pooling; its body may already be a LoRA model from the stage before.
        objective: What is learnt.
        texts: Rows of ``text`` and what else the objective needs.
        held_out: The same, never trained on.
        recipe: Batch size, learning rate and the rest.
        folder: Checkpoints and, when done, ``final``.
        name: For the progress bar.
        minutes: Stop after so many minutes of training.
        progress: Show the bar.
        callbacks: What else happens around the steps; ``encoder`` embeds with the body as it is at that moment.

    Returns:
        The log: a row an evaluation or logging step, with ``step``, and ``loss`` or ``eval_loss`` and
        ``eval_pair_cosine``, the mean cosine of random held-out pairs (1 means collapse).
    """
    transformer = encoder[0]
    final = folder / "final"
    if final.is_dir():
        transformer.model = _restore(transformer.model, final)
        return cast(list[dict[str, float]], json.loads((final / "log.json").read_text()))
    body = transformer.model = _trainable(transformer.model, recipe)
    tokenize = partial(_tokenize, encoder.tokenizer, recipe.train_length)
    with progress_bar(enabled=progress) as bar, mixed_precision(body):
        trainer = _ObjectiveTrainer(
            model=body,
            args=_arguments(recipe, folder, len(texts)),
            train_dataset=texts.map(tokenize, batched=True, desc=None),
            eval_dataset=held_out.map(tokenize, batched=True, desc=None),
            data_collator=lambda rows: objective.collate(rows, encoder.tokenizer.pad_token_id),
            compute_metrics=_metrics,
            callbacks=[
                TimeLimit(minutes),
                Seal(),
                ShowProgress(bar, name, recipe.batch_size * recipe.accumulation),
                *callbacks,
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.objective = on_device(objective, trainer.args.device)
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    log = _curves(trainer.state.log_history)
    _keep(body, log, final)
    return log


def on_device(objective: Objective, device: torch.device) -> Objective:
    """The objective where the training runs; its parameters are the embedder's, which decodes on the CPU, so a copy moves."""
    elsewhere = any(parameter.device != device for parameter in objective.parameters())
    return copy.deepcopy(objective).to(device) if elsewhere else objective


def merge(encoder: SentenceTransformer) -> None:
    """Fold LoRA adapters into the weights of the body, in place; nothing to do after full fine-tuning."""
    if isinstance(encoder[0].model, PeftModel):
        encoder[0].model = encoder[0].model.merge_and_unload()
    encoder.eval()


class _ObjectiveTrainer(Trainer):
    """Its model is the body alone; pooling and whatever else hangs on the objective."""

    objective: Objective

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False  # our loss is a mean: let the Trainer divide by the accumulation

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        loss, embeddings = self.objective(model, inputs)
        if not torch.isfinite(loss):
            raise UserError("The training diverged, its loss is no number any more: lower --learning-rate.")
        return (loss, {"loss": loss, "embeddings": embeddings}) if return_outputs else loss


def _trainable(body: PreTrainedModel | PeftModel, recipe: Recipe) -> PreTrainedModel | PeftModel:
    """The body with LoRA on all linear layers, or with all weights free; one that has adapters keeps them."""
    if recipe.full:
        return body.requires_grad_(True)
    if isinstance(body, PeftModel):
        return body
    torch.manual_seed(recipe.seed)
    rank = recipe.lora_rank
    return get_peft_model(
        body, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    )  # alpha as LLM2Vec; no dropout: one pass over the texts cannot overfit, and it costs a fifth of the speed


def _restore(body: PreTrainedModel | PeftModel, final: Path) -> PreTrainedModel | PeftModel:
    """The body as a finished stage left it."""
    if not (final / "adapter_config.json").is_file():
        return type(body).from_pretrained(final, dtype=torch.float32, config=body.config)
    base = body.unload() if isinstance(body, PeftModel) else body
    return PeftModel.from_pretrained(base, final, is_trainable=True)


def _keep(body: PreTrainedModel | PeftModel, log: list[dict[str, float]], final: Path) -> None:
    with atomic_folder(final) as part:
        body.save_pretrained(part)
        (part / "log.json").write_text(json.dumps(log))


def _arguments(recipe: Recipe, folder: Path, texts: int) -> TrainingArguments:
    steps = max(1, -(-texts // (recipe.batch_size * recipe.accumulation)))
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        num_train_epochs=1,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(recipe.warmup * steps),
        weight_decay=0.01,
        train_sampling_strategy="group_by_length",
        seed=recipe.seed,
        logging_steps=max(1, steps // 50),
        eval_strategy="steps",
        eval_steps=max(1, steps // _EVALUATIONS),
        eval_on_start=True,
        save_steps=_CHECKPOINT_STEPS,
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        include_num_input_tokens_seen="non_padding",
        disable_tqdm=True,
        report_to="none",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # DataParallel would copy a body whose forward is that of the first one
    return arguments


def _tokenize(tokenizer: PreTrainedTokenizerBase, max_length: int, rows: dict[str, list[str]]) -> dict[str, list[Any]]:
    ids = tokenizer(rows["text"], truncation=True, max_length=max_length)["input_ids"]
    return {"input_ids": ids, "length": [len(row) for row in ids]}


def pair_cosine(vectors: Tensor) -> float:
    """Mean cosine of random pairs of N×d vectors: 1 is collapse, 0 a spread around the origin."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(unit)))
    return float((unit[order[1:]] * unit[order[:-1]]).sum(dim=1).mean())


def _metrics(prediction: EvalPrediction) -> dict[str, float]:
    return {"pair_cosine": pair_cosine(torch.from_numpy(prediction.predictions))}


def _curves(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rows with a loss; of a step that a resumed training evaluated again, the first."""
    curves: dict[tuple[float, bool], dict[str, float]] = {}
    for row in history:
        if "loss" in row or "eval_loss" in row:
            curves.setdefault((row["step"], "loss" in row), row)
    return list(curves.values())
