from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train
from colophon.trainer.plots.curves import X_LABELS, Y_LABELS, Curve, read_curve, read_curves, training_runs
from tests.trainer.runs import config


def write_metrics(output: Path, name: str, records: list[dict[str, Any]], *, tail: str = "") -> None:
    directory = output / "training" / name
    directory.mkdir(parents=True)
    (directory / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records) + tail)


def step(number: int, **fields: Any) -> dict[str, Any]:
    defaults = {"loss": 5.0, "text_loss": 4.0, "metadata_loss": None, "lr": 1e-3, "grad_norm": 1.0}
    paced = {"tokens": 100 * number, "text_tokens": 80 * number, "tokens_per_second": 50.0}
    return {"step": number, **defaults, **paced, **fields}


def validation(number: int, loss: float) -> dict[str, Any]:
    return {"step": number, "validation_text_loss": loss, "validation_text_tokens": 10}


def test_a_curve_has_the_values_that_the_run_logged(run_output: Path) -> None:
    result = train(config(steps=6, validation_every=3), name="a", output=run_output)
    records = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
    losses = [r["text_loss"] for r in records if "loss" in r]
    curve = read_curve(run_output, "a", x="text_tokens")
    assert curve.y.tolist() == losses
    assert curve.x.tolist() == [r["text_tokens"] for r in records if "loss" in r]
    assert curve.validation_x.tolist() == [r["text_tokens"] for r in records if r["step"] in {3, 6} and "loss" in r]
    assert curve.validation_y[-1] == result.validation_text_loss
    seconds = read_curve(run_output, "a", x="seconds", y="lr")
    expected = np.cumsum(np.diff([0, *(r["tokens"] for r in records if "loss" in r)]) / read_rates(records))
    np.testing.assert_allclose(seconds.x, expected)
    assert not len(seconds.validation_x)


def test_every_quantity_of_the_metrics_can_be_drawn(run_output: Path) -> None:
    result = train(config("append", steps=4, validation_every=2), name="a", output=run_output)
    records = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
    for y in ("metadata_loss", "metadata_accuracy"):
        curve = read_curve(run_output, "a", y=y)
        assert curve.y.tolist() == [r[y] for r in records if "loss" in r]
        validated = [r[f"validation_{y}"] for r in records if "loss" not in r]
        assert curve.validation_y.tolist() == validated
        alone = read_curve(run_output, "a", y=f"validation_{y}")
        assert (len(alone.x), alone.validation_y.tolist()) == (0, validated)
    known = {*Y_LABELS, *X_LABELS, "validation_text_tokens", "skipped_batches"}
    assert {key for record in records for key in record} <= known
    with pytest.raises(TrainerError, match="has no mfu; available: text_loss, validation_text_loss, loss, "):
        read_curve(run_output, "a", y="mfu")  # the peak of a CPU is unknown


