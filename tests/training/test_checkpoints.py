"""The checkpoints of a training: which ones are kept, and which one a training continues at."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

from text2token.training.callbacks import CheckpointIntegrity, last_complete_checkpoint
from text2token.training.trainer import TrainingSettings, _arguments

SETTINGS = TrainingSettings(32, 4, 1, 1e-4, 0.1, 4, full=False, seed=0)


def test_the_newest_checkpoints_stay_when_the_clock_goes_back(tmp_path):
    for step in (20, 40, 60):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_text("1")
        CheckpointIntegrity().on_save(SimpleNamespace(output_dir=tmp_path), SimpleNamespace(global_step=step), None)
        later = time.time() + 3600 - step
        os.utime(checkpoint, (later, later))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-40", "checkpoint-60"]
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-60")
    assert _arguments(SETTINGS, tmp_path, 100).save_total_limit is None  # transformers deletes by time


def test_a_checkpoint_whose_sizes_are_damaged_is_not_complete(tmp_path):
    (tmp_path / "checkpoint-20").mkdir()
    for name in ("weights", "sizes.json"):
        (tmp_path / "checkpoint-20" / name).write_text("{")
    assert last_complete_checkpoint(tmp_path) is None


def test_a_checkpoint_without_files_is_not_complete(tmp_path):
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / "checkpoint-20" / "sizes.json").write_text("{}")
    assert last_complete_checkpoint(tmp_path) is None
