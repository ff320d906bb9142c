"""The metrics of a run: `metrics.jsonl`, and lines on the console.

One object per step:

    step, loss (the training objective), text_loss (mean over text labels, unweighted), metadata_loss (likewise) and
    metadata_accuracy (share of metadata labels that no other id exceeds in probability; both null where metadata has no
    loss weight in any layout), tokens and text_tokens (labels since the start, without padding), lr, grad_norm (before
    clipping), tokens_per_second, data_wait (share of the step's time spent waiting for its batch), mfu (share of the
    devices' peak that the model's own arithmetic takes; null where the peak is unknown), memory_gb (highest so far on
    one device; of the process on CPU), skipped_batches (batches since the start in which no label has loss weight);
    with `group_by` also text_loss_by and text_tokens_by: by column and value, of this update's text

and one per validation: step, validation_text_loss, validation_text_tokens, validation_metadata_loss,
validation_metadata_accuracy, with `group_by` also validation_text_loss_by and validation_text_tokens_by. Losses are in
nats per token; a skipped batch has null for `loss` and `grad_norm`. Wrapper and eos count in `loss` where they have
loss weight, and in no other field.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TextIO

from colophon.shards.common.durable import replace_text, sync_open_file
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.common.output_paths import open_regular
from colophon.shards.common.state_files import parse_state, read_regular
from colophon.shards.schema import Role
from colophon.trainer.checkpoints.checkpoint import TrainingState
from colophon.trainer.errors import NotWrittenError
from colophon.trainer.model.loss import LossTotals
from colophon.trainer.monitoring.speed import Pace
from colophon.trainer.monitoring.trackers import Tracker


class MetricsLog:
    """An append-only JSONL file, flushed after every line, and the trackers that get the same records."""

    def __init__(self, path: Path, *, resumed_at: int, write: bool = True, trackers: Sequence[Tracker] = ()) -> None:
        """Open `path` and drop the lines after update `resumed_at`, which the run will write again.

        The validation after that update is dropped too: the checkpoint is written before it, so the run repeats it.

        Args:
            path: of `metrics.jsonl`.
            resumed_at: the last update of the checkpoint; 0 for a new run.
            write: False: nothing is written, because a different process of the run writes.
            trackers: they get every record too.
        """
        self._path, self._trackers = path, trackers
        if write:
            content = read_regular(path, remedy="Remove it; --resume begins a new one") or b""
            lines = content.decode(errors="replace").splitlines()
            replace_text(path, "".join(f"{line}\n" for line in lines if _is_before(line, resumed_at)))
        self._file = _opened_at_end(path) if write else None

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            # Closing writes again the line that `write` could not write, and has raised an error for.
            with nullcontext() if error is None else suppress(OSError):
                self._file.close()
        for tracker in self._trackers:
            tracker.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one object, and pass it to the trackers.

        Raises:
            NotWrittenError: the disk is full, or cannot be written.
        """
        if self._file is not None:
            try:
                self._file.write(json.dumps(record, allow_nan=False) + "\n")
            except OSError as error:
                raise NotWrittenError(
                    f"{self._path}: not written: {error}; --resume continues from the last checkpoint"
                ) from error
        for tracker in self._trackers:
            tracker.write(record)

    def sync(self) -> None:
        """Wait until all lines are on disk."""
        if self._file is not None:
            self._file.flush()
            sync_open_file(self._file.fileno())


def _opened_at_end(path: Path) -> TextIO:
    return os.fdopen(open_regular(path, os.O_WRONLY | os.O_APPEND), "a", buffering=1, encoding="utf-8")


def _is_before(line: str, resumed_at: int) -> bool:
    try:
        record = parse_state(line, where="", remedy="")
        return bool(record["step"] < resumed_at or (record["step"] == resumed_at and "loss" in record))
    except (DamagedFileError, TypeError, KeyError):  # an incomplete last line of a killed run, or damage
        return False


def step_record(
    totals: LossTotals,
    *,
    state: TrainingState,
    with_metadata: bool,
    groups: Sequence[tuple[str, str]],
    rate: float,
    norm: float | None,
    timing: Mapping[str, float | None],
) -> dict[str, Any]:
    """The fields of one update.

    Args:
        totals: losses of the global batch.
        state: after the update.
        with_metadata: whether metadata has loss weight in any layout.
        groups: column and value of each group of text.
        rate: learning rate.
        norm: of the gradient, before clipping; None where the update was skipped.
        timing: the fields that depend on the machine.
    """
    return {
        "step": state.step,
        "loss": totals.loss,
        "text_loss": totals.mean(Role.TEXT),
        **_metadata_record(totals, with_metadata=with_metadata),
        **_group_record(totals, groups),
        "tokens": state.tokens,
        "text_tokens": state.text_tokens,
        "lr": rate,
        "grad_norm": norm,
        **timing,
        "skipped_batches": state.skipped_batches,
    }


def validation_record(
    totals: LossTotals, *, step: int, with_metadata: bool, groups: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The fields of one validation."""
    more = {**_metadata_record(totals, with_metadata=with_metadata), **_group_record(totals, groups)}
    return {
        "step": step,
        "validation_text_loss": totals.mean(Role.TEXT),
        "validation_text_tokens": totals.labels_by_role[Role.TEXT],
        **{f"validation_{name}": value for name, value in more.items()},
    }


def _metadata_record(totals: LossTotals, *, with_metadata: bool) -> dict[str, float | None]:
    return {
        "metadata_loss": totals.mean(Role.METADATA) if with_metadata else None,
        "metadata_accuracy": totals.accuracy(Role.METADATA) if with_metadata else None,
    }


def _group_record(totals: LossTotals, groups: Sequence[tuple[str, str]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean loss and number of text labels by column and value; values without text are missing."""
    losses: dict[str, dict[str, float]] = {column: {} for column, _ in groups}
    tokens: dict[str, dict[str, float]] = {column: {} for column, _ in groups}
    for (column, value), loss, labels in zip(groups, totals.losses_by_group, totals.labels_by_group, strict=True):
        if labels:
            losses[column][value], tokens[column][value] = loss / labels, labels
    return {"text_loss_by": losses, "text_tokens_by": tokens} if groups else {}


def step_line(record: Mapping[str, Any], *, steps: int, pace: Pace) -> str:
    """A console line for one step; tokens/s and mfu are those of all steps since the line before."""
    fields = [
        f"step {record['step']}/{steps}",
        f"loss {_loss(record['loss'])}",
        f"text {_loss(record['text_loss'])}",
        *([] if record["metadata_loss"] is None else [f"metadata {_loss(record['metadata_loss'])}"]),
        f"lr {record['lr']:.2e}",
        f"{record['tokens_per_second']:,.0f} tokens/s",
        *([] if record["mfu"] is None else [f"mfu {record['mfu']:.1%}"]),
        f"{record['memory_gb']:.1f} GB",
        f"{pace.left(steps - record['step'])} left",
        *([f"{record['skipped_batches']} batches without loss weight"] if record["skipped_batches"] else []),
    ]
    return "  ".join(fields)


def validation_line(record: Mapping[str, Any], *, steps: int) -> str:
    """A console line for one validation."""
    fields = [f"step {record['step']}/{steps}", f"validation text {record['validation_text_loss']:.4f}"]
    if record["validation_metadata_loss"] is not None:
        accuracy = record["validation_metadata_accuracy"]
        fields.append(f"metadata {record['validation_metadata_loss']:.4f} ({accuracy:.1%} of tokens right)")
    return "  ".join(fields)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
