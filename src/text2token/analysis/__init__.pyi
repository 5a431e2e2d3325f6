from .alignment import AlignmentSettings as AlignmentSettings
from .alignment import align as align
from .alignment import write_alignment as write_alignment
from .dynamics_report import read_dynamics as read_dynamics
from .dynamics_report import write_dynamics as write_dynamics
from .explain import explain_instructions as explain_instructions
from .explain import explain_pair as explain_pair
from .spectrum_run import run_spectrum as run_spectrum
