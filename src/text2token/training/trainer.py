"""Train an encoder on one objective with transformers' ``Trainer``."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from text2token.model.encoding import default_prompt
from text2token.model.encoding_body import forget
from text2token.model.loading import loading
from text2token.model.precision import mixed_precision
from text2token.training.adapters import add_adapters
from text2token.training.attention import attention_in_float32
from text2token.training.batches import SimilarLengths
from text2token.training.bf16_adapters import adapters_in_bf16
from text2token.training.callbacks import (
    CheckpointIntegrity,
    EvaluateAtTheEnd,
    ShowProgress,
    TimeLimit,
    last_complete_checkpoint,
)
from text2token.training.objective import Objective
from text2token.training.rows import Rows, with_token_ids, write_rows
from text2token.utils.errors import UserError
from text2token.utils.files import atomic_folder
from text2token.utils.processes import on_cpu, on_main, splits_weights, world_size
from text2token.utils.progress import progress_bar

_ROWS = "rows.arrow"  # in the folder of a stage
_EVALUATIONS = 2  # per stage, after the one at its start: with the curve of the training loss they show a stall
_CHECKPOINT_STEPS = 20  # a minute or two on a laptop CPU, which is the most that a kill can lose


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of a training stage. Names, defaults and meanings are those of :class:`text2token.Recipe`."""

    train_length: int
    batch_size: int
    accumulation: int
    learning_rate: float
    warmup: float
    lora_rank: int
    full: bool
    seed: int


