"""The parts of a training run on one process: its data, model, optimizer and directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colophon.shards.schema import Role
from colophon.shards.stores.places import RunPlace
from colophon.trainer.checkpoints.run_directory import RunDirectory
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.device.compilation import compile_scope
from colophon.trainer.device.float8 import convert_layers
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.model.masked_ids import masked_ids
from colophon.trainer.monitoring.metrics import MetricsLog
from colophon.trainer.monitoring.trackers import check_trackers, open_trackers
from colophon.trainer.optimization.optimizer import ModelOptimizer
from colophon.trainer.parallel import SharedModel, World
from colophon.trainer.step import Arithmetic

Report = Callable[[str], None]
"""Gets human-readable lines."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The parts of one call of `train`, as one of the processes of `world`."""

    settings: TrainConfig
    """As in the recipe."""
    config: TrainConfig
    """The settings with their number of steps."""
    world: World
    directory: RunDirectory
    data: TrainingData
    arithmetic: Arithmetic
    masked_ids: list[int]
    model: SharedModel
    optimizer: ModelOptimizer
    report: Report
    """Drops the lines of processes other than the first."""

    @classmethod
    def open(
        cls, settings: TrainConfig, *, output: RunPlace, directory: Path, name: str, report: Report, world: World
    ) -> Run:
        """Open the data and build the model with its first weights; writes nothing. For arguments and errors see
        `train`."""
        report = report if world.is_first else lambda line: None
        check_trackers(settings)
        data = TrainingData(settings, output=output, report=report)
        arithmetic = Arithmetic.of(
            data.config, device=world.device, with_hits=_has_metadata(data), num_groups=len(_groups(data))
        )
        masked = masked_ids(data.config, data)
        decoder = _decoder(data, masked=masked, float8=arithmetic.float8, report=report, world=world)
        model = SharedModel(decoder, world=world, dtype=arithmetic.dtype, parallel=data.config.parallel)
        return cls(
            settings=settings,
            config=data.config,
            world=world,
            directory=RunDirectory(directory, name, world=world),
            data=data,
            arithmetic=arithmetic,
            masked_ids=masked,
            model=model,
            optimizer=ModelOptimizer(decoder, data.config),
            report=report,
        )

    @property
    def steps(self) -> int:
        """Updates of the run."""
        return self.config.num_steps

    @property
    def has_metadata(self) -> bool:
        """Whether metadata has loss weight in any layout."""
        return _has_metadata(self.data)

    @property
    def groups(self) -> Sequence[tuple[str, str]]:
        """Column and value of each group of `group_by`."""
        return _groups(self.data)

    def shared(self, step: int) -> dict[str, Any]:
        """JSON values that must be the same when the run is resumed after update `step`."""
        tokenizer = self.data.tokenizer.model_dump(mode="json")
        return {**self.config.resume_settings(), "tokenizer": tokenizer, **self.data.fingerprints(step)}

    def metrics_log(self, *, resumed_at: int) -> MetricsLog:
        """The metrics file and trackers; without output on processes other than the first."""
        write = self.world.is_first
        trackers = open_trackers(self.config, self.directory.path, resumed_at=resumed_at) if write else []
        return MetricsLog(self.directory.metrics, resumed_at=resumed_at, write=write, trackers=trackers)


def _has_metadata(data: TrainingData) -> bool:
    return bool(data.role_weights[Role.METADATA])


def _groups(data: TrainingData) -> Sequence[tuple[str, str]]:
    return [] if data.groups is None else data.groups.groups


def _decoder(data: TrainingData, *, masked: list[int], float8: bool, report: Report, world: World) -> Decoder:
    """A new model with its first weights, on the host."""
    config = data.config
    decoder = Decoder(
        config.model,
        tokenizer=data.tokenizer,
        masked_ids=masked,
        activation_checkpointing=config.activation_checkpointing,
        compiled=compile_scope(config, world=world, report=report),
    )
    decoder.initialise(seed=config.seed)
    if float8:
        names = convert_layers(decoder)
        report(f"float8: the products of {len(names)} matrices of {config.model.num_layers} layers")
    return decoder
