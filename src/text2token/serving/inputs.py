"""Inputs of requests as token ids."""

from __future__ import annotations

import time

from text2token.serving.errors import ApiError
from text2token.serving.service import Service, Timing
from text2token.serving.tokens import Direction

Inputs = str | list[str] | list[int] | list[list[int]]


def as_ids(
    service: Service,
    inputs: Inputs,
    timing: Timing,
    *,
    prompt_name: str | None = None,
    truncate: bool = False,
    direction: Direction = "right",
) -> list[list[int]]:
    """Token ids of texts or of lists of ids, with the template around each.

    Args:
        service: Server with model and limits.
        inputs: A text, a list of texts, the ids of one text, or a list of these; ids are the model's own.
        timing: Keeps characters and seconds.
        prompt_name: Prompt of the model that stands before each text.
        truncate: Cut what is too long.
        direction: End at which it is cut.

    Raises:
        ApiError: There are no inputs or too many, one is empty, too long or outside the vocabulary, or the prompt is not known.
    """
    started, encoder = time.monotonic(), service.model.text_encoder
    texts, ids = _split(inputs)
    service.check_count(len(texts) + len(ids))
    for row in ids:
        encoder.check_ids(row)
    prompt = named_prompt(service, prompt_name)
    rows = encoder.encode(texts, prompt, truncate=truncate, direction=direction) if texts else []
    rows += [encoder.around(row, truncate=truncate, direction=direction) for row in ids]
    timing.characters += sum(map(len, texts))
    timing.tokenizing += time.monotonic() - started
    service.metrics.tokenizing.observe(time.monotonic() - started)
    return rows


def _split(inputs: Inputs) -> tuple[list[str], list[list[int]]]:
    """Texts and lists of ids among the inputs."""
    if isinstance(inputs, str):
        return [inputs], []
    if inputs and isinstance(inputs[0], int):
        return [], [[token for token in inputs if isinstance(token, int)]]
    return [item for item in inputs if isinstance(item, str)], [item for item in inputs if isinstance(item, list)]


def named_prompt(service: Service, name: str | None) -> str:
    """A prompt of the model by name; without a name its default prompt, if it has one.

    Raises:
        ApiError: The model has none of that name.
    """
    encoder = service.model.plain.encoder
    prompts, name = encoder.prompts, name or encoder.default_prompt_name
    if name is None:
        return ""
    if name not in prompts:
        known = ", ".join(prompts) or "none"
        raise ApiError(422, f"The model has no prompt '{name}': it has {known}.", param="prompt_name")
    return str(prompts[name])


def check_dimensions(service: Service, dimensions: int | None) -> None:
    """Refuse vectors that are cut: the axes of a vector are not ordered by what they hold.

    Raises:
        ApiError: Another number of dimensions than the model's is asked for.
    """
    own = service.dimensions
    if dimensions is not None and dimensions != own:
        raise ApiError(
            400,
            f"Vectors of this model have {own} dimensions and cannot be cut to {dimensions}, since its axes are not ordered by "
            "importance: leave 'dimensions' out.",
            param="dimensions",
        )
