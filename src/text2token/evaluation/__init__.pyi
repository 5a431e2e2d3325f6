from .comparison import compare as compare
from .judge import evaluate as evaluate
