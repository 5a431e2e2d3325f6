"""The output folder of a fit: claimed once, resumed after a kill, published whole."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2token.utils import provenance
from text2token.utils.errors import UserError
from text2token.utils.files import cached_vectors, exclusive_lock, write_json

if TYPE_CHECKING:
    from torch import Tensor

_SETTINGS = "settings.json"
_RECORD = "run.json"


@dataclass(frozen=True)
class RunFolder:
    """An output folder, and beside it the work in progress.

    Attributes:
        output: Appears when the run is done, whole.
        work: Hidden folder beside it with stores, checkpoints and notes; gone when the run is done.
        overwrite: May what is at ``output``, or an unfinished run of other settings, be replaced?
    """

    output: Path
    work: Path
    overwrite: bool

    @property
    def result(self) -> Path:
        """Where the finished model is assembled before it is published."""
        return self.work / "result"

    @classmethod
    def open(cls, output: Path, *, overwrite: bool) -> RunFolder:
        """Where a run shall go; nothing is written yet, and whatever is there stays until :meth:`publish`.

        Raises:
            UserError: There is something, and ``overwrite`` is not set; or it is a folder that no run wrote.
        """
        output = output.absolute()
        work = output.with_name(f".{output.name}.work")
        if work.is_dir() and not (work / _SETTINGS).is_file():
            shutil.rmtree(work)  # of a run that was killed while it tidied up
        if output.exists() and not overwrite:
            raise UserError(f"The output '{output}' exists: choose another folder, or pass --overwrite.")
        if output.is_dir() and any(output.iterdir()) and not (output / _RECORD).is_file():
            raise UserError(
                f"The folder '{output}' was not written by a run (it holds no {_RECORD}), so it is not replaced: choose another."
            )
        return cls(output, work, overwrite)

    @contextmanager
    def claimed(self, settings: dict[str, Any]) -> Iterator[None]:
        """Start in a new work folder, or continue in that of an unfinished run of the same settings.

        A new run that ends in a :class:`UserError` is cleared away: its settings cannot work, and are not to stand in the
        way of better ones.

        Raises:
            UserError: An unfinished run has other settings, and ``overwrite`` is not set; or another process is at it.
        """
        self.output.parent.mkdir(parents=True, exist_ok=True)
        lock = self.work.with_suffix(".lock")
        refusal = f"Another process is at work on '{self.output}': wait until it is done, or choose another name."
        with exclusive_lock(lock, refusal), self._claimed(json.loads(json.dumps(settings))):
            yield

    @contextmanager
    def _claimed(self, settings: dict[str, Any]) -> Iterator[None]:
        note = self.work / _SETTINGS
        if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != settings:
            if not self.overwrite:
                raise UserError(
                    f"An unfinished run with other settings or texts waits for '{self.output}' (in '{self.work.name}'): "
                    "repeat its command to continue it, choose another folder, or pass --overwrite."
                )
            shutil.rmtree(self.work)
        resumed = note.is_file()
        self.work.mkdir(parents=True, exist_ok=True)
        write_json(note, settings)
        try:
            yield
        except UserError:
            if not resumed:
                shutil.rmtree(self.work)
            raise

    @contextmanager
    def clock(self, step: str) -> Iterator[None]:
        """Add the seconds of a step to the run's timings, interrupted attempts included (but for a ``kill -9``)."""
        started = time.monotonic()
        try:
            yield
        finally:
            file = self.work / "timings.json"
            timings = json.loads(file.read_text()) if file.is_file() else {}
            timings[step] = timings.get(step, 0.0) + time.monotonic() - started
            write_json(file, timings)

    def once(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The JSON value of ``compute``, kept in the work folder so that a resumed run does not compute it again."""
        file = self.work / name
        if not file.is_file():
            write_json(file, compute())
        kept: dict[str, Any] = json.loads(file.read_text())
        return kept

    def vectors(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor of ``compute``, kept in the work folder likewise."""
        return cached_vectors(self.work, name, compute)

    def record(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Write ``run.json`` into ``result``: the facts, versions, timings and checksums of the weights; returns its content."""
        run = {
            **provenance.record(),
            **facts,
            "timings": json.loads((self.work / "timings.json").read_text()),
            "peak_rss_gib": provenance.peak_rss_gib(),
            "files": {
                str(file.relative_to(self.result)): provenance.file_checksum(file)
                for file in sorted(self.result.rglob("*.safetensors"))
            },
        }
        write_json(self.result / _RECORD, run)
        return run

    def publish(self) -> None:
        """Put ``result`` in its place, and drop the work."""
        if self.output.exists():
            replaced = self.work / "replaced"
            shutil.rmtree(replaced, ignore_errors=True)  # there when an earlier attempt was killed right here
            self.output.replace(replaced)
        self.result.replace(self.output)
        (self.work / _SETTINGS).unlink()  # from here on the work folder is rubbish, see open
        shutil.rmtree(self.work)
