"""Tiny random backbones of several families, made on the spot: 2 layers, 32 dimensions, a few hundred tokens."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from click.testing import CliRunner
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from text2token.cli import main
from text2token.model.embedder import Embedder
from text2token.model.folders import save_plain
from text2token.settings.recipe import Recipe
from text2token.settings.record import RunRecord
from text2token.settings.templates import TEMPLATES, Template

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from postgres_server import PostgresServer

# A background job of a shell ignores Ctrl-C and hands that on; the processes whose interruption we test must not.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("steady", deadline=None)  # tests check results, not clocks
settings.load_profile("steady")

SENTENCES = [
    "The cat sat on the warm mat near the window.",
    "A dog chased the small cat across the garden.",
    "Stock markets fell sharply after the central bank raised rates.",
    "The bank of the river was covered with green moss.",
    "She cooked a rich soup of lentils, carrots and onions.",
    "The telescope revealed a distant galaxy full of young stars.",
    "Stars and planets are studied by astronomers at night.",
    "He repaired the old engine of the fishing boat.",
    "Rates of interest decide how much a loan will cost.",
    "Children played football in the park until the evening.",
]


def untrained(name: str, **settings) -> Embedder:
    """A backbone as an embedder: mean pooling and no template unless asked for."""
    return Embedder.open(name, **{"pooling": "mean", "template": Template(), **settings})


def of_recipe(recipe: Recipe) -> Embedder:
    return Embedder.open(recipe.backbone, **recipe.embedder_settings())


def write_record(folder: Path, backbone: str, *, source: str | None = None) -> None:
    """The smallest ``run.json`` of a fit."""
    facts = {
        "verb": "fit",
        "recipe": Recipe(backbone=backbone).model_dump(),
        "corpus": {"name": "texts", "fingerprint": ""},
        "backbone": {"name": backbone, "source": source or backbone, "dimension": 32, "vocabulary": 500, "sha256": ""},
        **dict.fromkeys(("text2token", "command", "created"), ""),
        **{key: {} for key in ("timings", "files", "versions", "machine")},
        **dict.fromkeys(("git", "peak_rss_gib")),
    }
    RunRecord.of(facts).write(folder / "run.json")


CORPUS = [f"{text[:-1]}, number {i}." for i in range(12) for text in SENTENCES]


def origin(benchmark: str) -> dict[str, object]:
    """The part of a results file that says where its numbers come from."""
    return {
        "machine": {"cores": 2, "cpu": "a processor"},
        "git": "0123456789abcdef",
        "seed": 0,
        "command": f"python benchmarks/{benchmark}.py",
    }


def text2token(*arguments, **settings):
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="text2token", **settings)


def done(*arguments, **settings):
    """Standard output of a command that works; a library that chatters on standard error would make it fail."""
    result = text2token(*arguments, **settings)
    assert result.exit_code == 0, result.output
    assert "Warning" not in result.stderr
    assert "it/s" not in result.stderr
    return result.stdout


def refused(*arguments, **settings):
    """The one sentence of a command that a user got wrong."""
    result = text2token(*arguments, **settings)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


def write_lines(file, rows):
    """Write a ``.jsonl`` file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_search(folder, texts=CORPUS):
    """Write a search task in BEIR's layout: each of twelve queries is the end of one document, judged with the next one."""
    documents = [{"_id": str(i), "title": text.split()[0], "text": text} for i, text in enumerate(texts)]
    write_lines(folder / "corpus.jsonl", documents)
    queries = [{"_id": f"q{i}", "text": " ".join(text.split()[-4:])} for i, text in enumerate(texts[:12])]
    write_lines(folder / "queries.jsonl", queries)
    rows = "".join(f"q{i}\t{i}\t1\nq{i}\t{(i + 1) % len(texts)}\t1\n" for i in range(len(queries)))
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_HEADS = {"num_key_value_heads": 1, "head_dim": 16}
FAMILIES: dict[str, tuple[str, str, dict]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**_SMALL, **_HEADS, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_SMALL, **_HEADS}),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", {**_SMALL, **_HEADS, "sliding_window": 16}),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {**_SMALL, **_HEADS, "sliding_window": 16, "final_logit_softcapping": 5.0},
    ),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {**_SMALL}),
    "opt": ("OPTConfig", "OPTForCausalLM", {**_SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 2}),
    "gpt_neo": (
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
    ),
    "bert": ("BertConfig", "BertForMaskedLM", _SMALL),
    "roberta": ("RobertaConfig", "RobertaForMaskedLM", {**_SMALL, "pad_token_id": 0}),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertForMaskedLM",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    ),
    "modernbert": ("ModernBertConfig", "ModernBertForMaskedLM", {**_SMALL, "local_attention": 16}),
}
# As published models name them; others have the general one. These replace their post-processor when they are loaded.
TOKENIZER_CLASSES = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "gpt2": "GPT2Tokenizer",
}
DECODERS = ["llama", "qwen3", "gemma3", "gpt_neox", "opt"]
MASKED = ["bert", "roberta", "distilbert", "modernbert"]


