"""The files of a training run, under `<output>/training/<name>/`:

config.json                  settings, layouts, sizes; written at each start
metrics.jsonl                one line per step and validation
micro_batch.json             the sequences at once that were found to fit, see `trainer.device.micro_batch`
checkpoints/step-XXXXXXXX/   see `trainer.checkpoints.checkpoint`
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colophon.shards.common.differences import differences
from colophon.shards.common.durable import replace_text
from colophon.shards.common.output_paths import inside
from colophon.shards.common.state_files import read_state
from colophon.trainer.checkpoints.checkpoint import latest_checkpoint, step_of
from colophon.trainer.config import TrainConfig, with_current_keys
from colophon.trainer.errors import TrainerError
from colophon.trainer.parallel import World


def run_directory(output: Path, name: str) -> Path:
    """The directory of the training run `name` under `output`, which need not exist.

    Raises:
        OutputPathError: it is reached through a link.
    """
    return inside(output, Path("training", name), is_directory=True)


class RunDirectory:
    """The directory of one training run, shared by the processes of `world`; the first one writes."""

    def __init__(self, output: Path, name: str, *, world: World) -> None:
        """The directory of the training run `name` under `output`; its parts are checked, see `output_paths.inside`."""
        self._output, self._name, self._world = output, name, world

    @property
    def path(self) -> Path:
        """The directory."""
        return run_directory(self._output, self._name)

    @property
    def metrics(self) -> Path:
        """The metrics file."""
        return inside(self.path, "metrics.jsonl")

    @property
    def micro_batch(self) -> Path:
        """The file of the micro-batch's size."""
        return inside(self.path, "micro_batch.json")

    @property
    def checkpoints(self) -> Path:
        """The directory of all checkpoints."""
        return inside(self.path, "checkpoints", is_directory=True)

    def prepare(self, *, steps: int, resume: bool, overwrite: bool) -> Path | None:
        """Check what exists, remove it if `overwrite`; returns the checkpoint to resume from, if there is one.

        Args:
            steps: of the run.
            resume: continue an existing run.
            overwrite: remove an existing run.

        Raises:
            TrainerError: the directory exists and is neither resumed nor overwritten, or has a later checkpoint.
            OutputPathError: the directory is reached through a link.
        """
        if resume and overwrite:
            raise TrainerError("a run is either resumed or overwritten, not both")
        path = self.path
        if path.exists() and not (resume or overwrite):
            raise TrainerError(
                f"{path} exists: --resume continues it, --overwrite deletes it; or rename its [train.<name>]"
            )
        self._world.wait()  # every process has checked
        if overwrite and self._world.is_first:
            shutil.rmtree(path, ignore_errors=True)  # follows no link
        self._world.wait()
        checkpoint = latest_checkpoint(self.checkpoints)
        if checkpoint is not None and step_of(checkpoint) > steps:
            raise TrainerError(f"steps is {steps}, but {checkpoint} is after {step_of(checkpoint)} steps")
        return checkpoint

    def write_config(self, config: TrainConfig, *, resumed: bool, description: Mapping[str, Any]) -> list[str]:
        """Write `config.json` with the settings and `description`; returns the settings that a resume changed."""
        path, settings, changes = inside(self.path, "config.json"), config.model_dump(mode="json"), []
        if self._world.is_first:
            before = read_state(path, remedy="Delete it; --resume writes it again") if resumed else None
            if before is not None:
                config_before = before.get("config")
                known = with_current_keys(config_before) if isinstance(config_before, dict) else {}
                changes = differences(known, settings)
            replace_text(path, json.dumps({"config": settings, **description}, indent=1) + "\n")
        self._world.wait()
        return changes
