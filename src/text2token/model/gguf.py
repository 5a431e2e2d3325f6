"""Dequantise GGUF files into plain transformers folders (float32 safetensors and a tokenizer) in the cache."""

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
    """Return the dequantised copy of ``gguf_file`` in the cache; it is made the first time.

    The copy is keyed by path, size and time of change, so a replaced file is converted again. A hash of the file's content
    would cost seconds at every start.

    Raises:
        UserError: As :func:`dequantise`, or the cache cannot be written.
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
    """Write a GGUF language model as a transformers folder of float32 safetensors; an error leaves no folder behind.

    It takes about 4 bytes of memory and disk per parameter, and half a minute for 135 million parameters on a laptop.
    Callers that may run at the same time for one ``output`` hold ``cache_lock(output)``. No progress is shown.

    Args:
        gguf_file: A file with its tokenizer inside, of any quantisation, and of an architecture that transformers reads.
        output: The folder to write.

    Raises:
        UserError: The file does not exist, is damaged, lacks weights, or is not a language model that transformers reads.
        OSError: ``output`` cannot be written.
        SafetensorError: The disk is full.
    """
    model, tokenizer = _load(gguf_file)
    with atomic_folder(output) as part, redirect_stderr(io.StringIO()):
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def _load(gguf_file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer from a GGUF file."""
    import torch  # imported here, because a model that is in the cache needs none of it
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
    except Exception as error:  # three parsers read the file, and damaged bytes make them raise almost anything
        raise UserError(
            f"{gguf_file} is damaged, or no language model that transformers reads "
            f"({type(error).__name__}: {first_line(error)}): "
            "download it again, or use the safetensors folder of the model."
        ) from error
    if report["missing_keys"]:  # transformers would fill them with random numbers
        raise UserError(
            f"{gguf_file} lacks the weights {sorted(report['missing_keys'])[0]}: get the complete file, not a part of it."
        )
    if split in _DIGITS_APART:
        gpt2 = ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), gpt2])
    return model, tokenizer


def _pre_tokenizer(gguf_file: Path) -> str | None:
    """Return the file's field ``tokenizer.ggml.pre``, the name of the way in which text is split before BPE."""
    from gguf import GGUFReader

    field = GGUFReader(gguf_file).get_field("tokenizer.ggml.pre")
    return None if field is None else str(field.contents())
