"""The recipe: every setting of a fit, with the same name in YAML, in Python and on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from text2token.data.stop_words import stop_list
from text2token.settings.choices import Attention, PoolingMode, Weighting
from text2token.settings.corrections import STEPS, parse_steps, split_steps
from text2token.settings.templates import TEMPLATES, Template, named_template, named_templates
from text2token.utils.errors import UserError, first_line
from text2token.utils.files import local_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")
_READ_BY_YAML = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")  # nothing, and the sign that merges mappings
# What a file may call a value.
_TAGGED = [f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp")]
_REMOVED = {"common": "mean"}  # setting → the default that is now the only behaviour
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Recipe(BaseModel):
    """Settings of :func:`text2token.fit`. The defaults run on the CPU of a laptop.

    Only the defaults marked "val" were chosen by a measurement, on the validation split of STSBenchmark. A default from a paper
    names it. All other defaults are ours: common values of the field, or values that keep a run short.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    backbone: str = Field(
        "smollm2-135m", description="language model: a packaged name, a folder, a .gguf file or a hub id"
    )
    attention: Attention = Field("own", description="own: the attention that the backbone was trained with")
    pooling: PoolingMode = Field(
        "last", description="hidden states that become the embedding; last suits a template that asks for one word"
    )
    template: str = Field(
        "keywords", description=f"text around every text (val): {', '.join(TEMPLATES)}; or set prefix and suffix"
    )
    prefix: str | None = Field(None, description="text before every text, in place of the template's")
    suffix: str | None = Field(None, description="text after every text, in place of the template's")
    max_length: Count = Field(
        256, description="longest text that the finished embedder reads, in tokens, template included"
    )

    stop_words: str = Field("en", description="languages of the stop lists, such as 'en,de', or 'none'")
    max_document_share: Share = Field(0.1, description="a token in a larger share of the texts is never a target")
    weighting: Weighting = Field("tf-idf", description="weights of data-driven targets")
    merge_forms: bool = Field(True, description="share the weight of a token among its forms (' cat', 'cat', 'Cat')")
    prior_templates: str = Field(
        "keywords", description="templates whose predictions are averaged for model-derived targets"
    )
    prior_texts: Count = Field(
        500, description="texts whose mean logits are subtracted from the predictions for model-derived targets"
    )
    top_k: Count = Field(64, description="tokens in a model-derived target")
    temperature: float = Field(1.0, gt=0, description="temperature of the softmax of model-derived targets")
    mixing: Share = Field(0.5, description="share of the data-driven target in stage 2; 0: only the model-derived one")

    teacher: str | None = Field(
        None,
        description="finished embedder whose similarities the dense vectors follow beside the targets: a folder, "
        "all-minilm-l6-v2 or a hub id",
    )
    teacher_weight: float = Field(
        1.0, gt=0, description="weight of the teacher's similarities; that of the token targets is 1"
    )

    max_texts: Count = Field(4_000, description="texts drawn from the corpus for training, for both stages together")
    stage_1: Share = Field(0.25, description="share of the texts for stage 1, which trains on data-driven targets")
    held_out: int = Field(128, ge=2, description="texts that are measured and not trained on")
    max_minutes: float | None = Field(
        None, gt=0, description="limit of the training time; building the targets does not count"
    )
    train_length: Count = Field(
        64, description="longest text in training, in tokens, template included; at most max_length"
    )
    batch_size: Count = Field(32, description="texts per batch")
    accumulation: Count = Field(1, description="batches per training step")
    learning_rate: float = Field(
        3e-4, gt=0, description="highest learning rate, after the warm-up; it falls to 0 linearly"
    )
    warmup: Share = Field(0.1, description="share of the steps in which the learning rate rises")
    lora_rank: Count = Field(16, description="rank of the LoRA adapters on all linear layers (LLM2Vec: 16)")
    full: bool = Field(False, description="train all weights in place of adapters")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of sampling, initialisation and order")

    calibration_texts: Count = Field(500, description="texts that the correction and the mean logits are computed from")
    correction: str = Field(
        "centre+filter",
        description=f"correction of dense vectors (val): none, or steps joined by +: {', '.join(STEPS.values())}",
    )
    keep_from: Share = Field(0.02, description="the filter keeps the spectrum of the decoding head from this share")
    keep_to: Share = Field(0.9, description="the filter keeps the spectrum of the decoding head up to this share")
    sparse_k: Count = Field(128, description="tokens in a sparse vector")

    dynamics: int = Field(
        0,
        ge=0,
        description="points per stage at which alignment and embedding quality are measured; 0: none",
    )
    sts: str | None = Field(
        None, description="table of sentence1, sentence2 and score that is measured at these points; needs dynamics"
    )

    @classmethod
    def load(cls, file: str | Path | None, **overrides: Any) -> Recipe:
        """Read a recipe from a YAML file.

        Args:
            file: The file; None: the defaults.
            overrides: Settings that replace those of the file.

        Raises:
            UserError: The file cannot be read or is not a YAML mapping, a name is unknown or occurs twice, or a value is out of
                range.
        """
        try:
            content = (yaml.load(local_path(file).read_text(encoding="utf-8"), _RecipeLoader) or {}) if file else {}
        except yaml.MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise UserError(f"Cannot read the recipe '{file}'{line}: {error.problem}.") from error
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"Cannot read the recipe '{file}': {first_line(error)}.") from error
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise UserError(f"The recipe '{file}' is not a mapping: write one 'name: value' per line.")
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

    @model_validator(mode="before")
    @classmethod
    def _without_truth_values(cls, values: Any) -> Any:
        """Refuse a truth value where none is expected: pydantic would make a number of it."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields and cls.model_fields[name].annotation is not bool:
                raise ValueError(f"'{name}' is a truth value here: give what the setting holds")
        return values

    @model_validator(mode="after")
    def _default_train_length(self) -> Recipe:
        """Lower the default to max_length: most commands that take a max_length have no train_length."""
        if "train_length" not in self.model_fields_set:
            object.__setattr__(self, "train_length", min(self.train_length, self.max_length))
        return self

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
            raise ValueError("sts needs dynamics, the number of points at which it is measured")
        return self

    def text_template(self) -> Template:
        """Return the named template, with its prefix and suffix replaced by those of the recipe if they are set."""
        named = named_template(self.template)
        given = {"prefix": self.prefix, "suffix": self.suffix}
        return replace(named, **{part: text for part, text in given.items() if text is not None})

    def encoder_settings(self) -> dict[str, Any]:
        """Return the settings that make an encoder of the backbone, see :func:`text2token.model.backbone.encoder_around`."""
        return {
            "attention": self.attention,
            "pooling": self.pooling,
            "template": self.text_template(),
            "max_length": self.max_length,
        }

    def embedder_settings(self) -> dict[str, Any]:
        """Return the keyword arguments of :meth:`text2token.Embedder.open` for the backbone of this recipe."""
        return {**self.encoder_settings(), "top_k": self.sparse_k}

    def correction_steps(self) -> list[str]:
        """Return the steps of the correction, see :func:`text2token.model.correction.correction`."""
        return split_steps(self.correction)

    @property
    def keep(self) -> tuple[float, float]:
        """The part of the spectrum of the decoding head that the filter keeps: start and end, shares from 0 to 1."""
        return self.keep_from, self.keep_to

    def part(self, settings: type[S]) -> S:
        """Fill a settings dataclass with the values that this recipe has under the names of its fields."""
        return settings(**{field.name: getattr(self, field.name) for field in fields(settings)})


@contextmanager
def one_sentence(what: str, settings: type[BaseModel]) -> Iterator[None]:
    """Turn the first error of validated settings into a :class:`UserError`.

    Args:
        what: The first word of the sentence.
        settings: The settings, whose names are listed if one is unknown.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        known = "" if first["type"] != "extra_forbidden" else f"; known are {', '.join(settings.model_fields)}"
        name = f" setting '{first['loc'][0]}'" if first["loc"] else ""
        reason = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise UserError(f"{what}{name}: {reason}{known}.") from error


class _RecipeLoader(yaml.SafeLoader):
    """Leaves values as they are written, and refuses a name that occurs twice.

    The settings then read them as those of a command line. YAML 1.1 would read ``010`` as 8, ``1:30`` as 90 and ``no`` as a truth
    value, and keep the last value of a name that occurs twice.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # PyYAML refuses it
            if key.value in names:
                raise yaml.MarkedYAMLError(
                    problem=f"'{key.value}' occurs twice: delete one", problem_mark=key.start_mark
                )
            names.add(key.value)
        return super().construct_mapping(node, deep)


_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, written) for tag, written in rules if tag in _READ_BY_YAML]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.yaml_constructors = {
    **yaml.SafeLoader.yaml_constructors,
    **dict.fromkeys(_TAGGED, yaml.SafeLoader.construct_yaml_str),
}