def read_rates(records: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    return np.array([r["tokens_per_second"] for r in records if "loss" in r])


def test_steps_without_the_quantity_and_a_cut_last_line_are_skipped(tmp_path: Path) -> None:
    records = [validation(0, 9.0), step(1), step(2, loss=None, grad_norm=None), step(3, loss=3.0), validation(3, 4.5)]
    write_metrics(tmp_path, "a", records, tail='{"step": 4, "lo')
    curve = read_curve(tmp_path, "a", x="tokens", y="loss")
    assert (curve.x.tolist(), curve.y.tolist()) == ([100, 300], [5, 3])
    assert (curve.validation_x.tolist(), curve.validation_y.tolist()) == ([0, 300], [9, 4.5])
    alone = read_curve(tmp_path, "a", y="validation_text_loss")
    assert (len(alone.x), alone.validation_y.tolist()) == (0, [9, 4.5])


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "null",
        "{}",
        '{"step": 2}',
        '{"step": "a", "loss": 1, "tokens": 1, "text_tokens": 1, "tokens_per_second": 1}',
        '{"step": true, "loss": 1, "tokens": 1, "text_tokens": 1, "tokens_per_second": 1}',
        '{"step": 2, "loss": NaN, "text_loss": NaN, "tokens": 1, "text_tokens": 1, "tokens_per_second": NaN}',
        '{"step": 2, "loss": 1e999, "text_loss": 1e999, "tokens": 1e999, "tokens_per_second": 1}',
        f'{{"step": {10**400}, "loss": 1, "text_loss": 1, "tokens": 1, "text_tokens": 1, "tokens_per_second": 1}}',
        '{"step": 2, "loss": 1, "text_loss": 2}',
        '{"step": 2, "loss": 1, "text_loss": 2, "tokens": null, "text_tokens": 1, "tokens_per_second": 1}',
        '{"step": 2, "loss": 1, "text_loss": 2, "tokens": 1, "text_tokens": 1, "tokens_per_second": "x"}',
        '{"step": 2, "loss": [], "text_loss": [], "tokens": 1, "text_tokens": 1, "tokens_per_second": 1}',
        '{"step": 2, "validation_text_loss": {"a": 1}}',
        "[" * 100_000,
        "\ud800",
    ],
    ids=lambda line: line[:40],
)
def test_damaged_lines_are_skipped(tmp_path: Path, line: str) -> None:
    write_metrics(tmp_path, "a", [step(1), step(3)])
    path = tmp_path / "training/a/metrics.jsonl"
    path.write_bytes(line.encode("utf-8", "surrogatepass") + b"\n" + path.read_bytes())
    for x in X_LABELS:
        assert read_curve(tmp_path, "a", x=x).y.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "b"}, "no metrics of a training run 'b'; available: a"),
        ({"y": "perplexity"}, f"y: unknown quantity 'perplexity'; available: {', '.join(Y_LABELS)}"),
        ({"x": "hours"}, "x: unknown quantity 'hours'; available: step, tokens, text_tokens, seconds"),
        ({"y": "metadata_loss"}, "has no metadata_loss; available: text_loss, loss, lr, grad_norm, tokens_per_second"),
    ],
)
def test_the_error_on_an_unknown_name_lists_the_choices(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    write_metrics(tmp_path, "a", [step(1)])
    with pytest.raises(TrainerError, match="available") as caught:
        read_curve(tmp_path, **{"name": "a", **settings})
    assert message in str(caught.value)


def test_without_names_all_runs_that_logged_the_quantity_are_read(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="no training run has metrics yet"):
        read_curves(tmp_path, None)
    write_metrics(tmp_path, "plain", [step(1)])
    write_metrics(tmp_path, "append", [step(1, metadata_loss=2.0)])
    assert [curve.name for curve in read_curves(tmp_path, None)] == ["append", "plain"]
    assert [curve.name for curve in read_curves(tmp_path, None, y="metadata_loss")] == ["append"]
    assert [curve.name for curve in read_curves(tmp_path, ["plain", "plain"])] == ["plain"]
    for names, y in ((["append", "plain"], "metadata_loss"), (None, "perplexity")):
        with pytest.raises(TrainerError, match="available: "):
            read_curves(tmp_path, names, y=y)


def test_runs_without_metrics_are_not_listed(tmp_path: Path) -> None:
    write_metrics(tmp_path, "b", [step(1)])
    write_metrics(tmp_path, "a", [step(1)])
    (tmp_path / "training" / "empty").mkdir()
    assert training_runs(tmp_path) == ["a", "b"]


def curve(name: str, *, steps: int = 5, validations: int = 2) -> Curve:
    x, v = np.arange(1.0, steps + 1), np.linspace(1, 5, validations)
    return Curve(name=name, x=x, y=10 / x, validation_x=v, validation_y=9 / v)


def spiked(*, step: int, value: float) -> Curve:
    """100 steps from 8.3 to 3, one of them with `value`."""
    found = curve("a", steps=100, validations=0)
    y = 3 + 5.3 * np.exp(-found.x / 25)
    y[step - 1] = value
    return replace(found, y=y)
