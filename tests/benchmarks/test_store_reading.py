"""The benchmark of training from an object store, on a small run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import store_reading
from benchmarks.store_reading import COLD, DISK, WARM
from tests.trainer.runs import config, write_run


def test_one_training_is_measured_without_its_first_update(tmp_path: Path) -> None:
    settings = config(steps=3, validation_rows=0, log_every=1).model_dump(mode="json")
    found = store_reading.trained(str(write_run(tmp_path / "run")), settings, directory=tmp_path)
    assert found["tokens_per_second"] > 0
    assert 0 <= found["data_wait"] <= 1
    (metrics,) = tmp_path.rglob("metrics.jsonl")
    assert found["loss"] == json.loads(metrics.read_text().splitlines()[-1])["loss"]


@pytest.mark.slow  # a server in a process of its own; the test above is the faster one
def test_a_round_trains_on_the_disk_and_twice_on_the_store(tmp_path: Path) -> None:
    run, results = write_run(tmp_path / "run"), tmp_path / "results.json"
    options = ["--layout", "prepend", "--rounds", "1", "--steps", "3", "--batch-size", "4"]
    assert store_reading.main([str(run), *options, "--results", str(results)]) == 0
    found = json.loads(results.read_text())
    assert set(found["ways"]) == {DISK, COLD, WARM}
    assert set(found["disk_is_faster"]) == {COLD, WARM}
