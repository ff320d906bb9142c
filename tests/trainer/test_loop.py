from __future__ import annotations

import json
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from colophon.shards.common.errors import ShardError
from colophon.trainer.errors import DivergedError, TrainerError
from colophon.trainer.loop import train
from tests.trainer.courses import metrics_of, weights_of
from tests.trainer.runs import LAYOUTS, config, write_run


def test_a_run_may_keep_no_checkpoints(run_output: Path) -> None:
    def report(line: str) -> None:
        if line.startswith("step 3/"):
            signal.raise_signal(signal.SIGTERM)

    settings = config(checkpoint_every=0, log_every=1)
    assert train(settings, name="a", output=run_output).state.step == 8
    assert train(settings, name="b", output=run_output, report=report).state.step == 3
    assert not list((run_output / "training").glob("*/checkpoints"))


def test_the_size_of_micro_batches_changes_nothing_but_rounding(run_output: Path) -> None:
    losses = []
    for size in (8, 2):
        train(config("append", micro_batch_size=size), name=str(size), output=run_output)
        losses.append([m["loss"] for m in metrics_of(run_output, str(size)) if "loss" in m])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_missing_layout_writes_nothing(run_output: Path) -> None:
    available = ", ".join(sorted(LAYOUTS))
    with pytest.raises(ShardError, match=f"has no layout 'prepent'; available: {available}"):
        train(config("prepent"), name="a", output=run_output)
    assert not (run_output / "training").exists()


def test_the_files_and_lines_of_a_run(run_output: Path) -> None:
    reported: list[str] = []
    settings = config("append", steps=6, validation_every=4, log_every=3)
    result = train(settings, name="a", output=run_output, report=reported.append)
    lines = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 5, 6, 6]
    steps = [line for line in lines if "loss" in line]
    for line in steps:
        assert line.keys() == {
            *("step", "loss", "text_loss", "metadata_loss", "metadata_accuracy", "tokens", "text_tokens", "lr"),
            *("grad_norm", "tokens_per_second", "data_wait", "mfu", "memory_gb", "skipped_batches"),
        }
        assert 0 <= line["metadata_accuracy"] <= 1
        assert line["grad_norm"] > 0
        assert line["tokens_per_second"] > 0
        assert 0 <= line["data_wait"] < 1
        assert line["mfu"] is None  # the peak of a CPU is not known
        assert 0.05 < line["memory_gb"] < 100
    assert all(a["tokens"] < b["tokens"] for a, b in pairwise(steps))
    assert steps[-1]["text_tokens"] < steps[-1]["tokens"] <= 6 * 8 * 48
    assert lines[-1].keys() == {
        *("step", "validation_text_loss", "validation_text_tokens"),
        *("validation_metadata_loss", "validation_metadata_accuracy"),
    }
    assert result.validation_text_loss == lines[-1]["validation_text_loss"]
    assert (result.loss, result.state.step, result.stopped_by) == (steps[-1]["loss"], 6, None)
    written = json.loads((result.directory / "config.json").read_text())
    assert type(settings).model_validate(written["config"]) == settings
    (layout,) = written["layouts"]
    assert (layout["output"], layout["name"], layout["layout"]["position"]) == (None, "append", "append")
    assert written["sequence_length"] == 48
    assert [line.split("  ")[0] for line in reported if "tokens/s" in line] == ["step 1/6", "step 3/6", "step 6/6"]
    assert all("left" in line for line in reported if "tokens/s" in line)
    accuracy = lines[-1]["validation_metadata_accuracy"]
    assert any(
        line.startswith("step 6/6  validation text ") and f"({accuracy:.1%} of tokens right)" in line
        for line in reported
    )


def test_metadata_without_loss_weight_has_no_metadata_loss(packed_run: Path) -> None:
    train(config("prepend", steps=1), name="masked-metadata", output=packed_run)
    line = metrics_of(packed_run, "masked-metadata")[0]
    assert (line["metadata_loss"], line["metadata_accuracy"]) == (None, None)


def test_a_layout_without_loss_weight_is_refused(tmp_path: Path) -> None:
    layouts = {"plain": {"position": "plain", "role_weights": {"text": 0, "eos": 0}}}
    output = write_run(tmp_path / "run", layouts=layouts)
    with pytest.raises(TrainerError, match="no label of this run has loss weight"):
        train(config("plain"), name="a", output=output)


def test_batches_without_loss_weight_are_skipped_and_counted(run_output: Path) -> None:
    result = train(config("masked", steps=3), name="a", output=run_output)
    steps = [m for m in metrics_of(run_output, "a") if "loss" in m]
    assert [m["skipped_batches"] for m in steps] == [1, 2, 3]
    assert {(m["loss"], m["grad_norm"]) for m in steps} == {(None, None)}
    assert result.state.skipped_batches == 3
    train(config("masked", steps=1), name="b", output=run_output)
    found = weights_of(run_output, "a")
    assert all(torch.equal(found[name], weight) for name, weight in weights_of(run_output, "b").items())
    assert not any("exp_avg" in name for name in found)  # no step was made


def test_a_gradient_that_is_not_finite_ends_with_advice(run_output: Path) -> None:
    settings = config(
        steps=30, learning_rate=1e30, checkpoint_every=1, optimizer={"max_grad_norm": None}, validation_rows=0
    )
    with pytest.raises(DivergedError, match=r"step \d+: the gradient is (nan|inf); .*lower learning_rate"):
        train(settings, name="a", output=run_output)
    assert all(weight.isfinite().all() for weight in weights_of(run_output, "a").values())


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "masked"])
def test_a_few_rows_are_memorised(tmp_path: Path, layout: str) -> None:
    output = write_run(tmp_path, num_documents=4)
    settings = config(
        layout, steps=80, learning_rate=1e-2, batch_size=4, validation_rows=0, optimizer={"weight_decay": 0.0}
    )
    result = train(settings, name="a", output=output)
    lines = metrics_of(output, "a")
    first, last = lines[0], lines[-1]
    assert first["text_loss"] > 4
    if layout == "append":  # the text determines its metadata
        assert first["metadata_accuracy"] < 0.5
        assert last["metadata_accuracy"] == 1
    assert result.text_loss is not None
    assert result.text_loss < 0.5  # the first token of a document cannot be known from a few rows' order


def test_cuda_without_a_device_is_refused(packed_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainerError, match="device is cuda, but torch finds no CUDA device"):
        train(config(device="cuda"), name="cuda", output=packed_run)
