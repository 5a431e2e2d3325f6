"""The one shape of benchmarks/results/*.json."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from text2token.utils import provenance
from text2token.utils.files import write_json

RESULTS = Path(__file__).parent / "results"


def data_checksums(root: Path, names: list[str]) -> dict[str, str]:
    """By name what :func:`text2token.utils.provenance.data_checksum` gives for each file or folder."""
    return {name: provenance.data_checksum(root / name) for name in names}


def write_results(name: str, seed: int, data: dict[str, str], figures: dict[str, float], details: Any) -> Path:
    """Write one results file with where it comes from."""
    record = _record()
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    keys = {
        "git": record["git"],
        "created": record["created"],
        "machine": record["machine"],
        "versions": record["versions"],
    }
    write_json(
        file,
        {
            "name": name,
            "command": f"python benchmarks/{record['command']}",
            "seed": seed,
            **keys,
            "data": data,
            "figures": figures,
            "details": details,
        },
    )
    return file


@functools.cache
def _record() -> dict[str, Any]:
    """Taken before the first result is written, which would mark the checkout as changed."""
    return provenance.record()
