"""GGUF files, dequantised once into plain transformers folders (float32 safetensors and a tokenizer) that are kept."""

from __future__ import annotations

import hashlib
import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2token.utils.cache import cache_dir, cache_lock
from text2token.utils.errors import UserError, first_line
from text2token.utils.files import atomic_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Values of the field "tokenizer.ggml.pre" for which llama.cpp splits "\p{N}" apart and then splits as GPT-2 does.
# transformers knows the GPT-2 half only: it would read "2024" as one token that the model has never seen.
_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})


def dequantise_cached(gguf_file: Path) -> Path:
    """The dequantised copy of ``gguf_file`` in the cache, made if need be.

    A copy belongs to a path, size and time of change, so that a file replaced by another is converted anew; hashing the
    gigabytes of a file at every start would cost more than it protects from.

    Raises:
        UserError: As ``dequantise`` and ``making``.
    """
    file, facts = gguf_file.resolve(), gguf_file.stat()
    key = hashlib.sha256(f"{file}|{facts.st_size}|{facts.st_mtime_ns}".encode()).hexdigest()
    folder = cache_dir() / "gguf" / f"{file.stem}-{key[:12]}"
    if not folder.is_dir():
        with cache_lock(folder):
            if not folder.is_dir():  # made by another process while we waited for the lock
                dequantise(file, folder)
    return folder


def dequantise(gguf_file: Path, output: Path) -> None:
    """Write a GGUF language model as a transformers folder of float32 safetensors, whole or not at all.

    Takes about 4 bytes of memory and disk per parameter, and half a minute for 135 million parameters on a laptop.
    Nothing is drawn meanwhile. Callers that may race for one ``output`` hold ``cache_lock(output)``.

    Args:
        gguf_file: Any file of an architecture that transformers reads, of any quantisation, with its tokenizer inside.
        output: The folder to make.

    Raises:
        UserError: The file is not there, is broken, lacks weights, or is not a language model that transformers reads.
        OSError: ``output`` exists already, or cannot be written.
        SafetensorError: The disk is full.
    """
    if output.exists():
        raise FileExistsError(f"{output} exists already")
    model, tokenizer = _load(gguf_file)
    with atomic_folder(output) as part, redirect_stderr(io.StringIO()):
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def _load(gguf_file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer out of a GGUF file."""
    import torch  # here, so that a model which is in the cache costs none of these imports
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if not gguf_file.is_file():
        raise UserError(f"There is no GGUF file at {gguf_file}: check the path.")
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    try:
        split = _pre_tokenizer(gguf_file)
        with redirect_stderr(io.StringIO()):  # transformers' GGUF reader draws a tqdm bar that no option turns off
            model, report = AutoModelForCausalLM.from_pretrained(
                **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(**source)
    except Exception as error:  # three parsers on bytes from anywhere: there is no telling what they raise
        raise UserError(
            f"{gguf_file} is broken, or no language model that transformers reads "
            f"({type(error).__name__}: {first_line(error)}): "
            "get it again, or use the safetensors folder of the model."
        ) from error
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        raise UserError(
            f"{gguf_file} lacks the weights {sorted(report['missing_keys'])[0]}: get the whole, unsplit file."
        )
    if split in _DIGITS_APART:
        gpt2 = ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), gpt2])
    return model, tokenizer


def _pre_tokenizer(gguf_file: Path) -> str | None:
    """How the file says that text is split before BPE: its field ``tokenizer.ggml.pre``."""
    from gguf import GGUFReader

    field = GGUFReader(gguf_file).get_field("tokenizer.ggml.pre")
    return None if field is None else str(field.contents())
