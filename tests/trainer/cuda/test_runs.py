"""Trainings on a GPU: their losses, resumes, recompilations, waits, and the end of the memory."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from colophon.trainer.config import TrainConfig
from colophon.trainer.device.float8 import why_not_float8
from colophon.trainer.errors import OutOfMemoryError
from colophon.trainer.loop import train
from tests.trainer.courses import metrics_of
from tests.trainer.runs import TINY_MODEL, config

pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("ignore")]

LONG = {"steps": 24, "validation_rows": 6, "validation_every": 12, "checkpoint_every": 12, "learning_rate": 1e-2}


def settings_on(device: torch.device, **settings: Any) -> TrainConfig:
    return config("append", **{**LONG, "device": device.type, **settings})


def losses_of(output: Path, name: str) -> list[float]:
    return [line["loss"] for line in metrics_of(output, name) if "loss" in line]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_has_the_losses_of_the_cpu(dtype: str, run_output: Path, device: torch.device) -> None:
    train(settings_on(torch.device("cpu")), name="cpu", output=run_output)
    train(settings_on(device, dtype=dtype), name="gpu", output=run_output)
    expected, found = losses_of(run_output, "cpu"), losses_of(run_output, "gpu")
    assert found == pytest.approx(expected, rel=5e-2 if dtype == "bfloat16" else 5e-3)
    assert found[0] == pytest.approx(expected[0], rel=5e-3 if dtype == "bfloat16" else 1e-4)


@pytest.mark.parametrize("scope", ["layers", "model", "cuda_graphs"])
def test_a_run_with_rows_of_padding_has_the_losses_of_the_cpu(
    scope: str, run_output: Path, device: torch.device
) -> None:
    settings = {"order": "documents", "steps": 12, "dtype": "bfloat16"}
    train(settings_on(torch.device("cpu"), **settings), name="cpu", output=run_output)
    train(settings_on(device, compile=scope, **settings), name="gpu", output=run_output)
    assert losses_of(run_output, "gpu") == pytest.approx(losses_of(run_output, "cpu"), rel=5e-2)


def test_a_run_in_float8_has_the_losses_of_one_in_bfloat16(run_output: Path, gpu: torch.device) -> None:
    if reason := why_not_float8(gpu):
        pytest.skip(reason)
    settings = {"model": {**TINY_MODEL, "ffn_size": 2048}, "learning_rate": 1e-3}
    for dtype in ("bfloat16", "float8"):
        train(settings_on(gpu, dtype=dtype, **settings), name=dtype, output=run_output)
    assert losses_of(run_output, "float8") == pytest.approx(losses_of(run_output, "bfloat16"), rel=5e-2)


def test_a_run_resumes_on_the_other_device(run_output: Path, device: torch.device) -> None:
    constant = {"type": "wsd", "warmup_steps": 0, "decay_fraction": 0.0}
    on_gpu = settings_on(device, dtype="float32", schedule=constant)
    train(on_gpu, name="whole", output=run_output)
    train(on_gpu.model_copy(update={"steps": 12}), name="moved", output=run_output)
    train(settings_on(torch.device("cpu"), schedule=constant), name="moved", output=run_output, resume=True)
    assert losses_of(run_output, "moved")[12:] == pytest.approx(losses_of(run_output, "whole")[12:], rel=2e-2)


def test_nothing_is_compiled_after_the_first_steps(run_output: Path, gpu: torch.device) -> None:
    graphs = []
    train(
        settings_on(gpu, log_every=1, validation_rows=0),
        name="a",
        output=run_output,
        report=lambda line: graphs.append(counters["stats"]["unique_graphs"]) if "tokens/s" in line else None,
    )
    assert graphs[8] == graphs[-1] > 0


def test_too_little_memory_ends_with_advice(run_output: Path, gpu: torch.device) -> None:
    free, total = torch.cuda.mem_get_info(gpu)
    torch.cuda.set_per_process_memory_fraction(min(1.0, 64e6 / total))
    try:
        with pytest.raises(OutOfMemoryError, match="activation_checkpointing = true"):
            train(settings_on(gpu, model="124m"), name="a", output=run_output)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert free > 0


def test_the_host_waits_for_the_device_at_most_twice_a_step(run_output: Path, gpu: torch.device) -> None:
    waits = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train(
                settings_on(gpu, log_every=1, validation_rows=0),
                name="a",
                output=run_output,
                report=lambda line: waits.append(len(caught)) if "tokens/s" in line else None,
            )
        finally:
            torch.cuda.set_sync_debug_mode("default")
    of_steps = [after - before for before, after in pairwise(waits[8:])]
    assert max(of_steps) <= 2, sorted({str(one.message).splitlines()[0] for one in caught})
