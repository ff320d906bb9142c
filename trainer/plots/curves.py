"""Curves of training runs, read from their `metrics.jsonl`; `trainer.monitoring.metrics` describes that file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import DamagedFileError, did_you_mean
from colophon.shards.common.output_paths import entries, inside
from colophon.shards.common.state_files import parse_state, read_regular
from colophon.trainer.errors import TrainerError

X_LABELS = {
    "step": "steps",
    "tokens": "tokens",
    "text_tokens": "text tokens",
    "seconds": "seconds in steps",
}
Y_LABELS = {
    "text_loss": "loss on text (nats per token)",
    "validation_text_loss": "validation loss on text (nats per token)",
    "loss": "loss that is minimised (nats per token)",
    "metadata_loss": "loss on metadata (nats per token)",
    "validation_metadata_loss": "validation loss on metadata (nats per token)",
    "metadata_accuracy": "accuracy of metadata",
    "validation_metadata_accuracy": "validation accuracy of metadata",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient before clipping",
    "tokens_per_second": "tokens per second",
    "mfu": "share of the hardware's peak (MFU)",
    "data_wait": "share of the step spent waiting for data",
    "memory_gb": "memory (GB)",
}
GROUPED = ("text_loss", "validation_text_loss")
"""The quantities that metrics have by annotation value, too."""
_VALIDATIONS = {
    "text_loss": "validation_text_loss",
    "loss": "validation_text_loss",
    "metadata_loss": "validation_metadata_loss",
    "metadata_accuracy": "validation_metadata_accuracy",
}
"""The validation quantity that is drawn as points beside a curve."""
_X_NUMBERS = ("step", "tokens", "text_tokens")
_NUMBERS = (*_X_NUMBERS, *Y_LABELS)
_LARGEST = 1e300


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity of one training run: `n` steps and `v` validations that have it."""

    name: str
    """The training run's."""
    x: NumPyArray
    """float64 [n], ascending."""
    y: NumPyArray
    """float64 [n]."""
    validation_x: NumPyArray
    """float64 [v]."""
    validation_y: NumPyArray
    """float64 [v]."""


def training_runs(output: Path) -> list[str]:
    """Names of the training runs under `output` that have metrics."""
    runs = entries(output, "training")
    return sorted(path.name for path in runs if path.is_dir() and inside(path, "metrics.jsonl").is_file())


def read_curve(output: Path, name: str, *, x: str = "step", y: str = "text_loss") -> Curve:
    """The curve of the training run `name` under `output`.

    Seconds are the time of the steps, from their tokens and tokens per second; validations and checkpoints are not
    counted.

    Args:
        output: the `output.path` of the recipe.
        name: the training run's.
        x: one of `X_LABELS`.
        y: one of `Y_LABELS`.

    Raises:
        TrainerError: the run or the quantity does not exist, or the run never logged it; the choices are listed.
    """
    for option, value, known in (("x", x, X_LABELS), ("y", y, Y_LABELS)):
        if value not in known:
            guess = did_you_mean(value, known)
            raise TrainerError(f"{option}: unknown quantity {value!r}; available: {', '.join(known)}{guess}")
    path = _metrics_of(output, name)
    records = _records(path)
    steps = [record for record in records if "loss" in record]
    places = _places(steps, x)
    validation = _VALIDATIONS.get(y, y)
    validations = [record for record in records if "loss" not in record and record.get(validation) is not None]
    measured = [record for record in steps if record.get(y) is not None]
    if not measured and not validations:
        raise TrainerError(f"{path}: has no {y}; available: {', '.join(_logged(records)) or 'nothing yet'}")
    return Curve(
        name=name,
        x=_floats(places[record["step"]] for record in measured),
        y=_floats(record[y] for record in measured),
        validation_x=_floats(places[record["step"]] for record in validations if record["step"] in places),
        validation_y=_floats(record[validation] for record in validations if record["step"] in places),
    )


def _metrics_of(output: Path, name: str) -> Path:
    path = inside(output, Path("training", name, "metrics.jsonl"))
    if not path.is_file():
        runs = training_runs(output)
        raise TrainerError(
            f"{output}: no metrics of a training run {name!r}; "
            f"available: {', '.join(runs) or 'none'}{did_you_mean(name, runs)}"
        )
    return path


