"""What a run tells while it goes on: `metrics.jsonl`, and a line on the console.

One object a step:

    step, loss (what is minimised), text_loss (mean over text labels, unweighted), metadata_loss (likewise) and
    metadata_accuracy (share of metadata labels than which no other id was likelier; both null where no layout pays for
    metadata), tokens and text_tokens (labels seen since the start, without padding), lr, grad_norm (before clipping),
    tokens_per_second, data_wait (share of the step's time that it waited for its batch), mfu (share of the devices'
    peak that the model's own arithmetic takes; null where the peak is not known), memory_gb (highest so far on one
    device; of the process on CPU), skipped_batches (without a paid label, since the start)

and one a validation: step, validation_text_loss, validation_text_tokens, validation_metadata_loss,
validation_metadata_accuracy. Losses are in nats a token; a batch without a paid label has null for `loss` and
`grad_norm`. Wrapper and eos count in `loss` where they are paid, and in no other.
"""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from colophon.trainer.errors import NotWrittenError
from colophon.trainer.trackers import Tracker


class MetricsLog:
    """An append-only JSONL file; a line is on its way to disk when `write` returns."""

    def __init__(self, path: Path, *, resumed_at: int, write: bool = True, trackers: Sequence[Tracker] = ()) -> None:
        """Open `path`, cut back to what stands before a run that goes on after update `resumed_at`.

        The validation after that update is cut too: a checkpoint is written before it, so the run does it again.
        Without `write` nothing is touched: another process of the run does it. `trackers` get every line too.
        """
        self._path, self._trackers = path, trackers
        if write:
            kept = [line for line in _lines(path) if _stands_before(line, resumed_at)]
            temporary = path.with_name(f".{path.name}")
            temporary.write_text("".join(f"{line}\n" for line in kept))
            temporary.replace(path)
        self._file = path.open("a", buffering=1) if write else None

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            # Closing tries once more to write the line that `write` could not, and told of.
            with nullcontext() if error is None else suppress(OSError):
                self._file.close()
        for tracker in self._trackers:
            tracker.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one object.

        Raises:
            NotWrittenError: the disk is full, or cannot be written.
        """
        if self._file is not None:
            try:
                self._file.write(json.dumps(record, allow_nan=False) + "\n")
            except OSError as error:
                raise NotWrittenError(
                    f"{self._path}: not written: {error}; --resume goes on from the last checkpoint"
                ) from error
        for tracker in self._trackers:
            tracker.write(record)

    def sync(self) -> None:
        """Wait until everything written is on disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _stands_before(line: str, resumed_at: int) -> bool:
    try:
        record = json.loads(line)
    except ValueError:  # the last line of a killed run
        return False
    return bool(record["step"] < resumed_at or (record["step"] == resumed_at and "loss" in record))


class Pace:
    """How fast steps go: over all of them, and lately. The first, which compiles, counts only while it is the only
    one."""

    def __init__(self) -> None:
        self._steps, self._tokens, self._seconds = 0, 0, 0.0
        self._seconds_lately = 0.0

    def add(self, seconds: float, *, tokens: int) -> None:
        """Count one step."""
        self._steps += 1
        if self._steps <= 2:
            self._tokens, self._seconds, self._seconds_lately = tokens, seconds, seconds
        else:
            self._tokens, self._seconds = self._tokens + tokens, self._seconds + seconds
            self._seconds_lately = 0.95 * self._seconds_lately + 0.05 * seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Over all steps counted but the first."""
        return self._tokens / self._seconds if self._seconds else None

    def left(self, steps: int) -> timedelta:
        """Time that `steps` more steps will take at the pace of the last twenty or so."""
        return timedelta(seconds=round(steps * self._seconds_lately))


_PEAK_FLOPS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10": 125e12,
    "4090": 165e12,
    "V100": 125e12,
}
"""Operations a second of bfloat16 (V100: float16) matrix products without sparsity, by whole words of the device's
name; from NVIDIA's data sheets. The first that fits counts."""


def peak_flops(device_name: str) -> float | None:
    """What a GPU can do at most, see `_PEAK_FLOPS`; None where that is not known."""
    fits = (peak for words, peak in _PEAK_FLOPS.items() if re.search(rf"\b{words}\b", device_name))
    return next(fits, None)


class Speed:
    """How much of the hardware a run uses."""

    def __init__(self, flops_per_token: int, *, device: torch.device, world_size: int) -> None:
        """Args: what the model's arithmetic takes forward and backward, where, and on how many devices."""
        self._flops_per_token, self._device = flops_per_token, device
        self._peak = None
        if device.type == "cuda":
            peak = peak_flops(torch.cuda.get_device_name(device))
            self._peak = None if peak is None else peak * world_size

    def record(self, tokens_per_second: float) -> dict[str, float | None]:
        """`mfu` and `memory_gb`."""
        mfu = None if self._peak is None else tokens_per_second * self._flops_per_token / self._peak
        if self._device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self._device)
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"mfu": mfu, "memory_gb": memory / 1e9}


def step_line(record: Mapping[str, Any], *, steps: int, pace: Pace) -> str:
    """One step for the console."""
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
        *([f"{record['skipped_batches']} batches without a paid label"] if record["skipped_batches"] else []),
    ]
    return "  ".join(fields)


def validation_line(record: Mapping[str, Any], *, steps: int) -> str:
    """One validation for the console."""
    fields = [f"step {record['step']}/{steps}", f"validation text {record['validation_text_loss']:.4f}"]
    if record["validation_metadata_loss"] is not None:
        accuracy = record["validation_metadata_accuracy"]
        fields.append(f"metadata {record['validation_metadata_loss']:.4f} ({accuracy:.1%} right)")
    return "  ".join(fields)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
