from .alignment import align as align
from .dynamics_report import read_dynamics as read_dynamics
from .explain import explain_instructions as explain_instructions
from .explain import explain_pair as explain_pair
from .spectrum_run import run_spectrum as run_spectrum
