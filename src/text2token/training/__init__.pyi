from .adaptation import adapt as adapt
from .baselines.run import fit_baseline as fit_baseline
from .distillation import distill as distill
from .pipeline import build_targets as build_targets
from .pipeline import fit as fit
