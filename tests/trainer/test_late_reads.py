"""On a GPU the host queues an update before it reads the losses of the one before. It reads no other value."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.host import counting_waits
from colophon.trainer.device.host_copy import HostCopy
from colophon.trainer.loop import train
from colophon.trainer.optimization.optimizer import ModelOptimizer
from tests.trainer.courses import assert_same_end, metrics_of
from tests.trainer.runs import config


def test_losses_are_read_when_the_next_update_is_queued(run_output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course: list[str] = []

    def noting(method: Any, letter: str) -> Any:
        def noted(*arguments: Any) -> Any:
            course.append(letter)
            return method(*arguments)

        return noted

    settings = config(steps=5, validation_every=3, validation_rows=4, checkpoint_every=4)
    train(settings, name="at once", output=run_output)
    monkeypatch.setattr("colophon.trainer.updates.Updates.reads_late", True)
    monkeypatch.setattr(ModelOptimizer, "step", noting(ModelOptimizer.step, "u"))
    monkeypatch.setattr(HostCopy, "read", noting(HostCopy.read, "r"))
    train(settings, name="late", output=run_output)
    # Before the validation after update 3, the checkpoint after update 4 and the end, the queued update is read.
    assert "".join(course) == "uurur" + "r" + "ur" + "ur"
    assert [line["step"] for line in metrics_of(run_output, "late")] == [1, 2, 3, 3, 4, 5, 5]
    assert_same_end(run_output, "at once", "late")


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "ademamix"])
def test_no_other_value_is_read(optimizer: str, run_output: Path) -> None:
    reads: list[int] = []
    settings = config("append", log_every=1, optimizer=optimizer, validation_rows=0, checkpoint_every=0)
    with counting_waits(torch.device("cpu")) as num_reads:
        train(
            settings,
            name="a",
            output=run_output,
            report=lambda line: reads.append(num_reads()) if "tokens/s" in line else None,
        )
    assert len(reads) == settings.steps
    assert [after - before for before, after in pairwise(reads)] == [0] * (len(reads) - 1)
