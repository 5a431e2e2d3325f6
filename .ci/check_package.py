"""Try the installed package: run by ``make test-package`` with the Python of a clean environment, outside the checkout.

It makes a tiny random language model, and runs the commands of the README on it.
"""

from __future__ import annotations

import importlib.resources
import json
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import text2token

TEXTS = [f"{animal} number {i} sat on the {place}." for i in range(8) for animal in ("Cat", "Dog") for place in "abcd"]
SETTINGS = [
    "--max-texts",
    "40",
    "--batch-size",
    "8",
    "--calibration-texts",
    "20",
    "--prior-texts",
    "20",
    "--lora-rank",
    "2",
]


def write_backbone(folder: Path) -> None:
    """Save a random Llama with 2 layers, 32 dimensions and a byte-level tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=320, tie_word_embeddings=True, initializer_range=0.2,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>").save_pretrained(folder)


def run(*arguments: str) -> str:
    """Run a command and return what it prints."""
    command = [str(Path(sys.executable).with_name("text2token")), *arguments]
    print("$ text2token", *arguments, flush=True)  # noqa: T201
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Fail at the first thing that does not work."""
    package = importlib.resources.files(text2token)
    assert "site-packages" in str(package), f"{package} is not an installed package"
    assert (package / "py.typed").is_file(), "py.typed is missing"
    assert list((package / "utils" / "templates").iterdir()), "the templates are missing"
    for name in ("index.html", "explorer.css", "explorer.js"):
        assert (package / "serving" / "explorer" / name).is_file(), f"{name} of the explorer is missing"
    Path("texts.txt").write_text("\n".join(TEXTS))
    rows = [{"_id": str(i), "text": text} for i, text in enumerate(TEXTS)]
    Path("documents.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_backbone(Path("backbone"))
    assert "Usage: text2token" in run("--help")
    run("fit", "texts.txt", "--backbone", "backbone", "--output", "model", *SETTINGS)
    assert Path("model/report.html").is_file()
    assert Path("model/dense/modules.json").is_file()
    assert run("explain", "model", "The cat sat.")
    run("index", "model", "documents.jsonl", "--output", "index")
    assert "Dog" in run("search", "index", "a dog", "--mode", "bm25", "--no-model")


main()
