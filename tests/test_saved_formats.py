"""Folders that an earlier version wrote still open and give the vectors and hits that they gave then."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from text2token.model.embedder import Embedder
from text2token.search import Index

SAVED = Path(__file__).parent / "saved" / "format-1"


@pytest.fixture(scope="module")
def expected():
    return json.loads((SAVED / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", ["fit", "adapt", "baseline"])
def test_a_model_folder_gives_its_vectors(expected, folder):
    vectors = Embedder.open(SAVED / folder).encode(expected["texts"])
    np.testing.assert_allclose(vectors, expected[folder], atol=1e-6)


def test_sparse_vectors_have_their_tokens(expected):
    ids = Embedder.open(SAVED / "fit").encode_sparse(expected["texts"]).ids[:, :8]
    np.testing.assert_array_equal(ids, expected["sparse_ids"])


def test_an_index_gives_its_hits(expected, tmp_path):
    index = shutil.copytree(SAVED / "index", tmp_path / "index")  # to open it writes to its folder
    hits = Index.open(index, model=str(SAVED / "fit")).search(expected["query"]).hits
    assert [hit.id for hit in hits] == [name for name, _ in expected["hits"]]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected["hits"]], abs=1e-5)
