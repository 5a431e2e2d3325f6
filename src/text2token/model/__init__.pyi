from .embedder import AlignedToken as AlignedToken
from .embedder import Embedder as Embedder
from .embedder import SparseVectors as SparseVectors
from .head import DecodingHead as DecodingHead
