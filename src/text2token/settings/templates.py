"""Prompt templates by name."""

from __future__ import annotations

from dataclasses import dataclass

from text2token.utils.errors import UserError


@dataclass(frozen=True)
class Template:
    """The text before and after every text that is embedded."""

    prefix: str = ""
    suffix: str = ""


TEMPLATES = {
    "none": Template(),
    # PromptEOL with the "explicit one word limitation": arXiv 2307.16645, section 3. "eol" adds the space that usually
    # comes before an opening quote; this makes the embedder better (docs/results-spectrum.md).
    "eol-published": Template('This sentence : "', '" means in one word:"'),
    "eol": Template('This sentence : "', '" means in one word: "'),
    # Ours. They ask for the topic of a text, and score higher than PromptEOL on STSBenchmark validation (docs/results.md).
    "keywords": Template('Text: "', '"\nKeywords: "'),
    "topic": Template('Text: "', '"\nThe topic of this text, in one word:"'),
}


def named_templates(names: str) -> tuple[Template, ...]:
    """Return the templates with these names, which are joined by commas.

    Raises:
        UserError: There is no template of one of the names.
    """
    return tuple(named_template(name.strip()) for name in names.split(","))


def named_template(name: str) -> Template:
    """Return the template with this name.

    Raises:
        UserError: There is no such template.
    """
    if name not in TEMPLATES:
        raise UserError(
            f"There is no template '{name}': choose among {', '.join(TEMPLATES)}, or set `prefix` and `suffix`."
        )
    return TEMPLATES[name]