def byte_bpe() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer as of GPT-2, with an end-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    chat = "{% for message in messages %}<|end|>{{ message['content'] }}{% endfor %}"  # as instruct models have one
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", chat_template=chat
    )


def word_piece() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer as of BERT, with [CLS] and [SEP] around every text. Its words and letters are those of the corpus.

    They are listed, not trained: the trainer of tokenizers breaks ties by chance.
    """
    normalizer, split = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = {word for text in CORPUS for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = sorted({letter for word in words for letter in word})
    pieces = [*letters, *(f"##{letter}" for letter in letters), *sorted(words - set(letters))]
    vocabulary = {piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, split, decoders.WordPiece()
    pair = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pair)
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A folder with a random backbone of a family; made once a session."""
    made: dict[str, str] = {}

    def make(family: str) -> str:
        if family not in made:
            folder = tmp_path_factory.mktemp("backbones") / family
            made[family] = str(write_backbone(family, folder))
        return made[family]

    return make


def write_backbone(family: str, folder: Path) -> Path:
    """Save a random model of a family with its tokenizer."""
    config_name, model_name, settings = FAMILIES[family]
    tokenizer = word_piece() if family in MASKED else byte_bpe()
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(
        vocab_size=len(tokenizer), max_position_embeddings=320, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        initializer_range=0.2, **{k: v for k, v in settings.items() if k != "pad_token_id"},
    )  # fmt: skip
    model = getattr(transformers, model_name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms, which start as 0 and 1, where what they do is not seen
                parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if family in TOKENIZER_CLASSES:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": TOKENIZER_CLASSES[family]}))
    return folder


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    return list(CORPUS)


@pytest.fixture(scope="module", autouse=True)
def exact(request: pytest.FixtureRequest) -> Iterator[None]:
    """float32 throughout, on any machine, so that hand-computed values hold; real runs are as the hardware has it."""
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ != "test_real":
            patch.setattr("text2token.model.precision.has_bf16", lambda device: False)
        yield


def calibrated(name: str, **settings) -> Embedder:
    embedder = untrained(name, **{"max_length": 64, **settings})
    embedder.calibrate(CORPUS[:40])
    return embedder


@pytest.fixture(scope="session")
def bert_folder(backbone, tmp_path_factory) -> Path:
    """A SentenceTransformer in its own folder."""
    folder = tmp_path_factory.mktemp("embedders") / "bert"
    save_plain(untrained(backbone("bert")).encoder, folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(backbone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    calibrated(backbone("llama"), template=TEMPLATES["keywords"], pooling="last").save(folder)
    return folder


@pytest.fixture(scope="session")
def index_folder(model_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("indexes") / "docs"
    from text2token.search import Document, Index

    index = Index.create(folder, str(model_folder))
    index.add([Document(str(number), f"Title {number}", text) for number, text in enumerate(SENTENCES)])
    index.close()
    return folder


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    """Makes a client of a server's application, which stops at the end of the test."""
    from fastapi.testclient import TestClient

    from text2token.serving import ServerSettings, Service, create_app

    with ExitStack() as stack:

        def start(embedder: Embedder, plain: Embedder | None = None, **settings) -> TestClient:
            service = Service(ServerSettings(**{"model": "tiny", **settings}), embedder, plain)
            return stack.enter_context(TestClient(create_app(service), raise_server_exceptions=False))

        yield start


@pytest.fixture
def client(serve, model_folder, index_folder) -> TestClient:
    return serve(Embedder.open(model_folder), indexes={"docs": index_folder})


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server with two databases; ``shards`` is the address of both."""
    from postgres_server import servers

    with servers() as (server, *_):
        server.create().execute("CREATE DATABASE second")
        server.shards = f"{server.uri};{server.uri.removesuffix('postgres')}second"
        yield server


@pytest.fixture(scope="session")
def milvus_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server process of milvus-lite."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["milvus-lite", "server", "--port", str(port), "--data-dir", str(tmp_path_factory.mktemp("milvus"))]
    process = subprocess.Popen([Path(sys.executable).with_name(command[0]), *command[1:]], stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
