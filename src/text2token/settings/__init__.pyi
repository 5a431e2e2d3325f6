from .recipe import Recipe as Recipe
from .search import VectorSettings as VectorSettings
from .templates import TEMPLATES as TEMPLATES
from .templates import Template as Template
