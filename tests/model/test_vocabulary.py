"""Entries are told apart by what they are, in any alphabet."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from conftest import byte_bpe, word_piece
from text2token.model.tokens import count_tokens, first_tokens
from text2token.model.vocabulary import read_vocabulary, spell
from text2token.utils.errors import UserError


def by_surface(tokenizer, stop_words="en"):
    vocabulary = read_vocabulary(tokenizer, len(tokenizer) + 3, stop_words)
    return vocabulary, {surface: i for i, surface in enumerate(vocabulary.surfaces)}


def test_byte_level_bpe():
    vocabulary, index = by_surface(byte_bpe())
    assert vocabulary.meaningful[index[" cat"]]
    assert vocabulary.word_start[index[" cat"]]
    assert vocabulary.stop_word[index[" the"]]
    assert vocabulary.punctuation[index[","]]
    assert vocabulary.byte_piece[index["\ufffd"]]
    assert vocabulary.special[0]
    assert vocabulary.special[-3:].all()  # rows of the head beyond the tokenizer
    assert not vocabulary.meaningful[-1]


def test_word_piece_word_starts():
    tokenizer = word_piece()
    vocabulary, _index = by_surface(tokenizer)
    assert vocabulary.word_start[tokenizer.convert_tokens_to_ids("cat")]
    continuation = next(i for t, i in tokenizer.get_vocab().items() if t.startswith("##"))
    assert not vocabulary.word_start[continuation]
    assert vocabulary.special[[0, 1, 2, 3, 4]].all()


def word_level(words):
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["a", *words])}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("word", ["кошка", "猫", "قطة", "γάτα", "बिल्ली", "7", "naïve"])
def test_letters_of_any_alphabet_are_meaningful(word):
    vocabulary, _ = by_surface(word_level([word]))
    assert vocabulary.meaningful[1]


@pytest.mark.parametrize("mark", ["。", "—", "«", "🙂", "...", "$", "\u200b"])
def test_marks_are_not(mark):
    vocabulary, _ = by_surface(word_level([mark]))
    assert vocabulary.punctuation[1]


def test_surface_forms_share_a_group_and_fragments_have_no_word_of_their_own():
    vocabulary, _ = by_surface(byte_bpe())
    groups, surfaces = vocabulary.surface_groups, vocabulary.surfaces
    the = {i for i, s in enumerate(surfaces) if s.strip().casefold() == "the"}
    assert len(the) >= 2
    assert len({groups[i] for i in the}) == 1
    words = {s.strip().casefold() for s in surfaces if s[:1] == " "}
    fragments = [s for s, fragment in zip(surfaces, vocabulary.fragment, strict=True) if fragment]
    assert fragments
    assert not any(s.strip().casefold() in words for s in fragments)


def test_byte_pieces_look_alike_and_are_different_entries():
    vocabulary, _ = by_surface(byte_bpe())
    pieces = vocabulary.byte_piece.nonzero()[0]
    assert len(pieces) > 1
    assert len(set(vocabulary.surface_groups[pieces])) == len(pieces)
    assert not set(vocabulary.surface_groups[pieces]) & set(vocabulary.surface_groups[~vocabulary.byte_piece])


def test_stop_lists():
    german, _index = by_surface(word_level(["und", "the"]), "de")
    assert german.stop_word.tolist()[1:3] == [True, False]
    none, _ = by_surface(word_level(["und", "the"]), "none")
    assert not none.stop_word.any()
    with pytest.raises(UserError, match="No stop list for language 'xx'"):
        read_vocabulary(word_level(["a"]), 2, "en,xx")


def test_markup_among_the_added_tokens_is_no_word():
    tokenizer = byte_bpe()
    tokenizer.add_tokens(["<table>", "[multimodal]", "kubernetes"])
    vocabulary = read_vocabulary(tokenizer, len(tokenizer))
    assert vocabulary.special[-3:].tolist() == [True, True, False]
    assert vocabulary.meaningful[-3:].tolist() == [False, False, True]


def test_entries_of_sentence_piece_show_where_a_word_starts():
    words = {"<unk>": 0, "a": 1, "in": 2, "▁a": 3, "▁in": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )  # as of Llama 2
    assert spell(PreTrainedTokenizerFast(tokenizer_object=tokenizer), [2, 4]) == ["in", " in"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("limit", [None, 3, 12])
def test_counts_do_not_depend_on_what_the_tokenizer_did_before(side, limit):
    tokenizer = byte_bpe()
    tokenizer.model_max_length, tokenizer.padding_side = 8, side
    texts = ["cat", "The cat sat on the warm mat near the window, and more and more."]
    fresh = count_tokens(tokenizer, texts, len(tokenizer), limit).toarray()
    tokenizer(texts, padding=True, truncation=True)  # as an encoder calls it
    after = count_tokens(tokenizer, texts, len(tokenizer), limit).toarray()
    assert (after == fresh).all()


@pytest.mark.parametrize("make", [byte_bpe, word_piece])
@pytest.mark.parametrize("number", [1, 3, 100])
def test_the_first_tokens_of_a_text_are_those_of_its_beginning(make, number):
    tokenizer = make()
    texts = ["The cat sat on the mat.", "Rates of interest, again", "cat", ""]
    tokenizer(texts, padding=True, truncation=True, max_length=2)  # leaves padding and truncation on
    begins = first_tokens(tokenizer, texts, number)
    assert all(text.startswith(begin) for text, begin in zip(texts, begins, strict=True))
    whole, cut = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (texts, begins))
    assert cut == [ids[:number] for ids in whole]
    assert begins[2:] == texts[2:] or make is byte_bpe
