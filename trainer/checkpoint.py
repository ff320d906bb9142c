"""Checkpoints: a directory a step, whole or not there.

    checkpoints/step-00001000/model.safetensors        float32 weights, by parameter name
                              optimizer.safetensors    moments and step counts, by parameter name
                              state.json               step, counts, random state, what the run must share

It is written under a temporary name, synced, and renamed; so the newest one by name can be trusted.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from colophon.shards.common.durable import sync
from colophon.trainer.errors import NotWrittenError, TrainerError

MODEL_NAME, OPTIMIZER_NAME, STATE_NAME = "model.safetensors", "optimizer.safetensors", "state.json"
_TEMPORARY = ".unfinished-"


class TrainingState(BaseModel):
    """Where a run stands between two updates: the integers from which everything else follows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(ge=0)
    """Updates made; the data order is a function of it."""
    tokens: int = 0
    """Labels seen so far, padding not counted."""
    text_tokens: int = 0
    skipped_batches: int = 0
    """Global batches without a paid label."""


class _SavedState(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingState
    shared: dict[str, Any]
    """What a resumed run must share: settings, tokenizer and fingerprints of the shards."""
    torch_rng: str
    """State of torch's CPU generator, base64."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a run goes on from. Tensors are whole, on the host, whatever the number of processes."""

    state: TrainingState
    weights: Mapping[str, Tensor]
    """By parameter name."""
    optimizer: Mapping[str, Tensor]
    """By parameter name and part, see `ModelOptimizer.tensors`."""


def save_checkpoint(directory: Path, checkpoint: Checkpoint, *, shared: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint into `directory` and remove all but the newest `keep`. `shared`: what a resume must share.

    Raises:
        NotWrittenError: the disk is full, or cannot be written; nothing of the new checkpoint stays.
    """
    final = directory / f"step-{checkpoint.state.step:08d}"
    unfinished = directory / f"{_TEMPORARY}{final.name}"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _write(checkpoint, unfinished, shared=shared)
        unfinished.rename(final)
        sync(directory)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise NotWrittenError(f"{final}: not written: {error}; --resume goes on from the one before it") from error
    for old in checkpoints(directory)[:-keep]:
        # Renamed first: a kill halfway through must not leave half a checkpoint under a final name.
        shutil.rmtree(old.rename(directory / f"{_TEMPORARY}{old.name}"))
    return final


def _write(checkpoint: Checkpoint, directory: Path, *, shared: dict[str, Any]) -> None:
    save_tensors(checkpoint.weights, directory / MODEL_NAME)
    save_tensors(checkpoint.optimizer, directory / OPTIMIZER_NAME)
    rng = base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()
    saved = _SavedState(training=checkpoint.state, shared=shared, torch_rng=rng)
    (directory / STATE_NAME).write_text(saved.model_dump_json(indent=1))
    for path in (*directory.iterdir(), directory):
        sync(path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that whoever may read new files here can read: the library makes it its owner's alone.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata=metadata)
    path.chmod(mode)


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint in `directory`, if there is one."""
    return next(reversed(checkpoints(directory)), None)


def load_checkpoint(path: Path, *, shared: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint of a run that shares `shared`, and put torch's random state back as it was.

    Raises:
        TrainerError: the checkpoint is of another run (the differences are named), or cannot be read.
    """
    try:
        saved = _SavedState.model_validate_json((path / STATE_NAME).read_bytes())
        different = differences(saved.shared, shared)
        if different:
            raise TrainerError(f"cannot resume from {path}: this run differs from it: {'; '.join(different)}")
        weights, optimizer = load_file(path / MODEL_NAME), load_file(path / OPTIMIZER_NAME)
    except (OSError, ValidationError, SafetensorError) as error:
        raise _damaged(path, error) from None
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(saved.torch_rng)), dtype=torch.uint8))
    return Checkpoint(state=saved.training, weights=weights, optimizer=optimizer)


def read_weights(path: Path) -> tuple[TrainingState, dict[str, Tensor]]:
    """Where a checkpoint's run stood, and its weights by parameter name.

    Raises:
        TrainerError: the checkpoint cannot be read.
    """
    try:
        saved = _SavedState.model_validate_json((path / STATE_NAME).read_bytes())
        return saved.training, load_file(path / MODEL_NAME)
    except (OSError, ValidationError, SafetensorError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> TrainerError:
    return TrainerError(
        f"{path}: damaged checkpoint: {str(error).splitlines()[0]} (remove it to go on from the one before it)"
    )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`model.hidden_size 128 -> 256` for each entry of two nested JSON tables that is not the same."""
    flat_before, flat_now = _flatten(before), _flatten(now)
    names = [*flat_before, *(name for name in flat_now if name not in flat_before)]
    pairs = [(name, flat_before.get(name), flat_now.get(name)) for name in names]
    return [f"{name} {_short(old)} -> {_short(new)}" for name, old, new in pairs if old != new]


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat.update(_flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 16 else f"{text[:12]}…"


def checkpoints(directory: Path) -> list[Path]:
    """All checkpoints in `directory`, oldest first."""
    return sorted(directory.glob("step-*"))


def step_of(path: Path) -> int:
    """The step that a checkpoint was made after, by its name."""
    return int(path.name.removeprefix("step-"))
