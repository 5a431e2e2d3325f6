from .documents import Columns as Columns
from .documents import Document as Document
from .documents import read_documents as read_documents
from .engine import Hit as Hit
from .fusion import Fusion as Fusion
from .index import Index as Index
from .reasons import Found as Found
from .reasons import Match as Match