def train_stage(
    encoder: SentenceTransformer,
    objective: Objective,
    texts: Iterable[pa.Table],
    held_out: Iterable[pa.Table],
    settings: TrainingSettings,
    folder: Path,
    *,
    name: str,
    minutes: float | None,
    progress: bool,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[dict[str, float]]:
    """Train the body of ``encoder`` in place for one pass over ``texts``. A killed stage continues at its last checkpoint.

    Several processes share each step: it has ``batch_size`` × ``accumulation`` texts of each.

    Args:
        encoder: Transformer and Pooling. Its body may already have adapters from an earlier stage.
        objective: Computes the loss.
        texts: Tables with ``text`` and the other columns that the objective needs. They are read once, one at a time.
        held_out: Tables of the same form that are never trained on.
        settings: Batch size, learning rate and so on.
        folder: Holds the checkpoints. The stage is complete when ``final`` exists in it.
        name: Label of the progress bar.
        minutes: Time limit of the training.
        progress: Show the progress bar.
        callbacks: Further callbacks. During a callback, ``encoder`` embeds with the current weights.

    Returns:
        The log: one row per logging or evaluation step, with ``step`` and either ``loss``, or ``eval_loss`` and
        ``eval_pair_cosine`` (the mean cosine of random held-out pairs; 1 means collapse).
    """
    transformer = encoder[0]
    final = folder / "final"
    if on_main(final.is_dir):
        transformer.model = _load_final(transformer.model, final)
        return cast(list[dict[str, float]], json.loads((final / "log.json").read_text()))
    forget(transformer.model)  # its packed weights are not needed now, and with adapters it gets another body
    body = transformer.model = _trainable(transformer.model, settings)
    spare = copy.deepcopy(body).cpu() if splits_weights() else None
    tokenized = partial(
        with_token_ids,
        tokenizer=encoder.tokenizer,
        max_length=settings.train_length,
        prompt=default_prompt(encoder),
    )
    on_main(lambda: write_rows(map(tokenized, texts), folder / _ROWS))
    rows = Rows(folder / _ROWS)
    held_out_rows = [row for table in held_out for row in tokenized(table).to_pylist()]
    with progress_bar(enabled=progress) as bar, _fast(body):
        trainer = _ObjectiveTrainer(
            model=body,
            args=_arguments(settings, folder, len(rows)),
            train_dataset=rows,
            eval_dataset=sorted(held_out_rows, key=lambda row: len(row["input_ids"])),
            data_collator=lambda rows: objective.collate(rows, encoder.tokenizer.pad_token_id),
            compute_metrics=_metrics,
            callbacks=[
                TimeLimit(minutes),
                EvaluateAtTheEnd(),
                CheckpointIntegrity(),
                ShowProgress(bar, name, _texts_per_step(settings)),
                *callbacks,
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.objective = on_device(objective, trainer.args.device)
        trainer.train(resume_from_checkpoint=on_main(lambda: last_complete_checkpoint(folder)))
        weights = trainer.whole_weights()
    log = _log(trainer.state, trainer.args.eval_steps)
    on_main(lambda: _save_final(body, weights, log, final))
    if spare is not None:  # `body` has parts of the weights from now on, and all that follows needs whole ones
        transformer.model = _load_final(spare, final).to(trainer.args.device)
    return log


def on_device(objective: Objective, device: torch.device) -> Objective:
    """The objective on the device of the training.

    If it has to move, a copy moves, because its parameters belong to the embedder, which decodes on the CPU.
    """
    elsewhere = any(parameter.device != device for parameter in objective.parameters())
    return copy.deepcopy(objective).to(device) if elsewhere else objective


def merge_adapters(encoder: SentenceTransformer) -> None:
    """Merge LoRA adapters into the weights of the body, in place. Without adapters this does nothing."""
    if isinstance(encoder[0].model, PeftModel):
        encoder[0].model = encoder[0].model.merge_and_unload()
    encoder.eval()


class _ObjectiveTrainer(Trainer):
    """A ``Trainer`` whose model is the body alone. The objective does the pooling and the rest."""

    objective: Objective

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False  # our loss is a mean, so the Trainer must divide it by the accumulation

    def whole_weights(self) -> dict[str, Tensor] | None:
        """All weights, if each process has a part of them (FSDP). All processes call this, and the first one gets the weights."""
        return self.accelerator.get_state_dict(self.model) if splits_weights() else None

    def _get_train_sampler(self, train_dataset: Rows | None = None) -> SimilarLengths:
        """Each step has texts of similar length. The order depends on the seed alone, so all processes draw the same one.

        Several processes take the batches in turn, so N processes see in a step what one with N times the accumulation sees.
        """
        texts = self.train_dataset if train_dataset is None else train_dataset
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return SimilarLengths(texts.lengths, size, self.args.seed)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        loss, embeddings = self.objective(model, inputs)
        if not torch.isfinite(loss):
            raise UserError("The training diverged, its loss is not a number any more: lower `learning_rate`.")
        return (loss, {"loss": loss, "embeddings": embeddings}) if return_outputs else loss


def _trainable(body: PreTrainedModel | PeftModel, settings: TrainingSettings) -> PreTrainedModel | PeftModel:
    """The body with all weights trainable, or with adapters. Adapters from an earlier stage are trained further."""
    if settings.full:
        return body.requires_grad_(True)
    return body if isinstance(body, PeftModel) else add_adapters(body, settings.lora_rank, settings.seed)


@contextmanager
def _fast(body: nn.Module) -> Iterator[None]:
    """Train in bf16 inside the block where the hardware has it."""
    with ExitStack() as stack:
        stack.enter_context(mixed_precision(body))
        stack.enter_context(attention_in_float32(body))
        if not splits_weights():  # it holds the weights that a layer has now, which FSDP replaces by parts of them
            stack.enter_context(adapters_in_bf16(body))
        yield


def _load_final(body: PreTrainedModel | PeftModel, final: Path) -> PreTrainedModel | PeftModel:
    """Load the body as a complete stage left it, on the device of ``body``."""
    with loading(str(final)):
        if not (final / "adapter_config.json").is_file():
            return type(body).from_pretrained(final, dtype=torch.float32, config=body.config).to(body.device)
        base = body.unload() if isinstance(body, PeftModel) else body
        return PeftModel.from_pretrained(base, final, is_trainable=True)


def _save_final(
    body: PreTrainedModel | PeftModel, weights: dict[str, Tensor] | None, log: list[dict[str, float]], final: Path
) -> None:
    with atomic_folder(final) as part:
        body.save_pretrained(part, state_dict=weights)
        (part / "log.json").write_text(json.dumps(log))


def _texts_per_step(settings: TrainingSettings) -> int:
    return settings.batch_size * settings.accumulation * world_size()


def _arguments(settings: TrainingSettings, folder: Path, texts: int) -> TrainingArguments:
    steps = max(1, -(-texts // _texts_per_step(settings)))
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warmup * steps),
        weight_decay=0.01,
        seed=settings.seed,
        logging_steps=max(1, steps // 50),
        eval_strategy="steps",
        eval_steps=max(1, -(-steps // _EVALUATIONS)),
        eval_on_start=True,
        save_steps=_CHECKPOINT_STEPS,
        restore_callback_states_from_checkpoint=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        include_num_input_tokens_seen="non_padding",
        use_cpu=on_cpu(),
        disable_tqdm=True,
        report_to="none",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # DataParallel would copy the body, and the copies share one forward
    return arguments


def pair_cosine(vectors: Tensor) -> float:
    """Mean cosine of random pairs of N×d vectors. 1 means collapse, 0 an even spread around the origin."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(unit)))
    return float((unit[order[1:]] * unit[order[:-1]]).sum(dim=1).mean())


def _metrics(prediction: EvalPrediction) -> dict[str, float]:
    return {"pair_cosine": pair_cosine(torch.from_numpy(prediction.predictions))}


def _log(state: TrainerState, eval_steps: float) -> list[dict[str, float]]:
    """The rows of a training that was never killed.

    A resumed training evaluates once more when it starts. It has to, because the evaluation changes the random state from which
    the order of the texts is drawn. These extra rows are removed.
    """
    rows: dict[tuple[float, bool], dict[str, float]] = {}
    for row in state.log_history:
        planned = row["step"] % eval_steps == 0 or row["step"] == state.global_step
        if "loss" in row or ("eval_loss" in row and planned):
            rows.setdefault((row["step"], "loss" in row), row)
    return list(rows.values())
