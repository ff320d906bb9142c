"""Checkpoints: one directory per step, complete or absent.

    checkpoints/step-00001000/model.safetensors        float32 weights, by parameter name
                              optimizer.safetensors    moments and step counts, by parameter name
                              state.json               step, counts, random state, what a resume must share, and the
                                                       layouts, tokenizer and annotators of the training

A directory is written under a temporary name, synced and renamed, so the newest one by name is complete.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from colophon.shards.common.differences import differences
from colophon.shards.common.durable import TEMPORARY_SUFFIX, created_directory, temporary_path
from colophon.shards.common.errors import DamagedFileError, one_line
from colophon.shards.common.output_paths import entries, inside
from colophon.shards.common.state_files import parse_model, read_regular
from colophon.shards.schema import Role
from colophon.trainer.config import with_current_keys
from colophon.trainer.data.description import DataDescription
from colophon.trainer.errors import NotWrittenError, TrainerError
from colophon.trainer.model.loss import LossTotals

_REMEDY = "Remove it to resume from the checkpoint before it"
_NAME = re.compile(r"step-[0-9]{8,18}")
_LONGEST_STEP = 20
MODEL_NAME, OPTIMIZER_NAME, STATE_NAME = "model.safetensors", "optimizer.safetensors", "state.json"


class TrainingState(BaseModel):
    """The state of a run between two updates: the integers from which everything else follows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(ge=0)
    """Number of updates; the data order is a function of it."""
    tokens: int = Field(0, ge=0)
    """Labels so far, without padding."""
    text_tokens: int = Field(0, ge=0)
    skipped_batches: int = Field(0, ge=0)
    """Global batches in which no label has loss weight."""

    def after(self, totals: LossTotals) -> TrainingState:
        """The state after one more update, whose global batch has the losses `totals`."""
        return TrainingState(
            step=self.step + 1,
            tokens=self.tokens + totals.tokens,
            text_tokens=self.text_tokens + totals.labels_by_role[Role.TEXT],
            skipped_batches=self.skipped_batches + (not totals.weight),
        )


