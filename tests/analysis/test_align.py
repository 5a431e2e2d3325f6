"""Alignment rates, token categories and the search for the head, against naive implementations and by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from scipy import sparse
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, ByT5Tokenizer, CohereConfig, CohereForCausalLM

from conftest import CORPUS, SENTENCES, refused, untrained, write_record
from text2token import Embedder, UserError
from text2token.analysis.alignment import AlignmentSettings, align, align_embeddings, draw_alignment, literal_tokens
from text2token.analysis.metrics import CATEGORIES, AlignmentRates, TokenCategories
from text2token.analysis.spectrum import Moments, contributions, principal_components, strongest_tokens
from text2token.cli import main
from text2token.data.corpus import Corpus
from text2token.model.correction import correction
from text2token.model.fingerprint import embedder_fingerprint
from text2token.model.head import DecodingHead
from text2token.model.names import from_anywhere
from text2token.model.packaged import PACKAGED, REFERENCES
from text2token.model.saved import is_saved
from text2token.model.static import static_encoder
from text2token.model.vocabulary import Vocabulary, read_vocabulary
from text2token.settings.recipe import Recipe
from text2token.settings.templates import Template
from text2token.utils.errors import PassingError

V = 12


def naive(logits, texts, groups, k, capped):
    """The metrics with sets, one text after another; ``texts`` are token ids with their repetitions."""
    hits, local, reached, present = [], [], set(), set()
    for row, text in zip(logits, texts, strict=True):
        best = {}
        for token, value in enumerate(row):
            best[groups[token]] = max(value, best.get(groups[token], -np.inf))
        ranked = sorted(best, key=lambda unit: -best[unit])
        own = {groups[token] for token in text}
        depth = min(k, len(text)) if capped else len(own)
        hits.append(bool(own & set(ranked[:k])))
        found = own & set(ranked[:depth])
        local.append(len(found) / len(own))
        reached |= found
        present |= own
    return {"hit": np.mean(hits), "local": np.mean(local), "global": len(reached) / len(present)}


def as_counts(texts):
    rows = [np.bincount(text, minlength=V) for text in texts]
    return sparse.csr_matrix(np.array(rows, dtype=np.float32))


@given(
    texts=st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=9), min_size=1, max_size=7),
    k=st.integers(1, V),
    capped=st.booleans(),
    merged=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rates_are_those_of_sets(texts, k, capped, merged, seed):
    groups = np.arange(V) // 2 if merged else np.arange(V)
    k = min(k, groups.max() + 1)
    logits = np.random.default_rng(seed).permutation(V * len(texts)).reshape(len(texts), V).astype(np.float32)
    rates = AlignmentRates(groups, k, capped)
    cut = len(texts) // 2
    for part in (slice(0, cut), slice(cut, None)):  # batches make no difference
        if texts[part]:
            rates.add(torch.from_numpy(logits[part]), as_counts(texts[part]))
    assert rates.rates() == pytest.approx(naive(logits, texts, groups, k, capped), abs=1e-6)


def test_rates_by_hand():
    logits = torch.tensor([[5.0, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]])
    counts = sparse.csr_matrix(np.array([[1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 3, 0]], dtype=np.float32))
    rates = AlignmentRates(np.arange(6), k=1)
    rates.add(logits, counts)
    # first text {0, 3}: first two aligned are 0, 1; second {0, 4}: 5, 4
    assert rates.rates() == {"hit": 0.5, "local": 0.5, "global": pytest.approx(2 / 3)}
    capped = AlignmentRates(np.arange(6), k=1, capped=True)
    capped.add(logits, counts)
    assert capped.rates() == {"hit": 0.5, "local": 0.25, "global": pytest.approx(1 / 3)}


def vocabulary(surfaces, stop_words=()):
    flags = np.zeros(len(surfaces), dtype=bool)
    return Vocabulary(
        exists=~flags,
        surfaces=tuple(surfaces),
        special=flags,
        byte_piece=flags,
        punctuation=np.array([s == "," for s in surfaces]),
        stop_word=np.array([s.strip() in stop_words for s in surfaces]),
        word_start=np.array([s.startswith(" ") for s in surfaces]),
    )


def test_categories_by_hand():
    words = vocabulary([" cat", "Cat", " the", ",", " dog", "ilantro"], stop_words={"the"})
    categories = TokenCategories(words, depth=4, common=0.5)
    logits = torch.log(torch.tensor([[0.1, 0.3, 0.2, 0.05, 0.25, 0.1], [0.05, 0.05, 0.4, 0.3, 0.05, 0.15]]))
    categories.add(logits, as_counts_of(6, [[0, 2], [2]]), logits)
    # text 1 reads Cat (a form of its own " cat"), dog, the, and cat or ilantro; text 2 reads the, ",", ilantro and one more
    shares = categories.shares()
    assert sum(shares.values()) == pytest.approx(1)
    ranks = categories.by_rank()
    assert ranks["literal, meaningful"][0] == 0.5
    assert ranks["literal, meaningless"][0] == 0.5
    assert ranks["derived"][1] == 0.5
    assert ranks["noise"][1] == 0.5
    assert all(sum(ranks[name][rank] for name in CATEGORIES) == pytest.approx(1) for rank in range(4))


def test_what_fits_every_text_is_noise():
    words = vocabulary([" cat", " dog", " thing"])
    logits = torch.tensor([[1.0, 0.0, 9.0]] * 10)
    rare, common = TokenCategories(words, 1, common=1.0), TokenCategories(words, 1, common=0.1)
    for categories in (rare, common):
        categories.add(logits, as_counts_of(3, [[0]] * 10), logits)
    assert rare.shares()["derived"] == 1
    assert common.shares()["noise"] == 1


def as_counts_of(size, texts):
    return sparse.csr_matrix(np.array([np.bincount(text, minlength=size) for text in texts], dtype=np.float32))


@pytest.mark.parametrize("family", ["llama", "gemma2", "bert"])
def test_align_reads_the_texts_own_tokens(backbone, family):
    embedder = Embedder.open(
        backbone(family),
        **Recipe(template="keywords", max_length=64).embedder_settings(),
        head="original",
        corrected=False,
    )
    words = read_vocabulary(embedder.tokenizer, embedder.vocabulary_size)
    counts = literal_tokens(embedder, SENTENCES, words, special=False)
    bare = [embedder.tokenizer(text, add_special_tokens=False)["input_ids"] for text in SENTENCES]
    assert [set(row.indices) for row in counts] == [set(ids) for ids in bare]
    special = literal_tokens(embedder, SENTENCES, words, special=True)
    added = {2} if family == "bert" else set()  # [CLS]; the mask stands in place of [SEP]
    assert [set(row.indices) for row in special] == [set(ids) | added for ids in bare]
    result = align(embedder, SENTENCES, AlignmentSettings(k=5))
    logits = embedder.decoding_head.uncapped(embedder.embed(SENTENCES)).numpy()
    assert result["rates"] == pytest.approx(naive(logits, bare, np.arange(len(words.special)), 5, False), abs=1e-6)
    assert sum(result["categories"].values()) == pytest.approx(1)
    assert result["texts"] == len(SENTENCES)
    centred = align(embedder, SENTENCES, AlignmentSettings(k=5, centred=True))
    expected = naive(logits - logits.mean(0), bare, np.arange(len(words.special)), 5, False)
    assert centred["rates"] == pytest.approx(expected, abs=1e-6)


def test_a_text_is_read_to_where_the_embedder_reads(backbone):
    embedder = Embedder.open(backbone("llama"), head="original", corrected=False, template=Template(), max_length=12)
    words = read_vocabulary(embedder.tokenizer, embedder.vocabulary_size)
    counts = literal_tokens(embedder, [" ".join(SENTENCES)], words, special=False)
    assert counts.sum() == 12


def test_a_default_prompt_takes_the_room_of_a_text(backbone):
    embedder = untrained(backbone("bert"), max_length=16)
    embedder.encoder.prompts, embedder.encoder.default_prompt_name = {"query": "the cat sat on: "}, "query"
    words = read_vocabulary(embedder.tokenizer, embedder.vocabulary_size)
    text = " ".join(SENTENCES)
    counts = literal_tokens(embedder, [text], words, special=False)
    read = embedder.encoder.preprocess([text], prompt="the cat sat on: ")["input_ids"][0].tolist()
    prompt = embedder.tokenizer("the cat sat on: ", add_special_tokens=False)["input_ids"]
    expected = np.bincount(read[1 + len(prompt) : -1], minlength=embedder.vocabulary_size)  # between [CLS] and [SEP]
    np.testing.assert_array_equal(counts.toarray()[0], expected)


def test_texts_without_a_token_are_left_out(backbone):
    embedder = Embedder.open(backbone("llama"), head="original", corrected=False, max_length=64)
    both = align(embedder, [*SENTENCES, ""])
    assert both["texts"] == len(SENTENCES)
    with pytest.raises(UserError, match="nothing to align"):
        align(embedder, [""])


def test_no_aligned_token_is_nothing_to_measure(backbone):
    with pytest.raises(UserError, match="`k` is 0: give a whole number"):
        align(untrained(backbone("llama")), SENTENCES, AlignmentSettings(k=0))


def test_the_head_of_a_trained_folder_is_the_original_one(backbone, tmp_path):
    embedder = untrained(backbone("llama"), max_length=64)
    embedder.calibrate(CORPUS[:40])
    embedder.save(tmp_path / "model")
    write_record(tmp_path / "model", backbone("llama"))
    found = Embedder.open(str(tmp_path / "model"), head="original", corrected=False)
    torch.testing.assert_close(found.decoding_head.weight, embedder.decoding_head.weight)
    torch.testing.assert_close(found.embed(SENTENCES), embedder.embed(SENTENCES), atol=1e-5, rtol=1e-4)
    (tmp_path / "model" / "run.json").unlink()
    named = Embedder.open(str(tmp_path / "model"), head=backbone("llama"), corrected=False)
    torch.testing.assert_close(named.decoding_head.weight, embedder.decoding_head.weight)


def test_a_sentence_transformer_is_read_before_its_corrections(backbone, tmp_path):
    embedder = untrained(backbone("qwen3"), max_length=64)
    shift = correction(["centre"], embedder.embed(CORPUS[:20]), embedder.decoding_head)
    SentenceTransformer(modules=[*embedder.encoder, shift, Normalize()]).save(
        str(tmp_path / "st"), create_model_card=False
    )
    card = f"---\nbase_model: {backbone('qwen3')}\n---\n"
    (tmp_path / "st" / "README.md").write_text(card)
    found = Embedder.open(str(tmp_path / "st"), head="original", corrected=False)
    torch.testing.assert_close(found.embed(SENTENCES), embedder.embed(SENTENCES), atol=1e-5, rtol=1e-4)
    (tmp_path / "st" / "README.md").write_text("---\nmodel-index: a: b\n---\n")  # no YAML
    with pytest.raises(UserError, match="No decoding head was found"):
        Embedder.open(str(tmp_path / "st"), head="original", corrected=False)
    (tmp_path / "st" / "README.md").unlink()
    with pytest.raises(UserError, match="No decoding head was found"):
        Embedder.open(str(tmp_path / "st"), head="original", corrected=False)
    with pytest.raises(UserError, match="dimensions"):
        Embedder.open(str(tmp_path / "st"), head=wider(backbone, tmp_path), corrected=False)


def test_an_adapter_names_the_model_with_the_head(backbone, tmp_path):
    encoder = untrained(backbone("llama"), max_length=64).encoder
    encoder[0].model.add_adapter(LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False))
    encoder.eval()
    encoder.save(str(tmp_path), create_model_card=False)
    found = Embedder.open(str(tmp_path), head="original", corrected=False)
    assert found.decoding_head.source == backbone("llama")
    np.testing.assert_allclose(found.embed(SENTENCES), encoder.encode(SENTENCES), atol=1e-5)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(UserError, match="Cannot load"):
        Embedder.open(str(tmp_path), head="original", corrected=False)


def test_a_missing_head_has_a_reason(backbone, tmp_path, monkeypatch):
    config = CohereConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    CohereForCausalLM(config).save_pretrained(tmp_path / "base")
    untrained(backbone("qwen3"), max_length=64).encoder.save(str(tmp_path / "st"), create_model_card=False)
    (tmp_path / "st" / "README.md").write_text(f"---\nbase_model: {tmp_path / 'base'}\n---\n")
    with pytest.raises(UserError, match=r"No decoding head .* a part that text2token does not know"):
        Embedder.open(str(tmp_path / "st"), head="original")

    def no_memory(name):
        raise PassingError("There is too little memory.")

    monkeypatch.setattr("text2token.model.original_head.load_head", no_memory)
    with pytest.raises(PassingError, match=r"^There is too little memory\.$"):
        Embedder.open(str(tmp_path / "st"), head="original")


def test_a_head_of_another_tokenizer_is_refused(backbone):
    said = refused("explain", backbone("llama"), SENTENCES[0], "--head", backbone("bert"))
    assert "has the tokens of another tokenizer" in said


def test_tokens_of_a_tokenizer_in_python_are_not_read(backbone, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    AutoModelForCausalLM.from_pretrained(backbone("llama")).save_pretrained(tmp_path / "llm")
    ByT5Tokenizer().save_pretrained(tmp_path / "llm")
    modules = [Transformer(str(tmp_path / "llm")), Pooling(32, "mean")]
    SentenceTransformer(modules=modules).save(str(tmp_path / "st"), create_model_card=False)
    model = tmp_path / "st", "--head", tmp_path / "llm"
    for command in (("explain", *model, "A cat.", "--filtered"), ("align", *model, "--corpus", tmp_path / "texts.txt")):
        assert "ByT5Tokenizer is no fast tokenizer" in refused(*command)
    embedder = Embedder.open(tmp_path / "st")
    assert embedder.encode(SENTENCES).shape == (len(SENTENCES), 32)
    assert embedder_fingerprint(embedder) == embedder_fingerprint(Embedder.open(tmp_path / "st"))


def test_a_token_that_an_embedder_added_has_no_row_in_the_head(backbone, tmp_path):
    grown = untrained(backbone("llama"), max_length=64)
    grown.tokenizer.add_tokens(["kubernetes"])
    grown.encoder[0].model.resize_token_embeddings(len(grown.tokenizer))
    grown.encoder.save(str(tmp_path / "st"), create_model_card=False)
    found = Embedder.open(str(tmp_path / "st"), head=backbone("llama"), corrected=False)
    texts = [f"{text} kubernetes" for text in SENTENCES]
    words = read_vocabulary(found.tokenizer, found.vocabulary_size)
    counted, bare = (
        literal_tokens(found, part, words, special=False) for part in (texts, [f"{text} " for text in SENTENCES])
    )
    assert (counted != bare).nnz == 0
    assert align(found, texts)["texts"] == len(texts)


def test_categories_weigh_tokens_by_the_probabilities_of_the_model(backbone):
    embedder = untrained(backbone("gemma2"), max_length=64)
    embedder.decoding_head.softcap = 2.0
    found = align(embedder, SENTENCES)
    logits = embedder.decoding_head.uncapped(embedder.embed(SENTENCES))
    probabilities = torch.softmax(2 * torch.tanh(logits / 2), dim=1)
    words = read_vocabulary(embedder.tokenizer, embedder.vocabulary_size)
    counts = literal_tokens(embedder, SENTENCES, words, special=False)
    best, groups = logits.topk(10).indices, words.surface_groups
    literal = [np.isin(groups[row], groups[text.indices]) for row, text in zip(best, counts, strict=True)]
    mass = probabilities.gather(1, best).numpy()
    expected = mass[np.array(literal)].sum() / mass.sum()
    shares = found["categories"]
    assert shares["literal, meaningful"] + shares["literal, meaningless"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("forms", ["ids", "merged"])
def test_rows_without_a_token_change_nothing(backbone, forms):
    """Heads are often padded to a round number of rows. A real token can have a logit below the 0 of such a row."""
    plain = untrained(backbone("llama"), max_length=64)
    head = plain.decoding_head
    head.bias -= 100
    padded = Embedder(plain.encoder, DecodingHead(pad(head.weight, (0, 0, 0, 28)), pad(head.bias, (0, 28))))
    texts = [*SENTENCES, "cat \n dog", "x  \t y"]
    embeddings = plain.embed(texts)
    results = [
        align_embeddings(embedder, embeddings, texts, AlignmentSettings(forms=forms)) for embedder in (plain, padded)
    ]
    for measure in ("rates", "categories"):
        assert results[0][measure] == pytest.approx(results[1][measure], rel=1e-4)
    assert results[0]["categories_by_rank"] == results[1]["categories_by_rank"]
    assert plain.explain(texts, k=4) == padded.explain(texts, k=4)
    assert strongest_tokens(plain, embeddings) == strongest_tokens(padded, embeddings)
    moments = Moments.none(embeddings.shape[1])
    moments.add(embeddings, embeddings)
    components = principal_components(moments)
    assert contributions(plain, embeddings, components) == contributions(padded, embeddings, components)


def test_a_static_model_reads_whole_texts_without_special_tokens(backbone):
    embedder = untrained(backbone("llama"), max_length=64)
    tokenizer = embedder.tokenizer.backend_tokenizer
    static = Embedder(static_encoder(tokenizer, torch.randn(embedder.vocabulary_size, 32)), embedder.head)
    vocabulary = read_vocabulary(embedder.tokenizer, embedder.vocabulary_size)
    counts = literal_tokens(static, SENTENCES, vocabulary, special=True)
    expected = [np.bincount(tokenizer.encode(text, add_special_tokens=False).ids, minlength=embedder.vocabulary_size)
                * ~vocabulary.special for text in SENTENCES]  # fmt: skip
    np.testing.assert_array_equal(counts.toarray(), expected)


def test_a_sparse_folder_is_read_by_its_own_pooling(backbone, tmp_path):
    embedder = untrained(backbone("qwen3"), pooling="last", template=Template("", " is:"), max_length=64)
    embedder.calibrate(CORPUS[:40])
    embedder.save(tmp_path / "model")
    write_record(tmp_path / "model", backbone("qwen3"))
    for part in ("dense", "sparse"):
        found = Embedder.open(str(tmp_path / "model" / part), head="original", corrected=False)
        torch.testing.assert_close(found.embed(SENTENCES), embedder.embed(SENTENCES), atol=1e-5, rtol=1e-4)
        assert found.decoding_head.source == backbone("qwen3")


def test_a_local_backbone_is_found_from_another_folder(backbone, tmp_path, monkeypatch):
    shutil.copytree(backbone("llama"), tmp_path / "llm")
    monkeypatch.chdir(tmp_path)
    encoder = untrained("llm", max_length=64).encoder
    encoder.save(str(tmp_path / "model" / "dense"), create_model_card=False)
    write_record(tmp_path / "model", "llm", source=from_anywhere("llm"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Embedder.open(str(tmp_path / "model"), head="original", corrected=False).decoding_head.source == str(
        tmp_path / "llm"
    )
    (tmp_path / "llm").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=f"in {tmp_path}/llm or "):
        Embedder.open(str(tmp_path / "model"), head="original", corrected=False)


def test_the_hub_is_asked_about_unknown_names_only(backbone, tmp_path, monkeypatch):
    def call(*arguments, **settings):
        raise AssertionError("a call to the hub")

    for place in ("sentence_transformers.util.file_io.hf_hub_download", "huggingface_hub.repocard.hf_hub_download"):
        monkeypatch.setattr(place, call)
    assert not any(is_saved(name) for name in (*PACKAGED, "model.gguf", "S.GGUF", backbone("llama"), str(tmp_path)))
    assert all(is_saved(name) for name in REFERENCES)
    encoder = untrained(backbone("llama"), max_length=64).encoder
    encoder.save(str(tmp_path / "st"), create_model_card=False)
    monkeypatch.chdir(tmp_path)
    assert Embedder.open("st", head="original", corrected=False).decoding_head.source == str(Path("st"))
    with pytest.raises(AssertionError, match="a call to the hub"):
        is_saved("owner/unknown")


def test_spectrum_and_the_like_need_no_head(backbone, tmp_path):
    encoder = untrained(backbone("bert"), max_length=64).encoder
    encoder.save(str(tmp_path / "st"), create_model_card=False)
    assert Embedder.open(str(tmp_path / "st"), corrected=False).head is None
    with pytest.raises(UserError, match="No decoding head was found"):
        Embedder.open(str(tmp_path / "st"), head="original", corrected=False)


def wider(backbone, tmp_path):
    """A backbone of other dimensions."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(backbone("llama"))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "wider")
    tokenizer.save_pretrained(tmp_path / "wider")
    return str(tmp_path / "wider")


