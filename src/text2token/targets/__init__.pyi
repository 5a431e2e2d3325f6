from .base import TargetBuilder as TargetBuilder
from .base import Targets as Targets
from .loss import token_target_loss as token_target_loss
from .store import TargetStore as TargetStore
