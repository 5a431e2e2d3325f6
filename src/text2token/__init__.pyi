from .data.corpus import Corpus as Corpus
from .model.embedder import Embedder as Embedder
from .settings.recipe import Recipe as Recipe
from .training.pipeline import build_targets as build_targets
from .training.pipeline import fit as fit
from .utils.errors import UserError as UserError

__version__: str
