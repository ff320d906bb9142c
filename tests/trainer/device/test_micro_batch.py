"""The search of a micro-batch that fits, on a CPU with a stand-in for the end of the memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from colophon.trainer.device.micro_batch import sizes_to_try
from colophon.trainer.loop import train
from tests.trainer.courses import assert_same_end
from tests.trainer.runs import SEQUENCE_LENGTH, config


@pytest.mark.parametrize(
    ("num_rows", "sequence_length", "tokens", "expected"),
    [
        (504, 4096, 65_536, [14, 7, 3, 1]),
        (64, 2048, 65_536, [32, 16, 8, 4, 2, 1]),
        (7, 4096, 65_536, [7, 1]),
        (504, 4096, 1, [1]),
        (504, 4096, 10**9, [504, 252, 126, 63, 28, 14, 7, 3, 1]),
    ],
)
def test_sizes_divide_the_rows_and_halve(num_rows: int, sequence_length: int, tokens: int, expected: list[int]) -> None:
    assert list(sizes_to_try(num_rows, sequence_length=sequence_length, tokens=tokens)) == expected


def searching(**settings: Any) -> Any:
    return config(micro_batch_size=None, micro_batch_tokens=5 * SEQUENCE_LENGTH, steps=4, validation_rows=3, **settings)


def test_the_largest_size_that_fits_is_searched_and_remembered(
    run_output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def attempt(run: Any, step: int, num_rows: int) -> None:
        tried.append(num_rows)
        if num_rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("colophon.trainer.start.attempt", attempt)
    lines: list[str] = []
    train(searching(), name="a", output=run_output, report=lines.append)
    assert tried == [4, 2]
    assert "2 sequences at once, 96 tokens: the most that fit, up to 240 tokens" in lines
    found = json.loads((run_output / "training/a/micro_batch.json").read_text())
    assert (found["rows"], found["device"], found["tokens"]) == (2, "cpu", 240)
    train(searching(), name="a", output=run_output, resume=True)
    assert tried == [4, 2]
    train(searching(activation_checkpointing=True), name="a", output=run_output, resume=True)
    assert tried == [4, 2, 4, 2]  # a different need of memory
    train(config(micro_batch_size=2, steps=4, validation_rows=3), name="b", output=run_output)
    train(searching(), name="c", output=run_output)
    assert_same_end(run_output, "b", "c")


def test_a_search_leaves_the_run_as_it_was(run_output: Path) -> None:
    lines: list[str] = []
    train(searching(optimizer="muon"), name="a", output=run_output, report=lines.append)
    assert any(line.startswith("4 sequences at once") for line in lines)
    train(config(micro_batch_size=4, steps=4, validation_rows=3, optimizer="muon"), name="b", output=run_output)
    assert_same_end(run_output, "a", "b")


def test_other_errors_end_the_search(run_output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(run: Any, step: int, num_rows: int) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("colophon.trainer.start.attempt", attempt)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train(searching(), name="a", output=run_output)
