"""Words of the BM25 field in many languages and scripts."""

from __future__ import annotations

import unicodedata

import bm25s
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st

from conftest import SENTENCES, untrained
from text2token import UserError
from text2token.search import Document, Index, Match
from text2token.search.bm25 import WordSplitter
from text2token.search.reasons import snippet
from text2token.settings.search import LANGUAGES
from text2token.settings.templates import Template


@pytest.mark.parametrize("format_1", [True, False])
def test_english_words_are_those_of_bm25s(format_1):
    texts = [*SENTENCES, "The CATS' running_banks: 3 of 42 x-rays, isn't it?"]
    options = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "return_ids": False, "show_progress": False}
    assert WordSplitter("english", format_1=format_1).split(texts) == bm25s.tokenize(texts, **options)


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("english", "The cats of running banks", ["cat", "run", "bank"]),
        ("german", "Die Häuser und die Katzen", ["haus", "katz"]),
        ("german", "Ich muß, daß er SCHLIEßT", ["schliesst"]),
        ("greek", "Ο ΣΚΥΛΟΣ της πόλης, ως φίλος", ["σκυλ", "πολ", "φιλ"]),
        ("none", "The cats", ["the", "cats"]),
        ("english", "東京都 is large", ["東京", "京都", "larg"]),
        ("none", "猫", ["猫"]),
        ("none", "ｶﾀｶﾅ ﬁnd", ["カタ", "タカ", "カナ", "find"]),
        ("none", "ที่นี่", ["ที่นี่"]),
        ("hindi", "हिन्दी", ["हिन्द"]),
        ("none", "서울 시청", ["서울", "시청"]),
    ],
)
def test_words_of_a_language(language, text, words):
    assert WordSplitter(language).split([text]) == [words]


def test_words_of_an_index_of_format_1_stay_as_they_were():
    assert WordSplitter(format_1=True).split(["東京都 cafe\u0301"]) == [["東京都", "cafe"]]


def test_every_language_can_be_opened_and_an_unknown_one_is_refused():
    assert [WordSplitter(language).split([""]) for language in LANGUAGES] == [[[]]] * len(LANGUAGES)
    with pytest.raises(UserError, match="no language 'klingon': choose among arabic, "):
        WordSplitter("klingon")


@given(st.text())
def test_composed_and_decomposed_characters_give_the_same_words(text):
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    composed, decomposed = WordSplitter("french").split(forms)
    assert composed == decomposed


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("最初の文です。" * 60 + "望遠鏡で銀河を見る。" + "次の文です。" * 60, "望遠"),
        ("这是一句话。" * 60 + "望远镜看到了银河系。" + "另一句话。" * 60, "望远"),
        ("ประโยคแรก" * 60 + "กล้องโทรทรรศน์" + "ประโยคต่อไป" * 60, "กล้อง"),
        ("短い 文です。" + "文です。" * 80 + "望遠鏡", "望遠"),
    ],
)
def test_snippets_of_scripts_without_spaces_show_their_match(text, match):
    shown = snippet(text, [Match(match, "bm25", 1.0)])
    assert match in shown
    assert 100 < len(shown) <= 210 or shown.endswith(text[-3:])


@given(st.text(alphabet="ab 東京猫é\n", max_size=600), st.sampled_from(["ab", "東京", "é"]))
def test_a_snippet_is_short_and_of_the_text(text, token):
    shown = snippet(text, [Match(token, "bm25", 1.0)]).removeprefix("… ").removesuffix(" …")
    assert shown in " ".join(text.split())
    assert len(shown) <= 200


def test_an_index_keeps_its_language(tmp_path, backbone):
    settings = {"encoder": {"template": Template(), "pooling": "mean"}}
    index = Index.create(tmp_path / "i", backbone("llama"), language="german", **settings)
    texts = ["Die Häuser am Fluss", "Die Katze schläft", "東京都の地図", "Un cafe\u0301 noir"]
    index.add([Document(str(i), "", text) for i, text in enumerate(texts)])
    again = Index.open(tmp_path / "i", embedder=untrained(backbone("llama")))
    for query, found in {"Haus": ["0"], "Katzen": ["1"], "京都": ["2"], "caf\u00e9": ["3"], "die": []}.items():
        assert [hit.id for hit in again.search(query, mode="bm25").hits] == found
    matches = again.search("caf\u00e9", mode="sparse").hits[0].matches
    assert again.search("caf\u00e9", mode="sparse", inference_free=True).hits[0].id == "3"
    assert matches
    begun = Index.create(tmp_path / "j", backbone("llama"), language="german", **settings)
    begun._store.set(documents=1)
    with pytest.raises(UserError, match="unfinished index with another language"):
        Index.create(tmp_path / "j", backbone("llama"), **settings)
