"""Read what a folder with an adapter of PEFT says: such a folder holds changes of a model, and names this model."""

from __future__ import annotations

import json
from pathlib import Path


def base_of_adapter(folder: Path) -> str | None:
    """Return the name of the model that the adapter in a folder belongs to; None: there is no adapter, or it names none."""
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return base if isinstance(base, str) else None
