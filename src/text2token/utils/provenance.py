"""Record where a result comes from: versions, machine, source revision, checksums."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

_LIBRARIES = ("torch", "transformers", "sentence-transformers", "peft", "datasets", "tokenizers", "numpy")


def record() -> dict[str, Any]:
    """Return what a reader needs to repeat the result of this process: command, versions, source revision and machine."""
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
    """Return the SHA-256 (hex) of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def data_checksum(path: Path) -> str:
    """Return the SHA-256 (hex) over the sorted checksums of all files in a folder, at any depth, or of one file."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(map(file_checksum, files)).encode()).hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a tensor of any type, for a checksum."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def weights_checksum(module: torch.nn.Module) -> str:
    """Return the SHA-256 (hex) of the parameters of a module, in order."""
    digest = hashlib.sha256()
    for parameter in module.parameters():
        digest.update(tensor_bytes(parameter))
    return digest.hexdigest()


def memory_gib() -> float:
    """Return the memory of the machine in GiB."""
    return psutil.virtual_memory().total / 2**30


def peak_rss_gib() -> float:
    """Return the most memory that this process has held so far, in GiB."""
    if sys.platform == "win32":  # has no `resource`
        peak = psutil.Process().memory_info().peak_wset
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 2**10)
    return round(peak / 2**30, 2)


def _git_revision() -> str | None:
    """Return the git revision of this source, with ``-dirty`` if files have changed; None if no repository tracks it."""
    here = Path(__file__)
    tracked = ["ls-files", "--error-unmatch", here.name]  # fails in a repository that only contains an installed copy
    described = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        for command in (tracked, described):
            git = ["git", "-C", str(here.parent), *command]
            said = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return said


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")  # Linux; elsewhere Python knows the name
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
