"""The output folder of a run: one process works on it, a killed run continues, and the result appears complete."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from text2token.utils import provenance
from text2token.utils.errors import BusyError, PassingError, UserError, is_full_disk
from text2token.utils.files import check_writable, local_path, output_lock
from text2token.utils.processes import is_main, on_main, world_size
from text2token.utils.resume import cached, load, save

_SETTINGS = "settings.json"
_TIMINGS = "timings.json"
_RECORD = "run.json"
_PROCESSES = "processes"  # key of the settings

T = TypeVar("T")


@dataclass(frozen=True)
class RunFolder:
    """An output folder, and a hidden work folder beside it.

    Attributes:
        output: Created by :meth:`publish`, when the run is complete.
        work: Holds stores, checkpoints and cached values during the run; :meth:`publish` deletes it.
        overwrite: Whether an existing ``output``, or an unfinished run with other settings, may be replaced.
        is_file: Whether the result is one file, in place of a folder.
    """

    output: Path
    work: Path
    overwrite: bool
    is_file: bool

    @property
    def result(self) -> Path:
        """The place in the work folder where the run writes its result before it is published."""
        return self.work / "result"

    @classmethod
    def open(cls, output: str | Path, *, overwrite: bool, is_file: bool = False) -> RunFolder:
        """Check that a run may write to ``output``. Nothing is written or replaced yet.

        Args:
            output: A link stays, and the run writes where it points to.
            overwrite: See the attribute.
            is_file: See the attribute.

        Raises:
            UserError: ``output`` exists and ``overwrite`` is False, something of another kind or a folder that no run wrote
                is there, or it cannot be written.
        """
        output = local_path(output).resolve()
        work = output.parent / f".{output.name}.work"
        if work.is_dir() and not (work / _SETTINGS).is_file():
            with suppress(BusyError), output_lock(output):  # a run that begins or ends has no settings for a moment
                if not (work / _SETTINGS).is_file():
                    shutil.rmtree(work)  # the rest of a published run that was killed before it had deleted everything
        run = cls(output, work, overwrite, is_file)
        run._check_output()
        check_writable(output)
        return run

    def _check_output(self) -> None:
        output = self.output
        if output.exists() and not (output.is_file() if self.is_file else output.is_dir()):
            kind = "regular file" if self.is_file else "folder"
            raise UserError(f"'{output}' is not a {kind}, so it is not replaced: choose another name.")
        if output.is_mount():
            raise UserError(f"'{output}' is a mount point, which cannot be replaced: name a folder inside it.")
        if output.exists() and not self.overwrite:
            raise UserError(f"The output '{output}' exists: choose another folder, or set `overwrite`.")
        if output.is_dir() and any(output.iterdir()) and not (output / _RECORD).is_file():
            raise UserError(
                f"The folder '{output}' was not written by a run (it holds no {_RECORD}), so it is not replaced: choose another."
            )

    @contextmanager
    def session(self, settings: dict[str, Any]) -> Iterator[None]:
        """Hold the lock of the run. Continue an unfinished run with the same settings, or start a new one.

        A new run that ends in a :class:`UserError` is deleted: its settings cannot work, and a run with better settings would
        otherwise be refused. It stays if the disk was full, and after a :class:`PassingError`. Of several processes the first
        one holds the lock, and all call this.

        Args:
            settings: Everything that the result depends on, as JSON.

        Raises:
            UserError: Another process holds the lock or has published, an unfinished run has other settings or another number of
                processes and ``overwrite`` is False, or the machines of the run share no disk.
        """
        with ExitStack() as held:
            resumed = on_main(lambda: self._enter(held, settings))
            if not (self.work / _SETTINGS).is_file():
                raise UserError(
                    f"This machine does not see '{self.work}': choose an output on a disk that all machines share."
                )
            try:
                yield
            except UserError as error:
                if not resumed and not is_full_disk(error) and not isinstance(error, PassingError):
                    shutil.rmtree(self.work, ignore_errors=True)  # several processes may delete it at once
                raise

    def _enter(self, held: ExitStack, settings: dict[str, Any]) -> bool:
        """Take the lock and prepare the work folder; return whether it holds an unfinished run with these settings."""
        held.enter_context(output_lock(self.output))
        self._check_output()  # another process may have published since this one opened the folder
        return self._resumes(json.loads(json.dumps(settings)) | {_PROCESSES: world_size()})

    def _resumes(self, settings: dict[str, Any]) -> bool:
        try:
            found = load(self.work / _SETTINGS)
        except UserError as error:
            if not self.overwrite:
                raise UserError(
                    f"The settings of the unfinished run for '{self.output}' are damaged, so it cannot be continued: "
                    "choose another folder, or set `overwrite`."
                ) from error
            found = {}  # no run has these settings
        if found is not None:
            found = {_PROCESSES: 1} | found  # runs of older versions do not name it
        if found == settings:
            return True
        if found is not None:
            if not self.overwrite and found | {_PROCESSES: world_size()} == settings:
                raise UserError(
                    f"The unfinished run for '{self.output}' was started with {found[_PROCESSES]} processes and this one has "
                    f"{world_size()}, so its texts would be in another order: start as many, or set `overwrite`."
                )
            if not self.overwrite:
                raise UserError(
                    f"An unfinished run with other settings or texts waits for '{self.output}' (in '{self.work.name}'): "
                    "repeat its command to continue it, choose another folder, or set `overwrite`."
                )
            shutil.rmtree(self.work)
        save(self.work / _SETTINGS, settings)
        return False

    @contextmanager
    def clock(self, step: str) -> Iterator[None]:
        """Add the duration of the block to the timings of the run. Only the time before a ``kill -9`` is not counted.

        Several processes go through the block together, and the first one's time counts.
        """
        started = time.monotonic()
        try:
            yield
        finally:
            if is_main():
                self._add_time(step, time.monotonic() - started)

    def _add_time(self, step: str, seconds: float) -> None:
        timings = load(self.work / _TIMINGS, {})
        timings[step] = timings.get(step, 0.0) + seconds
        save(self.work / _TIMINGS, timings)

    def cached(self, name: str, compute: Callable[[], T]) -> T:
        """Compute a value once per run, see :func:`text2token.utils.resume.cached`; ``name`` is a file in the work folder."""
        return cached(self.work / name, compute)

    def origin(self) -> dict[str, Any]:
        """Versions, machine, timings, peak memory, and checksums of the weights in ``result``: the last part of a record."""
        return {
            **provenance.record(),
            "timings": load(self.work / _TIMINGS),
            "peak_rss_gib": provenance.peak_rss_gib(),
            "files": {
                str(file.relative_to(self.result)): provenance.file_checksum(file)
                for file in sorted(self.result.rglob("*.safetensors"))
            },
        }

    def publish(self) -> None:
        """Move ``result`` to ``output`` and delete the work folder.

        Raises:
            PassingError: What may not be replaced has come to ``output`` during the run. The work stays.
        """
        try:
            self._check_output()
        except UserError as error:
            raise PassingError(f"{error} Or move what is there, and repeat the command: the run is done.") from None
        if self.output.exists():
            replaced = self.work / "replaced"
            shutil.rmtree(replaced, ignore_errors=True)  # exists if an earlier attempt was killed at this point
            self.output.replace(replaced)
        self.result.replace(self.output)
        (self.work / _SETTINGS).unlink()  # from now on `open` deletes the work folder
        shutil.rmtree(self.work)
