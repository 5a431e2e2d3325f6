"""The output folder of a fit: claimed once, resumed after a kill, published whole."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text2token import provenance
from text2token.atomic import write_json
from text2token.card import write_cards
from text2token.errors import UserError
from text2token.report import write_report


@dataclass(frozen=True)
class RunFolder:
    """An output folder, and beside it the work in progress.

    Attributes:
        output: Appears when the run is done, whole.
        work: Hidden folder beside it with stores, checkpoints and notes; gone when the run is done.
    """

    output: Path
    work: Path

    @property
    def result(self) -> Path:
        """Where the finished model is assembled before it is published."""
        return self.work / "result"

    @classmethod
    def claim(cls, output: Path, settings: dict[str, Any], *, overwrite: bool) -> RunFolder:
        """Take a new folder, or continue the unfinished run of the same settings.

        Raises:
            UserError: The folder exists, or an unfinished run with other settings, and ``overwrite`` is not set.
        """
        output = output.absolute()
        if output.exists() and not overwrite:
            raise UserError(f"The output '{output}' exists: choose another folder, or pass --overwrite.")
        work = output.with_name(f".{output.name}.work")
        note = work / "settings.json"
        settings = json.loads(json.dumps(settings))
        if note.is_file() and json.loads(note.read_text()) != settings:
            if not overwrite:
                raise UserError(
                    f"An unfinished run with other settings or texts waits for '{output}' (in '{work.name}'): "
                    "repeat its command to continue it, choose another folder, or pass --overwrite."
                )
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        write_json(note, settings)
        return cls(output, work)

    @contextmanager
    def clock(self, step: str) -> Iterator[None]:
        """Add the seconds of a step to the run's timings, those before a kill included."""
        started = time.monotonic()
        yield
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

    def publish(self, facts: dict[str, Any]) -> None:
        """Write ``run.json``, report and cards beside the model in ``result``, move it into place, drop the work."""
        run = {
            **provenance.record(),
            **facts,
            "timings": json.loads((self.work / "timings.json").read_text()),
            "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "files": {
                str(file.relative_to(self.result)): provenance.file_checksum(file)
                for file in sorted(self.result.rglob("*.safetensors"))
            },
        }
        write_json(self.result / "run.json", run)
        write_report(run, self.result / "report.html")
        write_cards(run, self.result)
        if self.output.exists():
            os.replace(self.output, self.work / "replaced")
        os.replace(self.result, self.output)
        shutil.rmtree(self.work)