class _SavedState(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingState
    shared: dict[str, Any]
    """Settings, tokenizer and fingerprints of the shards; they must be the same when the run is resumed."""
    torch_rng: str
    """State of torch's CPU generator, in base64."""
    data: DataDescription | None = None
    """None: written by an earlier version."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state, weights and optimizer of a run. Tensors are complete and on the host, for any number of processes;
    those of `load_checkpoint` are mapped from the file, which is read where they are used."""

    state: TrainingState
    weights: Mapping[str, Tensor]
    """By parameter name."""
    optimizer: Mapping[str, Tensor]
    """By parameter name and part, see `ModelOptimizer.tensors`."""
    random_state: Tensor = field(default_factory=torch.get_rng_state)
    """State of torch's generator on the CPU, uint8 [n]; by default that of now: the checkpoint may be written later."""


@dataclass(frozen=True, kw_only=True)
class TrainedWeights:
    """The parts of a checkpoint that the use of a model needs."""

    state: TrainingState
    data: DataDescription
    weights: Mapping[str, Tensor]
    """By parameter name."""


def save_checkpoint(
    directory: Path, checkpoint: Checkpoint, *, data: DataDescription, shared: dict[str, Any], keep: int
) -> Path:
    """Write a checkpoint into `directory`, then remove all but the newest `keep`; returns its path.

    Args:
        directory: of the run's checkpoints. Temporary directories of killed saves are removed from it.
        checkpoint: on one process only.
        data: the data of the training so far.
        shared: JSON values that must be the same when the run is resumed.
        keep: number of checkpoints, at least 1.

    Raises:
        NotWrittenError: the disk is full, or cannot be written; no part of the new checkpoint is left.
    """
    final = directory / name_of(checkpoint.state.step)
    for leftover in directory.glob(f".step-*{TEMPORARY_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with created_directory(final) as temporary:
            _write(checkpoint, temporary, data=data, shared=shared)
    except (OSError, SafetensorError) as error:
        raise NotWrittenError(
            f"{final}: not written: {error}; --resume continues from the checkpoint before it"
        ) from error
    for old in checkpoints(directory)[:-keep]:
        # Renamed first: a kill during the removal must not leave a part of a checkpoint under a final name.
        shutil.rmtree(old.rename(temporary_path(old)))
    return final


def _write(checkpoint: Checkpoint, directory: Path, *, data: DataDescription, shared: dict[str, Any]) -> None:
    save_tensors(checkpoint.weights, directory / MODEL_NAME)
    save_tensors(checkpoint.optimizer, directory / OPTIMIZER_NAME)
    rng = base64.b64encode(checkpoint.random_state.numpy().tobytes()).decode()
    saved = _SavedState(training=checkpoint.state, shared=shared, torch_rng=rng, data=data)
    (directory / STATE_NAME).write_text(saved.model_dump_json(indent=1))


def save_tensors(tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file with the permissions of any new file; the library alone would make it private.

    Raises:
        OSError, SafetensorError: the file cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata=metadata)
    path.chmod(mode)


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint in `directory`, if there is one."""
    return next(reversed(checkpoints(directory)), None)


def load_checkpoint(path: Path, *, shared: dict[str, Any]) -> Checkpoint:
    """Read a checkpoint whose shared values equal `shared`, and restore torch's random state.

    Raises:
        TrainerError: shared values differ (the message lists them), or the checkpoint cannot be read.
    """
    try:
        saved = _saved_state(path)
        if saved.data is None:
            raise _of_earlier_version(path)
        different = differences(with_current_keys(saved.shared), shared)
        if different:
            raise TrainerError(f"cannot resume from {path}: this run has changed: {'; '.join(different)}")
        weights, optimizer = _tensors(path, MODEL_NAME), _tensors(path, OPTIMIZER_NAME)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from None
    try:
        random_state = bytearray(base64.b64decode(saved.torch_rng, validate=True))
        torch.set_rng_state(torch.frombuffer(random_state, dtype=torch.uint8))
    except (ValueError, RuntimeError, TypeError) as error:
        raise _damaged(path, error) from None
    return Checkpoint(state=saved.training, weights=weights, optimizer=optimizer)


def read_trained(path: Path) -> TrainedWeights:
    """The weights of a checkpoint, with the state and the data of the training.

    Raises:
        TrainerError: the checkpoint cannot be read, or an earlier version wrote it without the data.
    """
    try:
        saved = _saved_state(path)
        if saved.data is None:
            raise _of_earlier_version(path)
        return TrainedWeights(state=saved.training, data=saved.data, weights=_tensors(path, MODEL_NAME))
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from None


def _tensors(path: Path, name: str) -> dict[str, Tensor]:
    return load_file(inside(path, name))


def _saved_state(path: Path) -> _SavedState:
    content = read_regular(path / STATE_NAME, remedy=_REMEDY)
    if content is None:
        raise TrainerError(f"{path}: damaged checkpoint: no {STATE_NAME}. {_REMEDY}")
    try:
        where = f"{path}: damaged checkpoint: {STATE_NAME}"
        saved = parse_model(_SavedState, content, where=where, remedy=_REMEDY)
    except DamagedFileError as error:
        raise TrainerError(str(error)) from None
    if saved.training.step != step_of(path):
        step = str(saved.training.step)[:_LONGEST_STEP]
        raise TrainerError(f"{path}: damaged checkpoint: {STATE_NAME} is that of step {step}. {_REMEDY}")
    return saved


def _of_earlier_version(path: Path) -> TrainerError:
    return TrainerError(
        f"{path}: an earlier version wrote this checkpoint, without the layout, tokenizer and annotators of its "
        "training. Train the model again with this version"
    )


def _damaged(path: Path, error: Exception) -> TrainerError:
    return TrainerError(f"{path}: damaged checkpoint: {one_line(error)}. {_REMEDY}")


def checkpoints(directory: Path) -> list[Path]:
    """All checkpoints in `directory`, oldest first.

    Raises:
        OutputPathError: an entry of the directory is a link, a pipe or the like.
    """
    found = entries(directory.parent, directory.name)
    named = [path for path in found if _NAME.fullmatch(path.name) and path.name == name_of(step_of(path))]
    return sorted((path for path in named if path.is_dir()), key=step_of)


def name_of(step: int) -> str:
    """The name of the checkpoint after `step` updates."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The number of updates before a checkpoint, from its name."""
    return int(path.name.removeprefix("step-"))