def test_the_command_writes_table_data_and_figure(backbone, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(CORPUS))
    models = [backbone("llama"), backbone("gpt2")]
    settings = ["--corpus", tmp_path / "texts.txt", "--texts", 30, "--max-length", 64, "--forms", "merged"]
    result = run("align", *models, *settings, "--output", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "Hit@10" in result.stdout
    written = json.loads((tmp_path / "a" / "align.json").read_text())
    assert list(written["models"]) == models
    settled = written["settings"]
    assert (settled["forms"], settled["recipe"]["max_length"], settled["recipe"]["seed"]) == ("merged", 64, 0)
    assert settled["corpus"]["fingerprint"] == Corpus.from_texts(CORPUS).fingerprint()
    assert (settled["corpus"]["texts"], settled["head"]) == (30, None)
    assert [written["models"][model]["head"] for model in models] == models
    assert {"versions", "command", "machine"} < set(written)
    assert (tmp_path / "a" / "align.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (tmp_path / "a" / "align.svg").read_bytes()
    as_json = json.loads(run("align", models[0], *settings, "--json").stdout)
    assert as_json[models[0]]["rates"] == written["models"][models[0]]["rates"]
    deep = run("align", models[0], *settings, "-k", 100_000)
    assert deep.exit_code == 2
    assert "lower -k, which is 100,000" in deep.stderr
    assert "nowhere" in refused("align", tmp_path / "nowhere", *settings)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="text2token")


def test_the_figure_shows_the_numbers():
    rates = {"hit": 0.9, "local": 0.4, "global": 0.2}
    kinds = dict(zip(CATEGORIES, (0.4, 0.3, 0.2, 0.1), strict=True))
    left, right = draw_alignment({"a": {"rates": rates, "categories": kinds}}, 10).axes
    assert sorted(bar.get_width() for bar in left.patches) == pytest.approx([0.2, 0.4, 0.9])
    assert [bar.get_width() for bar in right.patches] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [bar.get_x() for bar in right.patches] == pytest.approx([0, 0.4, 0.7, 0.9])
