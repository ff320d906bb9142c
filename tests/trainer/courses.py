"""The metrics and weights of a finished run, and a run that is killed at a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from colophon.trainer.checkpoints.checkpoint import latest_checkpoint


class Killed(Exception):
    """Takes the place of a kill: leaves the loop at once."""


def kill_at(step: int) -> Any:
    def report(line: str) -> None:
        if line.startswith(f"step {step}/") and "tokens/s" in line:
            raise Killed

    return report


def metrics_of(output: Path, name: str) -> list[dict[str, Any]]:
    lines = (output / "training" / name / "metrics.jsonl").read_text().splitlines()
    machine_fields = {"tokens_per_second", "data_wait", "memory_gb", "mfu"}
    return [{k: v for k, v in json.loads(line).items() if k not in machine_fields} for line in lines]


def weights_of(output: Path, name: str) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(output / "training" / name / "checkpoints")
    assert checkpoint is not None
    return load_file(checkpoint / "model.safetensors") | load_file(checkpoint / "optimizer.safetensors")


def assert_same_end(output: Path, first: str, second: str) -> None:
    assert metrics_of(output, first) == metrics_of(output, second)
    expected, found = weights_of(output, first), weights_of(output, second)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
