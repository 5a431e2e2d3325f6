"""Prompt templates by name."""

from __future__ import annotations

from dataclasses import dataclass

from text2token.utils.errors import UserError


@dataclass(frozen=True)
class Template:
    """What stands before and after every text."""

    prefix: str = ""
    suffix: str = ""


TEMPLATES = {
    "none": Template(),
    # PromptEOL, "explicit one word limitation": arXiv 2307.16645, section 3; and with the space that text has before an opening
    # quote, which makes it a better embedder (docs/results-spectrum.md).
    "eol-published": Template('This sentence : "', '" means in one word:"'),
    "eol": Template('This sentence : "', '" means in one word: "'),
    # Ours, EOL templates that ask for what a text is about; better than PromptEOL on STSBenchmark validation (docs/results.md).
    "keywords": Template('Text: "', '"\nKeywords: "'),
    "topic": Template('Text: "', '"\nThe topic of this text, in one word:"'),
}


def named_templates(names: str) -> tuple[Template, ...]:
    """Several templates, by names joined by commas.

    Raises:
        UserError: There is no template of one of the names.
    """
    return tuple(named_template(name.strip()) for name in names.split(","))


def named_template(name: str) -> Template:
    """A template by name.

    Raises:
        UserError: There is none of that name.
    """
    if name not in TEMPLATES:
        raise UserError(
            f"There is no template '{name}': choose among {', '.join(TEMPLATES)}, or give --prefix and --suffix."
        )
    return TEMPLATES[name]
