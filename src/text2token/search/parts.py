"""Long texts in parts that a model reads whole."""

from __future__ import annotations

from semantic_text_splitter import TextSplitter
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer


def part_splitter(encoder: SentenceTransformer) -> TextSplitter:
    """Cuts a text into parts, each as long as the encoder's length allows with its template around.

    Cuts are made where the text has its largest border: paragraph, line, sentence, and inside a sentence that is longer than
    the model between words. Only white space at the borders is left out. ``splitter.chunks(text)`` gives the parts.
    """
    room = encoder.max_seq_length - len(encoder.tokenizer("")["input_ids"])
    return TextSplitter.from_huggingface_tokenizer(untruncated(encoder.tokenizer.backend_tokenizer), room)


def untruncated(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that cuts and pads nothing; sentence-transformers sets both on the one it encodes with."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy
