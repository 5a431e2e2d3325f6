"""Dense, sparse and readable: by hand, saved and loaded, with and without this package."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer, SparseEncoder, util

from conftest import CORPUS, DECODERS, MASKED, SENTENCES, untrained
from text2token import Corpus, Embedder, UserError
from text2token.model.correction import correction, spectral_filter
from text2token.model.fingerprint import embedder_fingerprint, known_fingerprints
from text2token.model.folders import dense_modules, head_modules
from text2token.model.head import DecodingHead
from text2token.model.spans import correction_sample
from text2token.settings.templates import TEMPLATES


def calibrated(path, steps=("centre", "filter"), **settings):
    embedder = untrained(path, template=TEMPLATES["keywords"], pooling="last", max_length=64, **settings)
    embedder.top_k = 12
    embedder.calibrate(CORPUS, steps, (0.1, 0.9))
    return embedder


@pytest.mark.parametrize("family", [*DECODERS, "gemma2", *MASKED])
def test_saved_folders_are_plain_and_give_the_same_vectors(backbone, family, tmp_path):
    embedder = calibrated(backbone(family))
    embedder.top_k = embedder.vocabulary_size  # of two tokens of one weight at a cut, rounding decides
    dense, sparse = embedder.encode(SENTENCES), embedder.encode_sparse(SENTENCES)
    embedder.save(tmp_path)
    assert not [f for f in tmp_path.rglob("*") if f.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "dense")).encode(SENTENCES), dense, atol=1e-5)
    rows = SparseEncoder(str(tmp_path / "sparse")).encode(SENTENCES, convert_to_sparse_tensor=False).numpy(force=True)
    ours = np.zeros_like(rows)
    np.put_along_axis(ours, sparse.ids.astype(int), sparse.weights, axis=1)
    np.testing.assert_allclose(rows, ours, atol=1e-4, rtol=1e-4)
    again = Embedder.open(tmp_path)
    assert again.top_k == embedder.top_k
    np.testing.assert_allclose(again.encode(SENTENCES), dense, atol=1e-5)
    np.testing.assert_allclose(again.encode_sparse(SENTENCES).weights, sparse.weights, atol=1e-4, rtol=1e-4)
    for read, expected in zip(again.explain(SENTENCES), embedder.explain(SENTENCES), strict=True):
        here, there, least = dict(read), dict(expected), min(weight for _, weight in expected)
        # equal weights may change places, the last one with one that is not shown
        for token in here.keys() | there.keys():
            assert here.get(token, least) == pytest.approx(there.get(token, least), rel=1e-4, abs=1e-4)


def test_the_sparse_folder_searches_with_sentence_transformers_alone(backbone, tmp_path):
    embedder = calibrated(backbone("llama"))
    embedder.save(tmp_path)
    model = SparseEncoder(str(tmp_path / "sparse"))
    found = util.semantic_search(
        model.encode_query(SENTENCES[:3]), model.encode_document(CORPUS[:40]), top_k=5, score_function=util.dot_score
    )
    rows = [np.zeros((len(texts), embedder.vocabulary_size)) for texts in (SENTENCES[:3], CORPUS[:40])]
    for row, texts in zip(rows, (SENTENCES[:3], CORPUS[:40]), strict=True):
        vectors = embedder.encode_sparse(texts)
        np.put_along_axis(row, vectors.ids.astype(int), vectors.weights, axis=1)
    best = np.sort(rows[0] @ rows[1].T, axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose([[hit["score"] for hit in hits] for hits in found], best, rtol=1e-3)


def test_a_folder_made_on_a_device_leaves_what_decodes_on_the_cpu(backbone):
    embedder = calibrated(backbone("bert"))
    dense, sparse = embedder.encode(SENTENCES), embedder.encode_sparse(SENTENCES)
    h = embedder.embed(SENTENCES)
    SentenceTransformer(modules=dense_modules(embedder.encoder, embedder.correction), device="meta")
    SparseEncoder(
        modules=[*embedder.encoder, *head_modules(embedder.decoding_head, embedder.require_calibration())],
        device="meta",
    )
    np.testing.assert_array_equal(embedder.densify(h).numpy(), dense)
    np.testing.assert_array_equal(embedder.sparsify(h).weights, sparse.weights)


def test_dense_and_sparse_by_hand(backbone):
    embedder = calibrated(backbone("llama"), ["centre"])
    h, mean = embedder.embed(SENTENCES), embedder.embed(correction_sample(CORPUS)).mean(0)
    torch.testing.assert_close(
        torch.from_numpy(embedder.encode(SENTENCES) @ embedder.encode(SENTENCES).T),
        torch.nn.functional.cosine_similarity((h - mean)[:, None], (h - mean)[None], dim=-1), atol=1e-4, rtol=1e-4,
    )  # fmt: skip
    logits = h @ embedder.head.weight.T
    expected = (logits - (embedder.embed(CORPUS) @ embedder.head.weight.T).mean(0)).relu().sort(dim=1, descending=True)
    sparse = embedder.encode_sparse(SENTENCES)
    np.testing.assert_allclose(sparse.weights, expected.values[:, :12].numpy(), atol=1e-4)


@pytest.mark.parametrize("number", [0, 1, 2, 8, 9, 20])
def test_logits_do_not_depend_on_how_many_embeddings_are_decoded_together(number):
    torch.manual_seed(0)
    head, h = DecodingHead(torch.randn(50, 6), torch.randn(50)), torch.randn(number, 6)
    expected = (h.double() @ head.weight.double().T + head.bias.double()).float()
    torch.testing.assert_close(head.uncapped(h), expected)
    torch.testing.assert_close(head.uncapped(h[None])[0], expected)  # as a language model decodes a text


def test_spectral_filter_keeps_the_middle():
    torch.manual_seed(0)
    axes = torch.linalg.qr(torch.randn(6, 6))[0]
    scales = torch.tensor([32.0, 16, 8, 4, 2, 1])
    head = DecodingHead(torch.randn(4000, 6) * scales @ axes.T)
    rows = spectral_filter(head, 1 / 6, 5 / 6)
    assert rows.shape == (4, 6)
    torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-5, rtol=0)
    assert (rows @ axes[:, 0]).abs().max() < 0.1
    assert (rows @ axes[:, 5]).abs().max() < 0.1
    torch.testing.assert_close(
        (spectral_filter(head, 0, 1) @ axes).abs(), torch.eye(6), atol=0.1, rtol=0
    )  # all, in order


def test_corrections_in_a_chain_are_those_one_after_another():
    torch.manual_seed(0)
    h, head = torch.randn(50, 6) + 3, DecodingHead(torch.randn(40, 6))
    mean = h.mean(0)
    chain = correction(["centre", "first-component", "filter"], h, head, (0.2, 0.9))
    first = torch.linalg.svd(h - mean)[2][0]
    rest = (h - mean) - torch.outer((h - mean) @ first, first)
    expected = rest @ spectral_filter(head, 0.2, 0.9).T
    torch.testing.assert_close(chain({"sentence_embedding": h})["sentence_embedding"], expected, atol=1e-4, rtol=1e-4)
    uncentred = correction(["first-component"], h, head)({"sentence_embedding": h})["sentence_embedding"]
    assert (uncentred @ torch.linalg.svd(h)[2][0]).abs().max() < 1e-4
    assert correction([], h, head) is None


def test_explain_filtered_shows_meaningful_tokens_only(backbone):
    embedder = calibrated(backbone("llama"))
    size = embedder.vocabulary_size
    shown = {token.token for row in embedder.explain(SENTENCES, k=size, filtered=True) for token in row}
    everything = {token.token for row in embedder.explain(SENTENCES, k=size) for token in row}
    assert shown < everything
    assert {" the", ",", " of"} & everything
    assert {" the", ",", " of"}.isdisjoint(shown)


def test_vectors_do_not_depend_on_batches(backbone, monkeypatch):
    embedder = calibrated(backbone("llama"))
    whole, said = embedder.encode_sparse(CORPUS[:9]), embedder.explain(CORPUS[:9])
    monkeypatch.setattr("text2token.model.decoding._DECODE_BATCH", 4)
    np.testing.assert_allclose(embedder.encode_sparse(CORPUS[:9]).weights, whole.weights, atol=1e-5)
    assert [len(row) for row in embedder.explain(CORPUS[:9])] == [len(row) for row in said]


def test_stop_words_of_an_explanation_are_those_of_its_language(backbone):
    embedder = calibrated(backbone("llama"))
    shown = embedder.explain(SENTENCES, k=embedder.vocabulary_size, filtered=True, stop_words="none")
    assert {" the", " of"} & {token.token for row in shown for token in row}
    assert "," not in {token.token for row in shown for token in row}


def test_no_text_is_no_vector_and_a_text_is_no_list(backbone):
    embedder = calibrated(backbone("llama"))
    assert embedder.encode([]).shape == (0, embedder.encode(SENTENCES).shape[1])
    assert embedder.encode_sparse([]).ids.shape == (0, embedder.top_k)
    assert embedder.explain([]) == []
    with pytest.raises(UserError, match="write \\[text\\]"):
        embedder.encode("The cat sat.")
    with pytest.raises(UserError, match=r"not a generator: write list\(texts\)"):
        embedder.encode(text for text in SENTENCES)  # which would be read to its end before it is encoded


def test_an_embedder_equals_itself_alone(backbone):
    one, other = untrained(backbone("llama")), untrained(backbone("llama"))
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2


def test_a_corpus_has_no_length_so_a_list_of_it_is_asked_for(backbone):
    embedder, corpus = untrained(backbone("llama")), Corpus.from_texts(SENTENCES)
    for call in (embedder.calibrate, embedder.encode, embedder.explain):
        with pytest.raises(UserError, match=r"A list of texts is expected, not a Corpus: write list\(texts\)"):
            call(corpus)
    embedder.calibrate(list(corpus))
    with pytest.raises(UserError, match=r"not a text alone: write \['centre', 'remove-2'\]"):
        embedder.calibrate(SENTENCES, "centre+remove-2")
    with pytest.raises(UserError, match="there is no correction 'center'"):
        embedder.calibrate(SENTENCES, ["center"])


def test_a_calibration_that_cannot_be_learned_is_refused(backbone):
    embedder = untrained(backbone("llama"))
    with pytest.raises(UserError, match="give at least one"):
        embedder.calibrate([])
    for keep in ((-0.5, 1), (0, 1.5), (float("nan"), 1)):
        with pytest.raises(UserError, match="give shares from 0 to 1"):
            embedder.calibrate(SENTENCES, ("filter",), keep)
    assert embedder.mean_logits is None


def test_sparse_vectors_need_a_corpus_mean(backbone):
    embedder = untrained(backbone("llama"))
    for make in (embedder.encode_sparse, lambda texts: embedder.sparsify(embedder.embed(texts))):
        with pytest.raises(UserError, match="above the mean of a corpus, and this model knows none"):
            make(SENTENCES)


@pytest.mark.parametrize(
    ("name", "damaged", "sentence"),
    [
        ("model", "model/sparse", "Cannot load"),
        ("model", "model/dense/2_Dense", "Cannot load"),
        ("model/dense", "model/dense", "Cannot load"),
        ("backbone", "backbone", "Cannot load"),
    ],
)
def test_damaged_weights_are_one_sentence(backbone, tmp_path, name, damaged, sentence):
    calibrated(backbone("llama")).save(tmp_path / "model")
    shutil.copytree(backbone("llama"), tmp_path / "backbone")
    file = tmp_path / damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=sentence):
        Embedder.open(str(tmp_path / name))


@pytest.mark.parametrize("file", ["modules.json", "2_Dense/config.json"])
@pytest.mark.parametrize("content", ["", "null", "{"])
def test_damaged_settings_of_the_correction_are_one_sentence(backbone, tmp_path, file, content):
    calibrated(backbone("llama")).save(tmp_path / "model")
    (tmp_path / "model" / "dense" / file).write_text(content)
    with pytest.raises(UserError, match=r"Cannot load .*model'.* is damaged"):
        Embedder.open(str(tmp_path / "model"))


def test_any_sentence_transformer_encodes_but_cannot_be_read(backbone, tmp_path):
    encoder = untrained(backbone("bert")).encoder
    encoder.save(str(tmp_path))
    embedder = Embedder.open(str(tmp_path))
    expected = encoder.encode(SENTENCES, normalize_embeddings=True)
    np.testing.assert_allclose(embedder.encode(SENTENCES), expected, atol=1e-5)
    with pytest.raises(UserError, match="no decoding head"):
        embedder.explain(SENTENCES)


def test_loading_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match="Cannot load"):
        Embedder.open(tmp_path)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_model_without_some_unused_weights_is_the_same_at_every_load(backbone, tmp_path, family):
    encoder = untrained(backbone(family)).encoder
    encoder[0].model.pooler = None  # as BERTs are that were trained without one
    encoder.save(str(tmp_path))
    for name in (backbone(family), str(tmp_path)):
        first, second = (embedder_fingerprint(Embedder.open(name)) for _ in range(2))
        assert first == second


def test_a_sparse_folder_alone_is_no_embedder(backbone, tmp_path):
    calibrated(backbone("llama")).save(tmp_path)
    with pytest.raises(UserError, match="is a SparseEncoder"):
        Embedder.open(str(tmp_path / "sparse"))


def test_the_head_of_a_saved_folder_has_the_norm_it_had(backbone, tmp_path):
    embedder = calibrated(backbone("bert"))  # whose layer norms add 1e-12, where sentence-transformers' add 1e-5
    embedder.save(tmp_path / "once")
    again = Embedder.open(tmp_path / "once")
    again.save(tmp_path / "twice")
    h = 1e-3 * embedder.embed(SENTENCES)  # so small that 1e-5 would count
    for loaded in (again, Embedder.open(tmp_path / "twice")):
        torch.testing.assert_close(loaded.logits(h), embedder.logits(h), atol=1e-4, rtol=1e-4)


def test_threads_share_an_embedder(backbone, monkeypatch):
    embedder = untrained(backbone("llama"))
    kind = type(embedder.tokenizer)
    change = kind.set_truncation_and_padding

    def change_slowly(self, **state):
        change(self, **state)
        time.sleep(0.001)  # another thread gets its turn before the texts are read

    lists = [SENTENCES[start % 3 :] for start in range(20)]
    expected = [embedder.embed(texts) for texts in lists]
    monkeypatch.setattr(kind, "set_truncation_and_padding", change_slowly)
    with ThreadPoolExecutor(4) as threads:
        for found, wanted in zip(threads.map(embedder.embed, lists), expected, strict=True):
            torch.testing.assert_close(found, wanted)


def test_a_fingerprint_is_the_same_after_the_model_has_read_texts(backbone):
    embedder = untrained(backbone("llama"))
    before = embedder_fingerprint(embedder)
    embedder.embed(SENTENCES)
    backend = embedder.tokenizer.backend_tokenizer
    left = backend.truncation, backend.padding
    assert any(left)
    assert embedder_fingerprint(embedder) == before
    assert (backend.truncation, backend.padding) == left


def test_a_fingerprint_survives_an_upgrade_and_old_ones_are_known(backbone, tmp_path, monkeypatch):
    calibrated(backbone("llama")).save(tmp_path)
    embedder = Embedder.open(tmp_path)
    first, *earlier = known_fingerprints(embedder)
    known = embedder_fingerprint(embedder, corrected=False, transformers_version=transformers.__version__)
    assert earlier == [known]
    monkeypatch.setattr(transformers.configuration_utils, "__version__", "99.0")  # what a configuration writes
    assert embedder_fingerprint(embedder, corrected=False) == first
    monkeypatch.setattr(transformers, "__version__", "99.0")
    assert set(earlier) < set(known_fingerprints(embedder))
