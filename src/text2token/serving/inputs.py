"""Turn the inputs of a request into token ids, and check what it asks for."""

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
    truncate: bool | None = None,
    direction: Direction = "right",
) -> list[list[int]]:
    """Return the token ids of each input, template included.

    Args:
        service: Gives the model and the limits.
        inputs: A text, a list of texts, the ids of one text, or a list of such ids. Ids are those of the model's tokenizer.
        timing: Characters and seconds are added to it.
        prompt_name: Name of the model's prompt that is put before each text.
        truncate: Cut an input that is too long. None: the request has no such setting, and the error does not name it.
        direction: End at which an input is cut.

    Raises:
        ApiError: There are no inputs or too many; an input is empty, too long or outside the vocabulary; the prompt is unknown.
    """
    started, tokenizer = time.monotonic(), service.model.request_tokenizer
    texts, ids = _split(inputs)
    service.check_count(len(texts) + len(ids))
    for row in ids:
        tokenizer.check_ids(row)
    prompt = named_prompt(service, prompt_name)
    rows = tokenizer.encode(texts, prompt, truncate=truncate, direction=direction) if texts else []
    rows += [tokenizer.around(row, truncate=truncate, direction=direction) for row in ids]
    timing.characters += sum(map(len, texts))
    timing.tokenizing += time.monotonic() - started
    service.metrics.tokenizing.observe(time.monotonic() - started)
    return rows


def _split(inputs: Inputs) -> tuple[list[str], list[list[int]]]:
    """Split the inputs into texts and lists of ids."""
    if isinstance(inputs, str):
        return [inputs], []
    if inputs and isinstance(inputs[0], int):
        return [], [[token for token in inputs if isinstance(token, int)]]
    return [item for item in inputs if isinstance(item, str)], [item for item in inputs if isinstance(item, list)]


def named_prompt(service: Service, name: str | None) -> str:
    """Return the model's prompt of this name. Without a name, return its default prompt, or "" if it has none.

    Raises:
        ApiError: The model has no prompt of this name.
    """
    encoder = service.model.plain.encoder
    prompts, name = encoder.prompts, name or encoder.default_prompt_name
    if name is None:
        return ""
    if name not in prompts:
        known = ", ".join(prompts) or "none"
        raise ApiError(422, f"The model has no prompt '{name}': it has {known}.", param="prompt_name")
    return str(prompts[name])


def check_model(service: Service, name: str) -> None:
    """Refuse a request for another model.

    Raises:
        ApiError: The server does not serve a model of this name.
    """
    if name != service.settings.model:
        raise ApiError(
            404,
            f"The model '{name}' is not served here: ask for '{service.settings.model}'.",
            "NotFound",
            param="model",
            code="model_not_found",
        )


def check_dimensions(service: Service, dimensions: int | None) -> None:
    """Refuse to shorten vectors, because their dimensions are not ordered by importance.

    Raises:
        ApiError: The request asks for another number of dimensions than the model has.
    """
    own = service.dimensions
    if dimensions is not None and dimensions != own:
        raise ApiError(
            400,
            f"Vectors of this model have {own} dimensions and cannot be shortened to {dimensions}, because the dimensions are "
            "not ordered by importance: leave 'dimensions' out.",
            param="dimensions",
        )
