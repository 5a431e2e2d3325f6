"""What makes two texts similar, and what an instruction changes: sums that are exact, lists that say what they claim."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console

from conftest import CORPUS, SENTENCES, byte_bpe, untrained, word_piece
from text2token import Embedder
from text2token.analysis.explain import (
    difference_parts,
    explain_instructions,
    explain_pair,
    similarity_parts,
)
from text2token.analysis.explain_sections import text_section
from text2token.cli import main
from text2token.cli.explain_tables import tables
from text2token.model.head import mean_logits
from text2token.model.vocabulary import read_vocabulary, spell
from text2token.utils.page import bars

PAIR = ("I like apple.", "I do not like apple.")
vectors = arrays(np.float64, 9, elements=st.floats(-100, 100)).filter(lambda v: np.abs(v).max() > 1e-3)


@pytest.fixture(scope="module", params=["llama", "bert"])
def embedder(backbone, request):
    embedder = untrained(backbone(request.param))
    embedder.mean_logits = mean_logits(embedder.decoding_head, embedder.embed(CORPUS[:20]))
    return embedder


@given(vectors, vectors)
def test_parts_sum_to_the_cosine_and_to_what_it_lacks(a, b):
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    first, second = torch.from_numpy(a), torch.from_numpy(b)
    assert float(similarity_parts(first, second).sum()) == pytest.approx(cosine, abs=1e-9)
    assert float(difference_parts(first, second).sum()) == pytest.approx(1 - cosine, abs=1e-9)
    assert difference_parts(first, second).min() >= 0
    swapped = similarity_parts(second, first)
    torch.testing.assert_close(swapped, similarity_parts(first, second))


def test_all_tokens_of_a_pair_sum_to_its_products(embedder):
    size = embedder.vocabulary_size
    reading = explain_pair(embedder, PAIR, k=size)
    first, second = embedder.logits(embedder.embed(PAIR)).double().numpy()
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    assert reading.dot == pytest.approx(first @ second)
    assert reading.cosine == pytest.approx(first @ second / lengths)
    assert sum(token.part for token in reading.in_first + reading.in_second) == pytest.approx(1 - reading.cosine)
    positive = np.maximum(first * second / lengths, 0).sum()
    assert sum(token.part for token in reading.alike) == pytest.approx(positive)  # those below 0 make nobody alike
    for token in reading.alike[:20]:
        assert token.part * lengths == pytest.approx(token.first * token.second)
    for tokens in (reading.alike, reading.in_first, reading.in_second):
        assert [token.part for token in tokens] == sorted((token.part for token in tokens), reverse=True)
    leaning = first / np.linalg.norm(first) - second / np.linalg.norm(second)
    assert len(reading.in_first) == (leaning > 0).sum()
    assert len(reading.in_second) == (leaning < 0).sum()


def test_a_text_differs_from_itself_in_nothing(embedder):
    reading = explain_pair(embedder, (SENTENCES[0], SENTENCES[0]))
    assert reading.cosine == pytest.approx(1)
    assert reading.in_first == reading.in_second == []


def test_a_swapped_pair_swaps_what_is_different(embedder):
    one, other = explain_pair(embedder, PAIR), explain_pair(embedder, PAIR[::-1])
    assert [token.token for token in one.in_first] == [token.token for token in other.in_second]
    assert one.cosine == pytest.approx(other.cosine)


def test_filtered_shows_meaningful_tokens_and_leaves_the_sums(embedder):
    all_, filtered = explain_pair(embedder, PAIR), explain_pair(embedder, PAIR, filtered=True)
    vocabulary = read_vocabulary(embedder.tokenizer, embedder.vocabulary_size)
    meaningful = {vocabulary.surfaces[i] for i in np.flatnonzero(vocabulary.meaningful)}
    assert (filtered.cosine, filtered.dot) == (all_.cosine, all_.dot)
    assert all(token.token in meaningful for token in filtered.alike + filtered.in_first + filtered.in_second)
    assert any(token.token not in meaningful for token in all_.alike + all_.in_first + all_.in_second)


def test_an_instruction_is_the_prompt_of_sentence_transformers(embedder):
    instruction = "Find what is similar to"
    readings = explain_instructions(embedder, SENTENCES[0], [instruction], k=5)
    assert list(readings) == ["", instruction]
    bare = embedder.logits(embedder.embed(SENTENCES[:1]))[0]
    vector = embedder.encoder.encode(SENTENCES[0], prompt=f"{instruction} ", convert_to_tensor=True)
    instructed = embedder.logits(vector[None].cpu())[0]
    torch.testing.assert_close(embedder.embed([f"{instruction} {SENTENCES[0]}"])[0], vector.cpu())
    reading = readings[instruction]
    assert [w for _, w in reading.tokens] == pytest.approx(instructed.topk(5).values.tolist(), rel=1e-4)
    assert [token.token for token in reading.rose] != [token.token for token in reading.fell]
    seen = {i for z in (bare, instructed) for i in z.topk(embedder.top_k).indices.tolist() if z[i] > 0}
    assert reading.rose[0].part == pytest.approx(max(float(instructed[i] - bare[i]) for i in seen), rel=1e-3)
    for token in reading.rose:
        assert token.second - token.first == pytest.approx(token.part, rel=1e-3)
    for token in reading.fell:
        assert token.first - token.second == pytest.approx(token.part, rel=1e-3)


def test_no_instruction_changes_nothing(embedder):
    (reading,) = explain_instructions(embedder, SENTENCES[0], [], k=4).values()
    assert reading.rose == reading.fell == []
    ours, theirs = reading.tokens, embedder.explain(SENTENCES[:1], k=4)[0]
    assert [token for token, _ in ours] == [token for token, _ in theirs]


def test_no_instruction_is_no_prompt(backbone):
    embedder = untrained(backbone("bert"))
    encoder = embedder.encoder
    encoder.prompts, encoder.default_prompt_name = {"query": "find this text now: "}, "query"
    reading = explain_instructions(embedder, SENTENCES[0], ["On music:"], k=3)[""]
    bare, prompted = (
        embedder.logits(encoder.encode(SENTENCES[:1], prompt=prompt, convert_to_tensor=True).cpu())[0]
        for prompt in ("", None)
    )
    assert [weight for _, weight in reading.tokens] == pytest.approx(bare.topk(3).values.tolist(), rel=1e-4)
    assert bare.max() != pytest.approx(float(prompted.max()), rel=1e-4)


def test_plain_logits_below_zero_are_read_as_well(backbone, tmp_path):
    """GPT-2 gives all of its tokens negative logits; only their order says anything."""
    embedder = untrained(backbone("llama"))
    before = explain_instructions(embedder, SENTENCES[0], ["On music:"], k=4)
    embedder.head.bias -= 1000
    reading = explain_instructions(embedder, SENTENCES[0], ["On music:"], k=4)["On music:"]
    logits = embedder.logits(embedder.embed(SENTENCES[:1]))[0]
    assert logits.max() < 0
    (tokens,) = embedder.explain(SENTENCES[:1], k=4)
    assert [weight for _, weight in tokens] == pytest.approx(logits.topk(4).values.tolist())
    for name in ("tokens", "rose", "fell"):
        expected = [token.token for token in getattr(before["On music:"], name)]
        assert [token.token for token in getattr(reading, name)] == expected
    shown = Console(record=True, file=io.StringIO(), width=120)
    shown.print(*tables(text_section(SENTENCES[0], {"model": tokens}), shown))
    assert all(f"{weight:.2f}" in shown.export_text(clear=False) for _, weight in tokens)
    assert [bar.percent for bar in bars(tokens, "")] == [0] * 4


@pytest.mark.parametrize("make", [byte_bpe, word_piece])
@pytest.mark.parametrize("text", ["running cat", "The cat can't e-mail (stars).", "a,b"])
def test_every_piece_of_a_text_is_spelled_in_it(make, text):
    tokenizer = make()
    pieces = spell(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])
    shown = [(piece, 1.0) for piece in pieces if piece.strip() not in ("", "[UNK]")]  # the corpus has no apostrophe
    assert [bar.token for bar in bars(shown, text) if not bar.in_text] == []


def test_a_word_is_not_spelled_in_the_middle_of_another_one():
    tokenizer = word_piece()
    pieces = spell(tokenizer, tokenizer.convert_tokens_to_ids(["at", "##a"]))
    assert [bar.in_text for bar in bars([(piece, 1.0) for piece in pieces], "the cat")] == [False, True]
    assert next(bars([(" 好", 1.0)], "猫が好き")).in_text


def test_what_moves_far_below_both_sparse_vectors_is_not_shown(embedder, monkeypatch):
    monkeypatch.setattr(embedder, "top_k", 3)
    texts = [SENTENCES[0], f"On music: {SENTENCES[0]}"]
    seen = {token for tokens in embedder.explain(texts, k=3) for token, _ in tokens}
    reading = explain_instructions(embedder, SENTENCES[0], ["On music:"], k=50)["On music:"]
    assert {token.token for token in reading.rose + reading.fell} <= seen


# --- the command ------------------------------------------------------------------------------------------------------


def text2token(*arguments, **settings):
    return CliRunner().invoke(main, ["explain", *map(str, arguments)], prog_name="text2token", **settings)


def test_pairs_under_two_models_as_json(backbone):
    models = [backbone("llama"), backbone("bert")]
    said = text2token(models[0], "--against", models[1], "--pair", *PAIR, "-k", 3, "--json")
    (row,) = json.loads(said.stdout)
    assert row["pair"] == list(PAIR)
    for model in models:
        reading = explain_pair(Embedder.open(model), PAIR, k=3)
        assert row["readings"][model]["cosine"] == pytest.approx(reading.cosine)
        assert row["readings"][model]["in_first"] == [token._asdict() for token in reading.in_first]


def test_a_terminal_of_80_columns_cuts_nothing_off(backbone):
    models = [backbone("llama"), backbone("bert")]
    pair = text2token(models[0], "--pair", *PAIR, "-k", 3, env={"COLUMNS": "80"}).stdout
    (row,) = json.loads(text2token(models[0], "--pair", *PAIR, "-k", 3, "--json").stdout)
    parts = [token["part"] for key in ("alike", "in_first", "in_second") for token in row["readings"][models[0]][key]]
    assert all(f" {1e6 * part:.2f} " in pair for part in parts)
    assert "…" not in pair
    beside = text2token(models[0], SENTENCES[0], "--against", models[1], "-k", 3, env={"COLUMNS": "80"}).stdout
    headings = [line.split("┃") for line in beside.splitlines() if line.startswith("┃")]
    assert ["".join(line[place].strip() for line in headings) for place in (1, 3)] == models


def test_many_lists_are_shown_in_several_tables():
    lists = {f"list{number}": [("token" * 30, 1e6 + number)] for number in range(9)}
    shown = Console(record=True, file=io.StringIO(), width=80)
    shown.print(*tables(text_section("text", lists), shown))
    said = shown.export_text()
    assert max(map(len, said.splitlines())) <= 80
    assert all(f" {1e6 + number:.2f} " in said and f"list{number}" in said for number in range(9))
    assert "…" not in said


def test_texts_instructions_and_pairs_on_the_terminal_and_as_a_page(backbone, tmp_path):
    arguments = (backbone("llama"), "bad <b>text</b>", "--instruction", "On [music]:", "--pair", *PAIR, "-k", 4)
    said = text2token(*arguments, env={"COLUMNS": "250"})
    assert said.exit_code == 0, said.output
    for part in (
        "bad <b>text</b>",
        "no instruction",
        "On [music]:",
        "rose by",
        "fell by",
        *PAIR,
        "alike",
        "in the second",
    ):
        assert part in said.stdout
    page = tmp_path / "page.html"
    assert text2token(*arguments, "--html", page).exit_code == 0
    html = page.read_text(encoding="utf-8")
    assert "bad &lt;b&gt;text&lt;/b&gt;" in html
    assert "prefers-color-scheme: dark" in html
    assert re.findall(r"https?://|url\((?!#)|@import|<script|<link", html) == []
    assert html.count("<article") == 3  # under each instruction, what it changed, the pair
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_corpus_gives_a_zero_to_a_model_that_knows_none(backbone, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"body": text}) for text in SENTENCES))
    line = (backbone("llama"), SENTENCES[0], "--corpus", texts, "-k", 3, "--json")
    said = json.loads(text2token(*line, "--text-column", "body").stdout)
    embedder = Embedder.open(backbone("llama"))
    embedder.mean_logits = embedder.logits(embedder.embed(SENTENCES)).mean(dim=0)
    expected = embedder.explain(SENTENCES[:1], k=3)[0]
    assert [token for token, _ in said[0]["tokens"][backbone("llama")]] == [token for token, _ in expected]


def test_a_sentence_transformer_is_read_with_the_head_it_is_given(backbone, tmp_path):
    embedder = untrained(backbone("qwen3"))
    embedder.encoder.save(str(tmp_path / "plain"))
    without = text2token(tmp_path / "plain", SENTENCES[0])
    assert without.exit_code == 2
    assert "No decoding head was found" in without.stderr
    said = text2token(tmp_path / "plain", SENTENCES[0], "--head", backbone("qwen3"), "-k", 4, "--json")
    ours = [tuple(pair) for pair in json.loads(said.stdout)[0]["tokens"][str(tmp_path / "plain")]]
    assert [token for token, _ in ours] == [token for token, _ in embedder.explain(SENTENCES[:1], k=4)[0]]
    (tmp_path / "plain" / "README.md").write_text(f"---\nbase_model: {backbone('qwen3')}\n---\n")
    found = text2token(tmp_path / "plain", SENTENCES[0], "-k", 4, "--json")
    assert json.loads(found.stdout) == json.loads(said.stdout)


def test_one_model_is_read_by_two_heads(backbone, tmp_path):
    own, other = backbone("qwen3"), backbone("llama")
    untrained(own).encoder.save(str(tmp_path))
    heads = ("--head", own, "--against", tmp_path, "--against-head", other)
    read = json.loads(text2token(tmp_path, SENTENCES[0], *heads, "--json").stdout)[0]["tokens"]
    first, second = read.values()
    assert list(read) == [str(tmp_path), f"{tmp_path}, read by {other}"]
    assert first != second


def test_a_fitted_folder_is_read_above_its_corpus_mean(backbone, tmp_path):
    embedder = untrained(backbone("llama"))
    embedder.calibrate(CORPUS[:40])
    embedder.save(tmp_path / "model")
    said = json.loads(text2token(tmp_path / "model", SENTENCES[0], "-k", 4, "--json").stdout)
    ours = [token for token, _ in said[0]["tokens"][str(tmp_path / "model")]]
    assert ours == [token for token, _ in embedder.explain(SENTENCES[:1], k=4)[0]]


def test_a_corpus_that_no_model_needs_is_refused(backbone, tmp_path):
    embedder = untrained(backbone("llama"))
    embedder.calibrate(CORPUS[:40])
    embedder.save(tmp_path / "model")
    said = text2token(tmp_path / "model", SENTENCES[0], "--corpus", "no/such.txt")
    assert (said.exit_code, said.stdout) == (2, "")
    assert f"models that have none of their own: leave it out for '{tmp_path / 'model'}'." in said.stderr
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    beside = ("--against", backbone("llama"), "--corpus", tmp_path / "texts.txt", "--json")
    read = json.loads(text2token(tmp_path / "model", SENTENCES[0], *beside).stdout)[0]["tokens"]
    alone = json.loads(text2token(tmp_path / "model", SENTENCES[0], "--json").stdout)[0]["tokens"]
    assert read[str(tmp_path / "model")] == alone[str(tmp_path / "model")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("MODEL",), "Missing argument 'TEXTS...', or --pair"),
        (("MODEL", "--pair", "one"), "'--pair' requires 2 arguments"),
        (("MODEL", "--pair", "one", " "), "Error: The text ' ' is empty: leave it out."),
        (("MODEL", "text", "--instruction", ""), "Error: The instruction '' is empty: leave it out."),
        (("MODEL", "text", "--head", "no-such"), "no-such"),
        (("MODEL", "text", "--corpus", "no/such.txt"), "does not exist"),
        (("MODEL", "text", "--html", "."), "is a directory"),
    ],
)
def test_what_is_wrong_is_one_sentence(backbone, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    said = text2token(*(part.replace("MODEL", backbone("llama")) for part in arguments))
    assert (said.exit_code, said.stdout) == (2, "")
    assert sentence in said.stderr
    assert list(tmp_path.iterdir()) == []
