"""The training loop: start, update, validate, write checkpoints.

`trainer.checkpoints.run_directory` describes the files of a run.
"""

from __future__ import annotations

import signal
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from colophon.shards.stores.places import RunPlace
from colophon.trainer.checkpoints.checkpoint import TrainingState
from colophon.trainer.checkpoints.saver import Saver
from colophon.trainer.config import TrainConfig
from colophon.trainer.device.out_of_memory import out_of_memory_advice
from colophon.trainer.errors import TrainerError
from colophon.trainer.parallel import World, joined_world
from colophon.trainer.run import Report, Run
from colophon.trainer.start import choose_micro_batch, start
from colophon.trainer.stop_request import StopRequest
from colophon.trainer.updates import Updates
from colophon.trainer.validation import validate


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The end of a run."""

    directory: Path
    """The directory of its metrics and checkpoints."""
    state: TrainingState
    steps: int
    """Updates of the complete run."""
    stopped_by: str | None
    """The signal that ended the run; it may have arrived after the last step."""
    loss: float | None
    """Loss of the last step of this call."""
    text_loss: float | None
    validation_text_loss: float | None
    """Loss of the last validation of this call; None where there are no validation rows."""
    num_parameters: int
    tokens_per_second: float | None
    """Over all steps of this call, without validation and checkpoints."""


def train(
    config: TrainConfig,
    *,
    name: str,
    output: RunPlace,
    directory: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = lambda line: None,
) -> TrainResult:
    """Train on a packed layout of the run under `output`.

    A thread writes checkpoints while the training continues, see `trainer.checkpoints.writer`. SIGTERM, SIGUSR1 and
    SIGINT end the run after the current step, with a checkpoint, once that is written. Under torchrun all processes of
    the run call this with the same arguments; the first one reports and writes.

    Args:
        config: the settings.
        name: of the training run; its directory under `training/`.
        output: the `output.path` of the run that packed the layout.
        directory: the local directory with `training/`; None: `output`, which is local.
        resume: continue from the newest checkpoint, or from the start where there is none. On CPU a resumed run has the
            same losses and weights, to the bit, as an unbroken one.
        overwrite: remove the files of an earlier training run of this name.
        report: gets human-readable lines.

    Raises:
        ShardError: the layout is missing, or its files differ from their records.
        TrainerError: a run of this name exists, or its checkpoint has other shards or settings.
        DivergedError: a gradient that is not finite; the last checkpoint has finite weights.
        OutOfMemoryError: the device has too little memory.
        NotWrittenError: the disk has too little space.
    """
    with joined_world(config) as world, out_of_memory_advice(config):
        # In a frame of its own, so that no part of the model is left when `joined_world` closes the connections.
        return _train(
            config,
            output=output,
            directory=_local_directory(output) if directory is None else directory,
            name=name,
            resume=resume,
            overwrite=overwrite,
            report=report,
            world=world,
        )


def _local_directory(output: RunPlace) -> Path:
    if not isinstance(output, Path):
        raise TrainerError(f"{output} is an object store: a training needs a local directory for its files")
    return output


def _train(
    config: TrainConfig,
    *,
    name: str,
    output: RunPlace,
    directory: Path,
    resume: bool,
    overwrite: bool,
    report: Report,
    world: World,
) -> TrainResult:
    """`train` as one of the processes of `world`."""
    run = Run.open(config, output=output, directory=directory, name=name, report=report, world=world)
    state, validation_loss = start(run, resume=resume, overwrite=overwrite), None
    rows_at_once = choose_micro_batch(run, step=state.step)
    with (
        run.metrics_log(resumed_at=state.step) as metrics,
        StopRequest(run.report) as stop,
        Saver(run, saved_step=state.step, metrics=metrics) as saver,
        closing(Updates(run, state=state, rows_at_once=rows_at_once, metrics=metrics)) as updates,
    ):
        while not (stopped := world.highest(stop.requested)):
            if updates.is_due(config.validation_every):
                validation_loss = validate(run, step=updates.settled().step, metrics=metrics)
            if updates.number == run.steps:
                stopped = world.highest(stop.requested)
                break
            saver.check()
            updates.queue_next()
            if updates.is_due(config.checkpoint_every):
                saver.save(updates.settled())
        saver.finish(updates.settled())
        for line in run.data.traffic():
            run.report(line)
    return _result(run, updates, stopped=stopped, validation_loss=validation_loss)


def _result(run: Run, updates: Updates, *, stopped: int, validation_loss: float | None) -> TrainResult:
    """The end of a run; `stopped` is the number of the signal, 0 without one."""
    return TrainResult(
        directory=run.directory.path,
        state=updates.settled(),
        steps=run.steps,
        stopped_by=signal.Signals(stopped).name if stopped else None,
        loss=updates.last_record.get("loss"),
        text_loss=updates.last_record.get("text_loss"),
        validation_text_loss=validation_loss,
        num_parameters=run.model.decoder.num_parameters,
        tokens_per_second=updates.tokens_per_second,
    )
