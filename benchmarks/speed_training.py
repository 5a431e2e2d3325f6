"""The part of benchmarks/speed.py on training: our fit beside SimCSE in sentence-transformers' trainer and LLM2Vec's recipe.

All train adapters of one rank on the same texts, from the same backbone, in the same precision and with batches of one size.
Ours and SimCSE read a text under the same template, cut at the same length; LLM2Vec's recipe has no template.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import datasets
import torch
import transformers
from sentence_transformers import (
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import nn

from runner import SENTENCES, bf16, ratios, text2token
from text2token.data.corpus import open_corpus, sample
from text2token.model.packaged import fetch
from text2token.model.template import room_for_text
from text2token.settings.recipe import Recipe
from text2token.targets.builders import TargetSettings, make_builders
from text2token.targets.data_driven import corpus_statistics
from text2token.targets.store import build_store
from text2token.training.adapters import add_adapters
from text2token.training.baselines.run import fit_baseline
from text2token.training.baselines.simcse import set_dropout
from text2token.training.objective import TokenTargets
from text2token.training.pipeline import split_texts
from text2token.training.start import open_backbone
from text2token.training.trainer import TrainingSettings, train_stage
from trained import READS, cost, count_tokens, recipe_file

SEED = 0
RECIPE = Recipe()
TEXTS = 384  # texts of a turn: three steps of stage 1 and nine of stage 2
WARM_UP = 64  # texts of the first turn, which does not count
ROUNDS = 3
SMALL, LARGE = 20_000, 200_000  # texts of the two fits whose memory is compared


class Turn(NamedTuple):
    """Seconds of the training with its targets, seconds of these targets, and tokens that the body read in the training."""

    seconds: float
    targets: float
    tokens: int


def beside_others(data: Path, runs: Path) -> dict[str, Any]:
    """Measure the training of all contenders in turns on distinct texts.

    Args:
        data: Folder with corpus/.
        runs: Work folder.
    """
    contenders: dict[str, Callable[[Sequence[str], Path], Turn]] = {
        "text2token": fit_texts, "simcse": simcse, "llm2vec": llm2vec,
    }  # fmt: skip
    texts = sample(open_corpus(data / SENTENCES), WARM_UP + ROUNDS * TEXTS, SEED)
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):
        part = texts[WARM_UP + (number - 1) * TEXTS :][:TEXTS] if number else texts[:WARM_UP]
        for name, contender in contenders.items():
            shutil.rmtree(folder := runs / "turn", ignore_errors=True)
            turns[name].append(contender(part, folder))
    shutil.rmtree(runs / "turn")
    texts_s = {name: [TEXTS / turn.seconds for turn in own[1:]] for name, own in turns.items()}
    tokens_s = {name: [turn.tokens / turn.seconds for turn in own[1:]] for name, own in turns.items()}
    own = turns["text2token"][1:]
    figures = {
        "train_texts_over_simcse": median(ratios(texts_s["text2token"], texts_s["simcse"])),
        "train_tokens_over_simcse": median(ratios(tokens_s["text2token"], tokens_s["simcse"])),
        "train_texts_over_llm2vec": median(ratios(texts_s["text2token"], texts_s["llm2vec"])),
        "train_texts_s": median(texts_s["text2token"]),
        "targets_texts_s": median(TEXTS / turn.targets for turn in own),
    }
    details = {
        "texts": TEXTS, "rounds": ROUNDS, "bf16": bf16(), "texts_s": texts_s, "tokens_s": tokens_s,
        "seconds": {name: [turn._asdict() for turn in all_turns] for name, all_turns in turns.items()},
    }  # fmt: skip
    return {"figures": figures, "details": details}


def forward_gflop(body: nn.Module) -> float:
    """Return the GFLOP of the products of one token with all linear layers of a body."""
    return 2e-9 * sum(module.weight.numel() for module in body.modules() if isinstance(module, nn.Linear))


def fit_texts(texts: Sequence[str], folder: Path) -> Turn:
    """Build the targets of both stages and train on them as ``fit`` does. The sample of the priors is in its usual proportion."""
    recipe = RECIPE.model_copy(update={"prior_texts": len(texts) * RECIPE.prior_texts // RECIPE.max_texts})
    embedder = open_backbone(recipe)
    encoder, tokenizer = embedder.encoder, embedder.tokenizer
    started = time.perf_counter()
    room = room_for_text(tokenizer, recipe.train_length)
    statistics = corpus_statistics(texts, tokenizer, embedder.vocabulary_size, room)
    builders = make_builders(embedder, statistics, texts, recipe.part(TargetSettings), "")
    stages = split_texts(list(texts), recipe.stage_1)
    stores = {stage: build_store(folder / f"{stage}", own, builders[stage], embedder) for stage, own in stages.items()}
    targets = time.perf_counter() - started
    for stage, store in stores.items():
        train_stage(
            encoder, TokenTargets(encoder[1], embedder.decoding_head), store.tables(), [next(store.tables()).slice(0, 2)],
            recipe.part(TrainingSettings), folder / f"stage-{stage}", name="", minutes=None, progress=False,
        )  # fmt: skip
    return Turn(time.perf_counter() - started, targets, count_tokens(encoder, texts))


def simcse(texts: Sequence[str], folder: Path) -> Turn:
    """Train with the in-batch contrast of two dropout views of each text."""
    encoder = open_backbone(RECIPE).encoder
    tokens = round(READS["simcse"] * count_tokens(encoder, texts))
    encoder.max_seq_length = RECIPE.train_length
    set_dropout(encoder[0].model)
    encoder[0].model = add_adapters(encoder[0].model, RECIPE.lora_rank, SEED)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=RECIPE.batch_size,
        num_train_epochs=1,
        learning_rate=RECIPE.learning_rate,
        bf16=bf16(),
        use_cpu=not torch.accelerator.is_available(),  # without it, bf16 is refused on a CPU
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
        seed=SEED,
    )
    pairs = datasets.Dataset.from_dict({"anchor": list(texts), "positive": list(texts)})
    loss = MultipleNegativesRankingLoss(encoder)
    trainer = SentenceTransformerTrainer(model=encoder, args=arguments, train_dataset=pairs, loss=loss)
    started = time.perf_counter()
    trainer.train()
    return Turn(time.perf_counter() - started, 0.0, tokens)


def llm2vec(texts: Sequence[str], folder: Path) -> Turn:
    """Train with ``text2token baseline llm2vec``: masked tokens on one half of the texts, SimCSE on the other one."""
    recipe = Recipe.load(recipe_file("llm2vec"), max_texts=len(texts) - 2, held_out=2)
    encoder = fit_baseline("llm2vec", texts, folder, recipe)
    return Turn(60 * cost(folder)["minutes"], 0.0, round(READS["llm2vec"] * count_tokens(encoder, texts)))


def default_fit(model: str) -> dict[str, Any]:
    """Read from the record of a model how fast its training was and how long all else took.

    The seconds of the training include its evaluations and checkpoints.
    """
    run, spent = json.loads((Path(model) / "run.json").read_text()), cost(Path(model))
    training, tokens = 60 * spent["minutes"], spent["tokens"]
    # forward, and back for the gradient of each layer's input
    both_ways = 2 * forward_gflop(open_backbone(RECIPE).encoder[0].model)
    gflops = tokens * both_ways / training
    figures = {
        "fit_overhead_s": 60 * spent["minutes of the whole run"] - training,
        "train_tokens_s": tokens / training,
    }
    details = {"timings": run["timings"], "tokens": tokens, "gflops": gflops, "peak_rss_gib": run["peak_rss_gib"]}
    return {"figures": figures, "details": details}


def memory(data: Path, runs: Path) -> dict[str, Any]:
    """Compare the peak memory of two fits, one with ten times the texts of the other one.

    The backbone is tiny and random, with the vocabulary of the default one, since what grows with the texts is measured.
    Nine tenths of the texts are in stage 1, which saves most of the time for priors; these are built shard by shard.

    Args:
        data: Folder with corpus/.
        runs: Keeps the finished fits.
    """
    runs.mkdir(parents=True, exist_ok=True)
    if not (tiny := runs / "tiny").is_dir():
        save_tiny(tiny)
    peaks = {}
    for number in (SMALL, LARGE):
        if not (output := runs / f"fit-{number}").is_dir():
            settings = ("--backbone", str(tiny), "--max-texts", str(number), "--stage-1", "0.9", "--batch-size", "128")
            text2token("fit", str(data / SENTENCES), "--output", str(output), *settings)
        peaks[number] = json.loads((output / "run.json").read_text())["peak_rss_gib"]
    details = {"texts": [SMALL, LARGE], "peak_rss_gib": list(peaks.values())}
    return {"figures": {"memory_x10_fit": peaks[LARGE] / peaks[SMALL]}, "details": details}


def save_tiny(folder: Path) -> None:
    """Write a random backbone of two narrow layers with the tokenizer of the default backbone."""
    source = fetch(RECIPE.backbone)
    config = transformers.LlamaConfig(
        vocab_size=transformers.AutoConfig.from_pretrained(source).vocab_size,
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    )  # fmt: skip
    torch.manual_seed(SEED)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
