"""Folders for downloaded, converted and compiled files; they move to a temporary folder if the usual ones cannot be written."""

from __future__ import annotations

import getpass
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock
from safetensors import SafetensorError

from text2token.utils.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_logger = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Return the folder of converted models: ``$TEXT2TOKEN_CACHE``, or else the user's cache folder of the platform."""
    chosen = os.environ.get("TEXT2TOKEN_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("text2token")


@contextmanager
def cache_lock(folder: Path) -> Iterator[None]:
    """Hold a lock between processes while ``folder``, a folder of the cache, is made. Wait if another process holds it.

    Raises:
        UserError: The disk is full, or the cache may not be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            yield
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        raise UserError(
            f"Cannot write {folder} ({error}): free some space, or set TEXT2TOKEN_CACHE to a folder that you may write."
        ) from error


def use_writable_caches() -> None:
    """Point caches that cannot be written to a temporary folder, and log it once.

    This helps in containers whose user has no home directory or no name, or may not write to the installed packages. Numba,
    mteb, Matplotlib and the Hugging Face libraries read these variables when they are imported, so call this function before.
    Variables that are set already stay as they are. An existing cache of models is kept, because it can still be read.

    Raises:
        UserError: A cache must move, and there is no temporary folder that this user may write.
    """
    before = dict(os.environ)
    home = _home()
    if home is None:
        home = _temporary_folder() / "home"
        home.mkdir(exist_ok=True)
        os.environ["HOME"] = str(home)
        if not _can_write(Path(os.environ.get("XDG_CACHE_HOME") or home)):
            os.environ.pop("XDG_CACHE_HOME", None)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(os.environ.get("HF_HOME") or caches / "huggingface")
    if not _exists(hub):
        _move_if_needed("HF_HOME", hub)
    _move_if_needed("HF_DATASETS_CACHE", hub / "datasets")
    if not _exists(cache_dir()):
        _move_if_needed("TEXT2TOKEN_CACHE", cache_dir())
    _move_if_needed("MTEB_CACHE", home / ".cache" / "mteb")
    _move_if_needed("MPLCONFIGDIR", Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "matplotlib")
    if not _can_write(_PACKAGE):  # Numba's first choice
        _move_if_needed("NUMBA_CACHE_DIR", caches / "numba")
    if os.environ != before:
        _logger.warning("The cache folders cannot be written, so %s is used; set HOME to keep it.", _temporary_folder())
    try:
        getpass.getuser()
    except (KeyError, OSError):  # torch asks for it to name a folder
        os.environ["USER"] = f"user-{os.getuid()}"


def _home() -> Path | None:
    """The home directory; None if there is none, or if nothing can be written or was ever cached there."""
    try:
        home = Path.home()
    except RuntimeError:  # no $HOME, and the user is not in the list of users
        return None
    return home if _can_write(home) or _exists(home / ".cache") else None


def _move_if_needed(variable: str, default: Path) -> None:
    if variable not in os.environ and not _can_write(default):
        os.environ[variable] = str(_temporary_folder() / variable.lower())


def _can_write(folder: Path) -> bool:
    """Whether the folder can be written or, if it does not exist, be created."""
    folder = folder.expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if _exists(path))
    return os.access(existing, os.W_OK | os.X_OK)


def _exists(path: Path) -> bool:
    return os.access(path, os.F_OK)  # Path.exists raises an error where a folder above may not be read


def _temporary_folder() -> Path:
    """A folder that later commands of this user find again; nobody else may own it, since anybody may create its name.

    Raises:
        UserError: It cannot be made, or somebody else owns it.
    """
    name = f"text2token-{os.getuid()}" if hasattr(os, "getuid") else "text2token"
    try:
        folder = Path(tempfile.gettempdir(), name)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UserError(
            "Neither the cache folders nor a temporary folder can be written: set HOME or TMPDIR to a folder that you may write."
        ) from error
    if hasattr(os, "getuid") and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
        raise UserError(f"The folder '{folder}' belongs to another user: set HOME to a folder that you may write.")
    return folder
