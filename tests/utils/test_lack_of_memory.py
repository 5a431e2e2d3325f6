"""Too little memory is told as such, whatever library reports it and wherever it does."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from conftest import refused
from text2token.model.loading import loading
from text2token.utils.errors import PassingError, is_lack_of_memory

ERRORS = [
    MemoryError(),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 1.2 GB, max allowed: 18.1 GB)."
    ),
    RuntimeError("Invalid buffer size: 14.48 GB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_model_that_does_not_fit_is_not_called_damaged(error, tmp_path):
    with (
        pytest.raises(PassingError, match=r"there is too little memory for it \(.*\)\. End") as caught,
        loading(str(tmp_path)),
    ):
        raise error
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_a_command_that_runs_out_of_memory_names_a_way_out(error, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr("text2token.cli.backbones._records", fail)
    assert "There is not enough memory: encode fewer texts at once" in refused("backbones", "--json")


def test_the_cause_of_an_error_counts():
    error = RuntimeError("while loading")
    assert not is_lack_of_memory(error)
    error.__cause__ = MemoryError()
    assert is_lack_of_memory(error)
