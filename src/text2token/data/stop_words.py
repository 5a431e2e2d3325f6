"""Lists of stop words by language."""

from __future__ import annotations

import stopwordsiso

from text2token.utils.errors import UserError


def stop_list(languages: str) -> frozenset[str]:
    """Return the stop words of some languages, in lower case (casefolded).

    Args:
        languages: ISO 639-1 codes, separated by commas, or "none".

    Raises:
        UserError: There is no stop list for a language.
    """
    if languages == "none":
        return frozenset()
    codes = [code.strip() for code in languages.split(",")]
    for code in codes:
        if not stopwordsiso.has_lang(code):
            raise UserError(
                f"No stop list for language '{code}'; known are {', '.join(sorted(stopwordsiso.langs()))}, or 'none'."
            )
    return frozenset(word.casefold() for word in stopwordsiso.stopwords(codes))
