"""Where a result comes from: versions, machine, revision, checksums."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_LIBRARIES = ("torch", "transformers", "sentence-transformers", "peft", "datasets", "tokenizers", "numpy")


def record() -> dict[str, Any]:
    """Everything about this process that a reader needs to repeat its result."""
    return {
        "text2token": version("text2token"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git_revision(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
        "machine": {
            "platform": platform.platform(),
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "memory_gib": round(memory_gib(), 1),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def file_checksum(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def data_checksum(path: Path) -> str:
    """SHA-256 over the checksums of the files of a folder and all folders in it, in order, or of one file."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(map(file_checksum, files)).encode()).hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """What a tensor of any type holds, for a checksum."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def weights_checksum(module: torch.nn.Module) -> str:
    """SHA-256 of a module's parameters, in order."""
    digest = hashlib.sha256()
    for parameter in module.parameters():
        digest.update(tensor_bytes(parameter))
    return digest.hexdigest()


def memory_gib() -> float:
    """Of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def peak_rss_gib() -> float:
    """The most memory that this process has held so far, GiB."""
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def _git_revision() -> str | None:
    """Revision of the source that runs, marked when it has uncommitted changes; None where no repository tracks it."""
    here = Path(__file__)
    tracked = ["ls-files", "--error-unmatch", here.name]  # or the repository is that of whoever installed this
    described = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        for command in (tracked, described):
            git = ["git", "-C", str(here.parent), *command]
            said = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return said


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor()
