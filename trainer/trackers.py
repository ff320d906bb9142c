"""Metrics to TensorBoard and Weights & Biases as well, where a run asks for it. Both are optional packages."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import TrainerError


class Tracker(Protocol):
    """Somewhere that shows curves."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one line of `metrics.jsonl`."""

    def close(self) -> None:
        """Wait until everything is stored."""


class TensorBoard:
    """Event files under `<directory>/tensorboard`. A resumed run cuts what its checkpoint does not know."""

    def __init__(self, directory: Path, *, resumed_at: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(str(directory / "tensorboard"), purge_step=resumed_at + 1)

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one line of `metrics.jsonl`."""
        for name, value in _scalars(record).items():
            self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Wait until everything is stored."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project; `WANDB_MODE`, `WANDB_API_KEY` and the others say where it goes, as always."""

    def __init__(self, project: str, directory: Path, *, config: TrainConfig) -> None:
        import wandb

        # A resume goes on with the same run; one that is overwritten leaves its directory, and this file, behind.
        file = directory / "wandb-id"
        if not file.exists():
            file.write_text(uuid.uuid4().hex)
        self._run: Any = wandb.init(
            project=project,
            name=directory.name,
            dir=directory,
            config=config.model_dump(mode="json"),
            resume="allow",
            id=file.read_text(),
        )

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one line of `metrics.jsonl`."""
        self._run.log(_scalars(record), step=record["step"])

    def close(self) -> None:
        """Wait until everything is stored."""
        self._run.finish()


def check_trackers(config: TrainConfig) -> None:
    """Whether what a run asks for is installed.

    Raises:
        TrainerError: it is not.
    """
    wanted = {"tensorboard": config.tensorboard, "wandb": config.wandb_project is not None}
    for package, is_wanted in wanted.items():
        if is_wanted and importlib.util.find_spec(package) is None:
            raise TrainerError(f"{package} is not installed: pip install 'colophon[{package}]', or -e '.[{package}]'")


def trackers_of(config: TrainConfig, directory: Path, *, resumed_at: int) -> list[Tracker]:
    """What a run asks for; `check_trackers` has seen that it is installed."""
    trackers: list[Tracker] = []
    if config.tensorboard:
        trackers.append(TensorBoard(directory, resumed_at=resumed_at))
    if config.wandb_project is not None:
        trackers.append(WeightsAndBiases(config.wandb_project, directory, config=config))
    return trackers


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "step" and value is not None}
