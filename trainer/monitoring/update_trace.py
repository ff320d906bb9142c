"""The documents in an update of a training, from the order alone, with their losses where a checkpoint has the model.

A loss spike has documents behind it. The order is a pure function of (seed, step), so they are found after the fact,
without any record from the training, whatever its number of processes and wherever it was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colophon.shards.annotations import documents_of
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.differences import differences
from colophon.shards.common.output_paths import inside
from colophon.shards.schema import Role
from colophon.shards.stores.places import RunPlace
from colophon.trainer.checkpoints.checkpoint import checkpoints, step_of
from colophon.trainer.checkpoints.run_directory import run_directory
from colophon.trainer.data.batch import Batch
from colophon.trainer.data.document_numbers import DocumentNumbers
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.trained_model import load_trained, trained_run
from colophon.trainer.parallel import SharedModel, World
from colophon.trainer.step import Arithmetic, token_losses


@dataclass(frozen=True, kw_only=True)
class TracedDocument:
    """A document, or the part of it that an update trained on."""

    layout: str
    partition: str
    row: int
    """In the partition."""
    id: str | None
    """None where the run has neither tokens nor annotations."""
    annotations: Mapping[str, Any]
    """By column."""
    text_tokens: int
    """Labels of the update that are its text."""
    text_loss: float | None
    """Their mean loss in nats under the model of `UpdateTrace.checkpoint`."""


@dataclass(frozen=True, kw_only=True)
class UpdateTrace:
    """The documents of an update."""

    step: int
    text_tokens: int
    text_loss: float | None
    """Mean loss in nats of all its text under the model of `checkpoint`."""
    checkpoint: int | None
    """Updates before the checkpoint whose model gave the losses; step - 1 has those of the update itself."""
    documents: list[TracedDocument]
    """The highest loss first; without losses the most text first."""


def trace_update(
    output: Path,
    name: str,
    step: int,
    *,
    run: RunPlace | None = None,
    with_losses: bool = True,
    device: str | None = None,
) -> UpdateTrace:
    """The documents that update `step` of the training `name` under `output` trains on.

    Losses are those under the nearest checkpoint before the update or, if there is none, after it.

    Args:
        output: the local directory with `training/`.
        name: the training run's.
        step: from 1.
        run: the `output.path` of the recipe; None: `output`.
        with_losses: False: no model is loaded.
        device: None: CUDA where it is available, else the CPU.

    Raises:
        ShardError: a file of the run is missing or damaged.
        TrainerError: the training or the step does not exist, or its shards have changed since.
    """
    data = _data_as_trained(output, name, run=output if run is None else run)
    if not 1 <= step <= data.config.num_steps:
        raise TrainerError(f"{name}: no step {step}; it has steps 1 to {data.config.num_steps:,}")
    batch, numbers = data.traced(step)
    checkpoint = _nearest_checkpoint(output, name, before=step) if with_losses else None
    losses = None if checkpoint is None else _losses(output, name, batch, checkpoint=checkpoint, device=device)
    is_text = (batch.label_roles == Role.TEXT).numpy()
    of_labels = numbers[:, 1:][is_text]
    found, inverse, counts = np.unique(of_labels, return_inverse=True, return_counts=True)
    sums = None if losses is None else np.bincount(inverse, weights=losses[is_text], minlength=len(found))
    order = np.argsort(-(counts if sums is None else sums / counts), kind="stable")
    places = _documents(data.numbers, found[order].tolist())
    documents = [
        TracedDocument(
            **place, text_tokens=int(counts[i]), text_loss=None if sums is None else float(sums[i] / counts[i])
        )
        for i, place in zip(order.tolist(), places, strict=True)
    ]
    total = int(counts.sum())
    return UpdateTrace(
        step=step,
        text_tokens=total,
        text_loss=None if sums is None or not total else float(sums.sum() / total),
        checkpoint=checkpoint,
        documents=documents,
    )


def _data_as_trained(output: Path, name: str, *, run: RunPlace) -> TrainingData:
    """The data of a training with the settings of its `config.json`.

    Raises:
        TrainerError: the shards are no longer those of the training.
    """
    described = trained_run(output, name)
    data = TrainingData(described.config, output=run)
    before, now = described.shared, data.fingerprints(0)
    # Phases and the layouts that they add depend on the step at which config.json was written.
    compared = before.keys() & now.keys() - {"phases", "layouts"}
    changed = differences({key: before[key] for key in compared}, {key: now[key] for key in compared})
    if changed:
        raise TrainerError(f"{run}: the data has changed since {name} was trained: {'; '.join(changed)}")
    return data


def _nearest_checkpoint(output: Path, name: str, *, before: int) -> int | None:
    """The step of the newest checkpoint before an update, else of the oldest after it, else None."""
    directory = inside(run_directory(output, name), "checkpoints", is_directory=True)
    steps = [step_of(path) for path in checkpoints(directory)]
    return max((step for step in steps if step < before), default=min(steps, default=None))


def _losses(output: Path, name: str, batch: Batch, *, checkpoint: int, device: str | None) -> NumPyArray:
    """float64 [b, L]: the loss of each label under the model of a checkpoint."""
    trained = load_trained(output, name, step=checkpoint, device=device)
    world = World(device=trained.device)
    config = trained.config if trained.config.dtype != "float8" else trained.config.model_copy(update={"dtype": "auto"})
    arithmetic = Arithmetic.of(config, device=trained.device)
    model = SharedModel(trained.model, world=world, dtype=arithmetic.dtype, parallel=trained.config.parallel)
    with torch.no_grad():
        parts = [
            token_losses(model, micro.to(trained.device), on_host=micro, arithmetic=arithmetic)
            .losses.double()
            .cpu()
            .reshape(len(micro), -1)
            for micro in batch.split(trained.config.rows_at_once)
        ]
    found: NumPyArray = torch.cat(parts).numpy()
    return found


def _documents(numbers: DocumentNumbers, wanted: Iterable[int]) -> list[dict[str, Any]]:
    """The place, id and annotations of documents, in the order of their numbers in `wanted`."""
    places = [numbers.place(number) for number in wanted]
    by_partition: dict[tuple[int, str], list[int]] = {}
    for at, place in enumerate(places):
        by_partition.setdefault((id(place.packed), place.partition), []).append(at)
    found: list[dict[str, Any]] = [{} for _ in places]
    for at_places in by_partition.values():
        packed, partition = places[at_places[0]].packed, places[at_places[0]].partition
        rows = [places[at].row for at in at_places]
        for at, row, (document_id, values) in zip(
            at_places, rows, documents_of(packed.output, packed.manifest, partition, rows), strict=True
        ):
            found[at] = {
                "layout": packed.layout,
                "partition": partition,
                "row": row,
                "id": document_id,
                "annotations": values,
            }
    return found
