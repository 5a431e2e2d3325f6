"""Search with readable vectors: sparse, dense, BM25 and hybrid."""
