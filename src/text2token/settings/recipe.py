"""A recipe: every setting of a fit, by the same name in YAML, in Python and on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from text2token.data.stop_words import stop_list
from text2token.settings.corrections import STEPS, parse_steps, split_steps
from text2token.settings.templates import TEMPLATES, Template, named_template, named_templates
from text2token.utils.errors import UserError, first_line

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")
_REMOVED = {"common": "mean"}  # setting → the default that is now the only behaviour
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Recipe(BaseModel):
    """Settings of :func:`text2token.fit`; the defaults run on a laptop CPU.

    Defaults marked "val" were chosen on STSBenchmark validation and known-item retrieval in the training text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field("smollm2-135m", description="packaged name, folder, .gguf file or hub id")
    attention: Literal["own", "causal", "bidirectional"] = Field("own", description="own: as the backbone was trained")
    pooling: Literal["mean", "last", "weighted-mean"] = Field("last", description="last goes with an EOL-type template")
    template: str = Field("keywords", description=f"one of {', '.join(TEMPLATES)}; or use prefix and suffix")
    prefix: str | None = Field(None, description="text before every text, instead of the template's")
    suffix: str | None = Field(None, description="text after every text, instead of the template's")
    max_length: Count = Field(256, description="tokens of a text that the finished embedder reads, template included")

    stop_words: str = Field("en", description="languages of the stop lists, as 'en,de', or 'none'")
    max_document_share: Share = Field(0.1, description="tokens in a larger share of the texts are never targets")
    weighting: Literal["uniform", "tf-idf", "bm25", "pmi"] = Field("tf-idf", description="of data-driven targets")
    merge_forms: bool = Field(True, description="share a token's weight among its forms (' cat', 'cat', 'Cat')")
    prior_templates: str = Field("keywords", description="templates whose priors model-derived targets average")
    prior_texts: Count = Field(500, description="texts whose mean logits are subtracted from the priors")
    top_k: Count = Field(64, description="tokens of a model-derived target")
    temperature: float = Field(1.0, gt=0, description="of model-derived targets")
    mixing: Share = Field(0.5, description="share of data-driven targets in stage 2; 0: model-derived only")

    max_texts: Count = Field(4_000, description="texts drawn from the corpus to train on, both stages together")
    stage_1: Share = Field(0.25, description="share of the texts that stage 1 trains on (data-driven targets)")
    held_out: int = Field(128, ge=2, description="texts kept aside for the curves")
    max_minutes: float | None = Field(None, gt=0, description="training time limit, targets not counted")
    train_length: Count = Field(64, description="tokens of a text in training, template included")
    batch_size: Count = Field(32, description="texts per step")
    accumulation: Count = Field(1, description="batches per step")
    learning_rate: float = Field(3e-4, gt=0, description="peak, after the warm-up; then linear to 0")
    warmup: Share = Field(0.1, description="share of the steps")
    lora_rank: Count = Field(16, description="of the adapters on all linear layers; LLM2Vec's")
    full: bool = Field(False, description="train all weights instead of adapters")
    seed: int = Field(0, ge=0, lt=2**32, description="of sampling, initialisation and order")

    calibration_texts: Count = Field(1_000, description="texts whose mean is removed from vectors and token logits")
    correction: str = Field(
        "centre+filter",
        description=f"of dense vectors: none, or {', '.join(STEPS.values())} in order, joined by + (val)",
    )
    keep_from: Share = Field(
        0.02, description="spectrum of the decoding head: start of the part that dense vectors keep"
    )
    keep_to: Share = Field(0.9, description="and its end")
    sparse_k: Count = Field(128, description="tokens of a sparse vector")

    dynamics: int = Field(
        0,
        ge=0,
        description="points per stage at which alignment and embedding quality are measured on held-out texts; 0: none",
    )
    sts: str | None = Field(
        None, description="file of sentence1, sentence2, score to measure there, too; needs dynamics"
    )

    @classmethod
    def load(cls, file: Path | None, **overrides: Any) -> Recipe:
        """Read a YAML recipe (None: the defaults) and override it.

        Raises:
            UserError: No such file, no YAML mapping, an unknown name or a value out of range.
        """
        try:
            content = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file else {}
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"Cannot read the recipe '{file}': {first_line(error)}.") from error
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise UserError(f"The recipe '{file}' is no mapping: write one 'name: value' a line.")
        with one_sentence("Recipe", cls):
            return cls(**(content | overrides))

    @model_validator(mode="before")
    @classmethod
    def _without_removed(cls, values: Any) -> Any:
        """Ignore removed settings that have their old default, as saved models and indexes may list them."""
        if not isinstance(values, dict):
            return values
        for name, default in _REMOVED.items():
            if name in values and values[name] != default:
                raise ValueError(
                    f"the setting '{name}' no longer exists: every run does what {default!r} did, so delete it"
                )
        return {name: value for name, value in values.items() if name not in _REMOVED}

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.train_length > self.max_length:
            raise ValueError(f"train_length ({self.train_length}) must not be above max_length ({self.max_length})")
        if self.keep_from >= self.keep_to:
            raise ValueError(f"keep_from ({self.keep_from}) must be below keep_to ({self.keep_to})")
        parse_steps(self.correction_steps())
        stop_list(self.stop_words)
        named_templates(self.prior_templates)
        if self.sts and not self.dynamics:
            raise ValueError("sts is measured along the training: say at how many points with dynamics")
        return self

    def text_template(self) -> Template:
        """The template by name; prefix and suffix, where they are given, stand in place of its own."""
        named = named_template(self.template)
        given = {"prefix": self.prefix, "suffix": self.suffix}
        return replace(named, **{part: text for part, text in given.items() if text is not None})

    def embedder_settings(self) -> dict[str, Any]:
        """How the backbone becomes an embedder: keyword arguments of :meth:`text2token.Embedder.open`."""
        return {
            "attention": self.attention,
            "pooling": self.pooling,
            "template": self.text_template(),
            "max_length": self.max_length,
            "top_k": self.sparse_k,
        }

    def correction_steps(self) -> list[str]:
        """The steps of :func:`text2token.model.correction.correction`."""
        return split_steps(self.correction)

    def part(self, settings: type[S]) -> S:
        """Fill a settings dataclass with the values that this recipe has under the names of its fields."""
        return settings(**{field.name: getattr(self, field.name) for field in fields(settings)})


@contextmanager
def one_sentence(what: str, settings: type[BaseModel]) -> Iterator[None]:
    """Values that settings refuse are the user's to mend."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        known = "" if first["type"] != "extra_forbidden" else f"; known are {', '.join(settings.model_fields)}"
        name = f" setting '{first['loc'][0]}'" if first["loc"] else ""
        raise UserError(f"{what}{name}: {first['msg'].removeprefix('Value error, ')}{known}.") from error