def read_group_curves(output: Path, name: str, *, by: str, x: str = "step", y: str = "text_loss") -> list[Curve]:
    """The curves of a training run's text loss for each value of an annotation column, the most text first.

    Args:
        output, name, x: as of `read_curve`.
        by: a column of the run's `group_by`.
        y: one of `GROUPED`.

    Raises:
        TrainerError: as `read_curve`, or the run has no losses by this column; the choices are listed.
    """
    if y not in GROUPED:
        raise TrainerError(f"by: {y} has no groups; available: {', '.join(GROUPED)}")
    whole = read_curve(output, name, x=x, y=y)  # checks the names
    path = _metrics_of(output, name)
    records = _records(path)
    known = sorted({column for record in records for column in _group_table(record, "loss")})
    if by not in known:
        available = ", ".join(known) or "none (see group_by)"
        raise TrainerError(f"{path}: no losses by {by!r}; available: {available}{did_you_mean(by, known)}")
    places = _places([record for record in records if "loss" in record], x)
    tokens: Counter[str] = Counter()
    for record in records:
        tokens.update(_group_values(record, "tokens", by=by))
    return [
        _group_curve(records, name=f"{whole.name}: {value}", by=by, value=value, places=places, y=y)
        for value, _ in tokens.most_common()
    ]


def _group_table(record: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The losses or tokens of a record by column and value; empty where it has none."""
    table = record.get(f"text_{kind}_by" if "loss" in record else f"validation_text_{kind}_by")
    return table if isinstance(table, Mapping) else {}


def _group_values(record: Mapping[str, Any], kind: str, *, by: str) -> dict[str, float]:
    values = _group_table(record, kind).get(by)
    return {value: n for value, n in values.items() if _is_number(n)} if isinstance(values, Mapping) else {}


def _group_curve(
    records: Sequence[Mapping[str, Any]], *, name: str, by: str, value: str, places: Mapping[int, float], y: str
) -> Curve:
    points: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for record in records:
        loss = _group_values(record, "loss", by=by).get(value)
        if loss is not None and record["step"] in places:
            points["loss" in record].append((places[record["step"]], loss))
    steps, validations = points[True] if y == "text_loss" else [], points[False]
    return Curve(
        name=name,
        x=_floats(place for place, _ in steps),
        y=_floats(loss for _, loss in steps),
        validation_x=_floats(place for place, _ in validations),
        validation_y=_floats(loss for _, loss in validations),
    )


def read_curves(
    output: Path, names: Sequence[str] | None, *, x: str = "step", y: str = "text_loss", by: str | None = None
) -> list[Curve]:
    """The curves of the named training runs; None: of all runs that logged the quantity.

    With `by`, each run has a curve for each value of that annotation column.

    Raises:
        TrainerError: as for `read_curve` and `read_group_curves`, or no run has metrics.
    """

    def read(name: str) -> list[Curve]:
        if by is None:
            return [read_curve(output, name, x=x, y=y)]
        return read_group_curves(output, name, x=x, y=y, by=by)

    if names is not None:
        return [curve for name in dict.fromkeys(names) for curve in read(name)]
    found, missing = [], TrainerError(f"{output}: no training run has metrics yet: run `colophon train` first")
    for name in training_runs(output):
        try:
            found += read(name)
        except TrainerError as error:
            missing = error
    if not found:
        raise missing
    return found


def _records(path: Path) -> list[dict[str, Any]]:
    content, records = read_regular(path, remedy="Remove it") or b"", []
    for line in content.decode(errors="replace").splitlines():
        with suppress(DamagedFileError):  # the last line of a run that is in progress or was killed
            record = parse_state(line, where=str(path), remedy="")
            if _is_record(record):
                records.append(record)
    return records


def _is_record(record: Mapping[str, Any]) -> bool:
    """Whether the values of a line that are drawn are numbers, and none that a curve needs is missing."""
    numbers = [record[name] for name in _NUMBERS if record.get(name) is not None]
    are_numbers = all(map(_is_number, numbers))
    has_place = all(record.get(name) is not None for name in _X_NUMBERS) and "tokens_per_second" in record
    return are_numbers and type(record.get("step")) is int and (has_place or "loss" not in record)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST  # type: ignore[arg-type]


def _places(steps: Sequence[Mapping[str, Any]], x: str) -> dict[int, float]:
    """The place of each step on the axis `x`; of step 0 too, for a validation before training.

    1,000 tokens at 500 tokens per second, then 1,000 more at 250, give seconds {0: 0, 1: 2, 2: 6}.
    """
    places, tokens, seconds = {0: 0.0}, 0, 0.0
    for record in steps:
        seconds += (record["tokens"] - tokens) / record["tokens_per_second"] if record["tokens_per_second"] else 0.0
        tokens = record["tokens"]
        places[record["step"]] = seconds if x == "seconds" else float(record[x])
    return places


def _logged(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in Y_LABELS if any(record.get(name) is not None for record in records)]


def _floats(values: Iterable[float]) -> NumPyArray:
    return np.fromiter(values, np.float64)
