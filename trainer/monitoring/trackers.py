"""Metrics in TensorBoard and Weights & Biases, if a run's settings ask for them. Both are optional packages."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from colophon.shards.common.durable import replace_text
from colophon.shards.common.output_paths import inside
from colophon.shards.common.state_files import read_regular
from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import TrainerError

_MAX_ID_BYTES = 100


class Tracker(Protocol):
    """A program that draws curves of metrics."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one record of `metrics.jsonl`."""

    def close(self) -> None:
        """Wait until everything is stored."""


class TensorBoard:
    """Event files under `<directory>/tensorboard`. A resumed run hides the steps after its checkpoint."""

    def __init__(self, directory: Path, *, resumed_at: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(
            str(inside(directory, "tensorboard", is_directory=True)), purge_step=resumed_at + 1
        )

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one record of `metrics.jsonl`."""
        for name, value in _scalars(record).items():
            self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Wait until everything is stored."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project, configured by `WANDB_MODE`, `WANDB_API_KEY` and wandb's other variables."""

    def __init__(self, project: str, directory: Path, *, config: TrainConfig) -> None:
        import wandb

        # A resume continues the same run of the project. Overwriting removes this file, so it starts a new one.
        file = inside(directory, "wandb-id")
        content = read_regular(file, max_bytes=_MAX_ID_BYTES, remedy="Remove it; a new run of the project begins")
        run_id = uuid.uuid4().hex if content is None else content.decode(errors="replace")
        if content is None:
            replace_text(file, run_id)
        inside(directory, "wandb", is_directory=True)
        self._run: Any = wandb.init(
            project=project,
            name=directory.name,
            dir=directory,
            config=config.model_dump(mode="json"),
            resume="allow",
            id=run_id,
        )

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one record of `metrics.jsonl`."""
        self._run.log(_scalars(record), step=record["step"])

    def close(self) -> None:
        """Wait until everything is stored."""
        self._run.finish()


def check_trackers(config: TrainConfig) -> None:
    """Check that the trackers of a run are installed.

    Raises:
        TrainerError: one is not.
    """
    packages = {"tensorboard": config.tensorboard, "wandb": config.wandb_project is not None}
    for package, is_needed in packages.items():
        if is_needed and importlib.util.find_spec(package) is None:
            raise TrainerError(f"{package} is not installed: pip install 'colophon[{package}]', or -e '.[{package}]'")


def open_trackers(config: TrainConfig, directory: Path, *, resumed_at: int) -> list[Tracker]:
    """The trackers of a run, which `check_trackers` has found to be installed."""
    trackers: list[Tracker] = []
    if config.tensorboard:
        trackers.append(TensorBoard(directory, resumed_at=resumed_at))
    if config.wandb_project is not None:
        trackers.append(WeightsAndBiases(config.wandb_project, directory, config=config))
    return trackers


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name; those of groups are named `text_loss_by/topic/Games`."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{key}": number for key, number in _scalars(value).items()}
        elif name != "step" and value is not None:
            found[name] = value
    return found
