"""The plan of a training: its steps, tokens, micro-batch and the memory of its state. Starts and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from colophon.shards.stores.places import RunPlace
from colophon.trainer.checkpoints.checkpoint import latest_checkpoint, step_of
from colophon.trainer.checkpoints.run_directory import RunDirectory
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.documents.updates import DocumentUpdates
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.device.micro_batch import planned_rows_at_once
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.monitoring.trackers import check_trackers
from colophon.trainer.optimization.optimizer import ModelOptimizer
from colophon.trainer.parallel import World, device_of
from colophon.trainer.step import Arithmetic


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A training of one process that is not started."""

    name: str
    layouts: tuple[str, ...]
    """All that it reads, those of phases too, each once."""
    steps: int
    """Updates of the complete run."""
    tokens: int
    """Labels in all updates, without padding, as `tokens` in `metrics.jsonl`; with `order = "documents"` to about a
    hundredth."""
    text_tokens: int
    """Those of text, exactly."""
    epochs: float | None
    """How often the training rows or documents are read; None where there are several sources or phases of rows."""
    pairing: str | None
    """Equal for runs that train on the same text in every update and validate on the same documents; None with `order =
    "rows"`."""
    training_rows: int
    """Before the first phase."""
    validation_rows: int
    sequence_length: int
    batch_size: int
    micro_batch_size: int
    """Sequences at once."""
    micro_batch_is_searched: bool
    """Whether fewer sequences are computed at once where the memory of the device ends."""
    num_parameters: int
    state_bytes: int
    """Bytes of weights, gradients and the optimizer's state; activations come on top."""
    device: str
    """`cpu` or `cuda`."""
    directory: Path
    """The directory of metrics and checkpoints."""
    exists: bool
    """Whether the directory exists: then a training needs `resume` or `overwrite`."""
    checkpoint: int | None
    """The step of the newest checkpoint there."""


def plan_training(config: TrainConfig, *, name: str, output: RunPlace, directory: Path) -> TrainingPlan:
    """Read the packed layouts, as `train` does, and plan a training of one process.

    Cost: reading the runs of the layouts; for `order = "rows"` some tens of microseconds an update, too.

    Args:
        config: the settings.
        name: of the training run.
        output: the `output.path` of the run that packed the layouts; of a store, no row is read or cached.
        directory: the local directory with `training/`.

    Raises:
        ShardError: a layout is missing, or its files differ from their records.
        TrainerError: the settings do not fit the data or this machine.
    """
    check_trackers(config)
    world = World(device=device_of(config))
    data = TrainingData(config.model_copy(update={"cache_bytes": 0}), output=output)
    config = data.config
    Arithmetic.of(config, device=world.device)  # refuses kinds of attention that the device lacks
    with torch.device("meta"):
        decoder = Decoder(config.model, tokenizer=data.tokenizer)
        optimizer = ModelOptimizer(decoder, config)
    weight_bytes = sum(parameter.nbytes for parameter in decoder.parameters())
    rows_at_once, is_searched = planned_rows_at_once(config, world=world, sequence_length=data.sequence_length)
    updates, run = data.updates, RunDirectory(directory, name, world=world)
    checkpoint = latest_checkpoint(run.checkpoints)
    sources = [*config.mixed_sources, *(source for phase in config.phases for source in phase.mixed_sources)]
    return TrainingPlan(
        name=name,
        layouts=tuple(dict.fromkeys(source.layout for source in sources)),
        steps=config.num_steps,
        tokens=data.tokens(),
        text_tokens=data.text_tokens(),
        epochs=updates.epochs,
        pairing=updates.pairing if isinstance(updates, DocumentUpdates) else None,
        training_rows=data.num_rows,
        validation_rows=len(data.validation_rows),
        sequence_length=data.sequence_length,
        batch_size=config.batch_size,
        micro_batch_size=rows_at_once,
        micro_batch_is_searched=is_searched,
        num_parameters=decoder.num_parameters,
        state_bytes=2 * weight_bytes + optimizer.num_state_bytes(),
        device=world.device.type,
        directory=run.path,
        exists=run.path.exists(),
        checkpoint=None if checkpoint is None else step_of(checkpoint),
    )
