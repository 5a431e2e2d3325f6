from .decoding import AlignedToken as AlignedToken
from .decoding import SparseVectors as SparseVectors
from .embedder import Embedder as Embedder
from .head import DecodingHead as DecodingHead
