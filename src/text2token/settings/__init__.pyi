from .recipe import Recipe as Recipe
from .record import RunRecord as RunRecord
from .record import SpectrumRecord as SpectrumRecord
from .search import LANGUAGES as LANGUAGES
from .search import Calibration as Calibration
from .search import VectorSettings as VectorSettings
from .templates import TEMPLATES as TEMPLATES
from .templates import Template as Template
