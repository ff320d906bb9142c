"""The training loop: read a batch, forward, backward, clip, step; validate and write checkpoints in between.

`trainer.checkpoints.run_directory` describes the files of a run.
"""

from __future__ import annotations

import gc
import math
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colophon.shards.schema import Role
from colophon.shards.stores.places import RunPlace
from colophon.trainer.checkpoints.checkpoint import (
    MODEL_NAME,
    OPTIMIZER_NAME,
    Checkpoint,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
    step_of,
)
from colophon.trainer.checkpoints.run_directory import RunDirectory
from colophon.trainer.checkpoints.tensor_checks import check_weights
from colophon.trainer.checkpoints.writer import CheckpointWriter
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.batch import Batch
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.device.compilation import compile_scope
from colophon.trainer.device.float8 import convert_layers
from colophon.trainer.device.host_copy import HostCopy
from colophon.trainer.device.micro_batch import rows_at_once
from colophon.trainer.device.out_of_memory import out_of_memory_advice
from colophon.trainer.errors import DivergedError, TrainerError
from colophon.trainer.model.attention import activate_flash_attention_3
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.model.loss import LossTotals
from colophon.trainer.model.masked_ids import masked_ids
from colophon.trainer.monitoring.metrics import MetricsLog, step_line, step_record, validation_line, validation_record
from colophon.trainer.monitoring.speed import Pace, Speed
from colophon.trainer.monitoring.trackers import check_trackers, open_trackers
from colophon.trainer.optimization.optimizer import ModelOptimizer
from colophon.trainer.optimization.schedule import learning_rate
from colophon.trainer.parallel import SharedModel, World, joined_world
from colophon.trainer.step import Arithmetic, accumulate_gradients, validation_losses
from colophon.trainer.stop_request import StopRequest

Report = Callable[[str], None]


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
    run = _Run(config, output=output, directory=directory, name=name, report=report, world=world)
    run.start(resume=resume, overwrite=overwrite)
    with (
        run.metrics_log() as metrics,
        StopRequest(run.report) as stop,
        run.checkpoint_writer,
        closing(run.batches()) as batches,
    ):
        while not (stopped := world.highest(stop.requested)):
            if run.is_due(config.validation_every):
                run.validate(metrics)
            if run.updates == run.steps:
                stopped = world.highest(stop.requested)
                break
            run.step(batches, metrics)
            if run.is_due(config.checkpoint_every):
                run.save(metrics)
        run.settle(metrics)
        if not run.is_saved:
            run.save(metrics)
        run.checkpoint_writer.wait()
        return run.result(stopped_by=signal.Signals(stopped).name if stopped else None)


@dataclass(frozen=True, kw_only=True)
class _QueuedStep:
    """An update that the device may still be computing."""

    number: int
    rate: float
    values: HostCopy
    """The norm of the gradient and the sums of the losses."""
    waited: float
    """Seconds that the host waited for the batch."""
    seconds: float
    """From the request of the batch until everything was queued."""


