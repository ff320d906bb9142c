from __future__ import annotations

from pathlib import Path

import pytest
import torch

from colophon.trainer.errors import OutOfMemoryError
from colophon.trainer.loop import train
from tests.trainer.runs import config


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB."),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        (RuntimeError, "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_ends_with_advice(
    run_output: Path, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: object, **__: object) -> None:  # a stand-in: a test must not use up a machine's memory
        raise error(f"{message}\nmore of it")

    monkeypatch.setattr("colophon.trainer.updates.accumulate_gradients", too_much)
    with pytest.raises(OutOfMemoryError) as raised:
        train(config(), name="a", output=run_output)
    assert str(raised.value) == (
        f"{message} Try micro_batch_size below 4, "
        "activation_checkpointing = true, more processes with parallel = 'fsdp', a smaller model or sequence_length"
    )
