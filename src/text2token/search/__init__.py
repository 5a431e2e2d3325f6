"""Search with readable vectors: sparse, dense, BM25 and hybrid."""

from text2token.search.documents import Columns, Document, read_documents
from text2token.search.engine import Hit
from text2token.search.fusion import Fusion
from text2token.search.index import Index
from text2token.search.reasons import Found, Match
from text2token.settings.search import VectorSettings

__all__ = ["Columns", "Document", "Found", "Fusion", "Hit", "Index", "Match", "VectorSettings", "read_documents"]