class _Run:
    """The model, data and state of one call of `train`."""

    def __init__(
        self, config: TrainConfig, *, output: RunPlace, directory: Path, name: str, report: Report, world: World
    ) -> None:
        self._world, self._settings = world, config
        self.report = report if world.is_first else lambda line: None
        self._directory = RunDirectory(directory, name, world=world)
        check_trackers(config)
        self.data = TrainingData(config, output=output, report=self.report)
        self.config = config = self.data.config
        self.steps = config.num_steps
        """Updates of the run."""
        self._with_metadata = bool(self.data.role_weights[Role.METADATA])
        self._groups = [] if self.data.groups is None else self.data.groups.groups
        self._arithmetic = Arithmetic.of(
            config, device=world.device, with_hits=self._with_metadata, num_groups=len(self._groups)
        )
        self._masked_ids = masked_ids(config, self.data)
        decoder = Decoder(
            config.model,
            tokenizer=self.data.tokenizer,
            masked_ids=self._masked_ids,
            activation_checkpointing=config.activation_checkpointing,
            compiled=compile_scope(config, world=world, report=self.report),
        )
        decoder.initialise(seed=config.seed)
        if self._arithmetic.float8:
            names = convert_layers(decoder)
            self.report(f"float8: the products of {len(names)} matrices of {config.model.num_layers} layers")
        self._model = SharedModel(decoder, world=world, dtype=self._arithmetic.dtype, parallel=config.parallel)
        self._num_parameters = decoder.num_parameters
        self._optimizer = ModelOptimizer(decoder, config)
        self.state = TrainingState(step=0)
        self._rows_at_once = self.config.rows_at_once
        self._queued: _QueuedStep | None = None
        self._saved_step = -1
        self.checkpoint_writer = CheckpointWriter(written=self._report_saved, report=self.report)
        self._pace = Pace()
        flops = decoder.flops_per_token(self.data.sequence_length)
        self._speed = Speed(flops, device=world.device, world_size=world.size)
        self._last_record: dict[str, Any] = {}
        self._validation_loss: float | None = None

    def start(self, *, resume: bool, overwrite: bool) -> None:
        """Load the newest checkpoint, if there is one, and write the run's settings."""
        path = self._directory.prepare(steps=self.steps, resume=resume, overwrite=overwrite)
        if path is not None:
            with self._world.together():
                self._load(path)
            self.report(f"resumed after step {self.state.step} from {path}")
        changes = self._directory.write_config(
            self._settings, resumed=self.state.step > 0, description=self._description()
        )
        for change in changes:
            self.report(f"changed since the checkpoint: {change}")
        processes = f" x {self._world.size}" if self._world.size > 1 else ""
        self.report(
            f"{self._num_parameters:,} parameters on {self._world.device}{processes}, "
            f"{self.data.num_rows:,} rows of {self.data.sequence_length} tokens, "
            f"{len(self.data.validation_rows):,} validation rows"
        )
        if self.config.text_tokens is not None:
            self.report(f"{self.config.text_tokens:,} text tokens: {self.steps:,} steps")
        for line in self.data.summary():
            self.report(line)
        if self._arithmetic.attention == "varlen":
            reason = activate_flash_attention_3(self._world.device)
            self.report(f"FlashAttention {'3' if reason is None else f'2: {reason}'}")
        self._choose_micro_batch()

    def _load(self, path: Path) -> None:
        """Continue from a checkpoint, of which this process reads its part."""
        model, checkpoint = self._model, load_checkpoint(path, shared=self._shared(step_of(path)))
        where = path / MODEL_NAME
        check_weights(checkpoint.weights, self.config.model, self.data.tokenizer, where=where, part=model.own_part)
        model.load_weights(checkpoint.weights)
        self._optimizer.load_tensors(checkpoint.optimizer, where=path / OPTIMIZER_NAME)
        self.state, self._saved_step = checkpoint.state, checkpoint.state.step

    def _choose_micro_batch(self) -> None:
        """Search the number of rows at once, if the settings do not have it."""
        self._rows_at_once = rows_at_once(
            self.config,
            world=self._world,
            sequence_length=self.data.sequence_length,
            file=self._directory.micro_batch,
            attempt=self._attempt,
            report=self.report,
        )

    def _attempt(self, num_rows: int) -> None:
        """Compute the gradient of rows of the next batch, with room left for the optimizer's state, and drop it."""
        state_bytes = 0 if self.state.step else self._optimizer.num_state_bytes()
        reserved = torch.empty(state_bytes, dtype=torch.uint8, device=self._world.device)
        part = next(self.data.batch(self.state.step + 1).split(num_rows))
        try:
            accumulate_gradients(self._model, part, micro_batch_size=num_rows, arithmetic=self._arithmetic)
            if reserved.is_cuda:
                torch.cuda.synchronize()
        finally:
            self._optimizer.zero_grad()
            del reserved
            gc.collect()
            if self._world.device.type == "cuda":
                torch.cuda.empty_cache()

    def _description(self) -> dict[str, Any]:
        """The part of `config.json` that is not settings."""
        return {
            "layouts": [one.model_dump(mode="json") for one in self.data.description(self.state.step).layouts],
            "sequence_length": self.data.sequence_length,
            "num_parameters": self._num_parameters,
            "steps": self.steps,
            "masked_ids": self._masked_ids,
            "torch": str(torch.__version__),
            "shared": self._shared(self.state.step),
        }

    def _shared(self, step: int) -> dict[str, Any]:
        """JSON values that must be the same when the run is resumed after update `step`."""
        tokenizer = self.data.tokenizer.model_dump(mode="json")
        return {**self.config.resume_settings(), "tokenizer": tokenizer, **self.data.fingerprints(step)}

    def metrics_log(self) -> MetricsLog:
        """The metrics file and trackers; without output on processes other than the first."""
        write, resumed_at = self._world.is_first, self.state.step
        trackers = open_trackers(self.config, self._directory.path, resumed_at=resumed_at) if write else []
        return MetricsLog(self._directory.metrics, resumed_at=resumed_at, write=write, trackers=trackers)

    def batches(self) -> Generator[Batch]:
        """This rank's parts of the remaining batches. Of a compiled model all micro-batches have one number of rows,
        since each number is compiled."""
        world = self._world
        return self.data.batches(
            self.state.step + 1,
            rank=world.rank,
            world_size=world.size,
            pin=world.device.type == "cuda",
            row_multiple=self._rows_at_once if self._model.decoder.compiled else 1,
        )

    @property
    def is_saved(self) -> bool:
        """Whether no checkpoint is needed: the current step has one, no step has been made, or none are kept."""
        return self._saved_step == self.state.step or not (self.state.step and self.config.checkpoint_every)

    @property
    def reads_late(self) -> bool:
        """Whether the losses of an update are read when the next one is queued."""
        return self._world.device.type == "cuda"

    @property
    def updates(self) -> int:
        """Updates that are computed or queued; `state` has those whose losses have been read."""
        return self.state.step + (self._queued is not None)

    def is_due(self, every: int) -> bool:
        """Whether an action of every `every` steps (0: never), and after the last step, is due now."""
        return self._is_due_after(self.updates, every)

    def _is_due_after(self, step: int, every: int) -> bool:
        return step > 0 and every > 0 and (step % every == 0 or step == self.steps)

    def step(self, batches: Iterator[Batch], metrics: MetricsLog) -> None:
        """Queue one update of the weights from this rank's part of the next global batch; then read and log the losses
        of the update before, so that a GPU has work meanwhile. A CPU has done it by then, and it is read too."""
        self.checkpoint_writer.check()
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        config, number = self.config, self.updates + 1
        rate = learning_rate(number, steps=self.steps, peak=config.learning_rate, schedule=config.schedule)
        self._optimizer.zero_grad()
        sums = accumulate_gradients(
            self._model, batch, micro_batch_size=self._rows_at_once, arithmetic=self._arithmetic
        )
        norm = self._update(rate) if sums.weight else torch.zeros((), device=self._world.device)
        values = HostCopy(torch.cat([norm.double()[None], sums.losses.over_all_ranks()]))
        seconds = time.perf_counter() - started
        self.settle(metrics)
        self._queued = _QueuedStep(number=number, rate=rate, values=values, waited=waited, seconds=seconds)
        if not self.reads_late:
            self.settle(metrics)

    def _update(self, rate: float) -> Tensor:
        """Clip the gradients and update the weights; returns the gradients' norm, on the device."""
        norm = self._optimizer.clip()
        self._optimizer.step(rate)
        return norm

    def settle(self, metrics: MetricsLog) -> None:
        """Read, check and log the losses of the queued update, if there is one."""
        queued, self._queued = self._queued, None
        if queued is None:
            return
        started = time.perf_counter()
        norm, *sums = queued.values.read()
        if not math.isfinite(norm):
            raise DivergedError(
                f"step {queued.number}: the gradient is {norm}; no checkpoint has this update. Try a lower "
                "learning_rate or a longer schedule.warmup_steps, and resume from the last checkpoint, if there is one"
            )
        totals = LossTotals.of(sums)
        self.state = self.state.after(totals)
        seconds = queued.seconds + (time.perf_counter() - started)
        self._log(queued, totals, norm=norm if totals.weight else None, seconds=seconds, metrics=metrics)

    def _log(
        self, queued: _QueuedStep, totals: LossTotals, *, norm: float | None, seconds: float, metrics: MetricsLog
    ) -> None:
        """Write the record of an update, and its line where one is due."""
        self._pace.add(seconds, tokens=totals.tokens)
        tokens_per_second = totals.tokens / seconds
        self._last_record = step_record(
            totals,
            state=self.state,
            with_metadata=self._with_metadata,
            groups=self._groups,
            rate=queued.rate,
            norm=norm,
            timing={
                "tokens_per_second": tokens_per_second,
                "data_wait": queued.waited / seconds,
                **self._speed.record(tokens_per_second),
            },
        )
        metrics.write(self._last_record)
        if queued.number == 1 or self._is_due_after(queued.number, self.config.log_every):
            recent = self._pace.since_line()
            record = {**self._last_record, "tokens_per_second": recent, **self._speed.record(recent)}
            self.report(step_line(record, steps=self.steps, pace=self._pace))

    def validate(self, metrics: MetricsLog) -> None:
        """Compute and log the losses of all validation rows, if there are any."""
        self.settle(metrics)
        batches = self.data.validation_batches(rank=self._world.rank, world_size=self._world.size)
        totals = validation_losses(self._model, batches, arithmetic=self._arithmetic)
        self._validation_loss = totals.mean(Role.TEXT)
        if self._validation_loss is None:
            return
        record = validation_record(totals, step=self.state.step, with_metadata=self._with_metadata, groups=self._groups)
        metrics.write(record)
        self.report(validation_line(record, steps=self.steps))

    def save(self, metrics: MetricsLog) -> None:
        """Copy a checkpoint to the host and start to write it, after the metrics up to it are on disk, and after the
        checkpoint before it."""
        self.settle(metrics)
        metrics.sync()
        self.checkpoint_writer.wait()  # its copy is freed before the next one is made
        writes = self._world.is_first  # all processes contribute their shares
        weights, optimizer = self._model.weights(keep=writes), self._optimizer.tensors(keep=writes)
        if writes:
            write = partial(
                save_checkpoint,
                self._directory.checkpoints,
                Checkpoint(state=self.state, weights=weights, optimizer=optimizer),
                data=self.data.description(self.state.step),
                shared=self._shared(self.state.step),
                keep=self.config.keep_checkpoints,
            )
            self.checkpoint_writer.start(write)
        self._saved_step = self.state.step

    def _report_saved(self, path: Path) -> None:
        self.report(f"step {step_of(path)}/{self.steps}  saved {path}")

    def result(self, *, stopped_by: str | None) -> TrainResult:
        """The state and the last losses of the run."""
        for line in self.data.traffic():
            self.report(line)
        return TrainResult(
            directory=self._directory.path,
            state=self.state,
            steps=self.steps,
            stopped_by=stopped_by,
            loss=self._last_record.get("loss"),
            text_loss=self._last_record.get("text_loss"),
            validation_text_loss=self._validation_loss,
            num_parameters=self._num_parameters,
            tokens_per_second=self._pace.tokens_per_second,
        )
