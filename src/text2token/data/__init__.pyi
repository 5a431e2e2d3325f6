from .corpus import Corpus as Corpus
from .corpus import open_corpus as open_corpus
from .corpus import sample as sample
from .rows import Row as Row
from .rows import TextCheck as TextCheck
from .sts import ScoredPairs as ScoredPairs
from .sts import read_sts as read_sts
from .tables import read_table as read_table
