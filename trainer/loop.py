"""The training loop: load, then batch by batch forward, backward, clip, step; validate and keep checkpoints on the way.

A run's files, under `<output>/training/<name>/`: `config.json`, `metrics.jsonl`, `checkpoints/step-XXXXXXXX/`.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from colophon.shards.common.differences import differences
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from colophon.trainer.checkpoint import (
    Checkpoint,
    TrainingState,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    step_of,
)
from colophon.trainer.config import TrainConfig, with_current_keys
from colophon.trainer.data.batch import Batch
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import DivergedError, TrainerError
from colophon.trainer.loss import LossTotals
from colophon.trainer.metrics import MetricsLog, Pace, Speed, step_line, validation_line
from colophon.trainer.model import Decoder
from colophon.trainer.optimizer import ModelOptimizer
from colophon.trainer.parallel import SharedModel, World, joined
from colophon.trainer.schedule import learning_rate
from colophon.trainer.step import Arithmetic, accumulate_gradients, evaluate, out_of_memory_advised
from colophon.trainer.stopping import StopRequest
from colophon.trainer.trackers import check_trackers, trackers_of

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    directory: Path
    """Where its metrics and checkpoints are."""
    state: TrainingState
    stopped_by: str | None
    """The signal that ended the run; it may have come after the last step."""
    loss: float | None
    """Of the last step made by this call."""
    text_loss: float | None
    validation_text_loss: float | None
    """Of the last validation made by this call; None where nothing is validated on."""
    num_parameters: int
    tokens_per_second: float | None
    """Over all steps of this call, validation and checkpoints not counted."""


def train(
    config: TrainConfig,
    *,
    name: str,
    output: Path,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = lambda line: None,
) -> TrainResult:
    """Train on a packed layout of the run under `output`.

    SIGTERM, SIGUSR1 and SIGINT end the run after the step at hand, with a checkpoint. Under torchrun all processes of
    the run call this with the same arguments; the first one reports and writes.

    Args:
        config: the settings.
        name: of the training run; its directory under `output/training`.
        output: the `output.path` of the run that packed the layout.
        resume: go on from the newest checkpoint; from the start where there is none. On CPU a resumed run has the same
            losses and weights, to the bit, as an unbroken one.
        overwrite: remove what a training run of this name left behind.
        report: gets lines for a person.

    Raises:
        ShardError: the layout is not there, or its files do not fit their records.
        TrainerError: a run of this name exists, or a checkpoint of other shards or settings.
        DivergedError: a gradient that is not finite; the weights of the step before are in the last checkpoint.
        OutOfMemoryError: the device has too little memory.
        NotWrittenError: the disk has too little room.
    """
    with joined(config) as world, out_of_memory_advised(config):
        # In a frame of its own, so that nothing is left of the model when `joined` closes the connections.
        return _train(config, output=output, name=name, resume=resume, overwrite=overwrite, report=report, world=world)


def _train(
    config: TrainConfig, *, name: str, output: Path, resume: bool, overwrite: bool, report: Report, world: World
) -> TrainResult:
    """`train` as one of the processes of `world`."""
    run = _Run(config, output=output, directory=output / "training" / name, report=report, world=world)
    run.start(resume=resume, overwrite=overwrite)
    with (
        run.metrics_log() as metrics,
        StopRequest(run.tell) as stop,
        closing(run.batches()) as batches,
    ):
        while not (stopped := world.highest(stop.requested)):
            if run.is_due(config.validation_every):
                run.validate(metrics)
            if run.state.step == config.steps:
                stopped = world.highest(stop.requested)
                break
            run.step(batches, metrics)
            if run.is_due(config.checkpoint_every):
                run.save(metrics)
        if not run.is_saved:
            run.save(metrics)
        return run.result(stopped_by=signal.Signals(stopped).name if stopped else None)


class _Run:
    """What one call of `train` works with."""

    def __init__(self, config: TrainConfig, *, output: Path, directory: Path, report: Report, world: World) -> None:
        self.config, self.directory, self._world = config, directory, world
        self.tell = report if world.is_first else lambda line: None
        check_trackers(config)
        self.data = TrainingData(config, output=output)
        pays_metadata = bool(self.data.role_weights[Role.METADATA])
        self._arithmetic = Arithmetic.of(config, device=world.device, with_hits=pays_metadata)
        decoder = build_decoder(config, self.data, device=world.device)
        decoder.initialise(seed=config.seed)
        self._model = SharedModel(decoder, world=world, dtype=self._arithmetic.dtype, parallel=config.parallel)
        self._num_parameters = decoder.num_parameters
        self._optimizer = ModelOptimizer(decoder, config)
        self.state = TrainingState(step=0)
        self._saved_step = -1
        self._pace = Pace()
        self._speed = Speed(
            decoder.flops_per_token(self.data.sequence_length), device=world.device, world_size=world.size
        )
        self._last: dict[str, Any] = {}
        self._validation_loss: float | None = None

    def start(self, *, resume: bool, overwrite: bool) -> None:
        """Make the run's directory, or take up what is in it."""
        if resume and overwrite:
            raise TrainerError("a run is either resumed or overwritten, not both")
        if self.directory.exists() and not (resume or overwrite):
            raise TrainerError(f"{self.directory} exists; resume it, overwrite it or give another name")
        self._world.wait()  # all have looked
        if overwrite and self._world.is_first:
            shutil.rmtree(self.directory, ignore_errors=True)
        self._world.wait()
        path = latest_checkpoint(self.directory / "checkpoints")
        if path is not None:
            if step_of(path) > self.config.steps:
                raise TrainerError(
                    f"steps is {self.config.steps}, and {path} is past it: {step_of(path)} steps are made"
                )
            checkpoint = load_checkpoint(path, shared=self._shared(step_of(path)))
            self._model.load_weights(checkpoint.weights)
            self._optimizer.load_tensors(checkpoint.optimizer)
            self.state, self._saved_step = checkpoint.state, checkpoint.state.step
            self.tell(f"resumed after step {self.state.step} from {path}")
        if self._world.is_first:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._write_config()
        self._world.wait()
        self.tell(
            f"{self._num_parameters:,} parameters on {self._world.device}{self._processes()}, "
            f"{self.data.num_rows:,} rows of {self.data.sequence_length} tokens, "
            f"{len(self.data.validation_rows):,} to validate on"
        )
        for line in self.data.summary():
            self.tell(line)

    def _processes(self) -> str:
        return f" x {self._world.size}" if self._world.size > 1 else ""

    def metrics_log(self) -> MetricsLog:
        """Where the metrics go; nowhere on processes other than the first."""
        write, resumed_at = self._world.is_first, self.state.step
        trackers = trackers_of(self.config, self.directory, resumed_at=resumed_at) if write else []
        path = self.directory / "metrics.jsonl"
        return MetricsLog(path, resumed_at=resumed_at, write=write, trackers=trackers)

    def batches(self) -> Generator[Batch]:
        """This rank's parts of the batches still to come."""
        world = self._world
        on_cuda = world.device.type == "cuda"
        return self.data.batches(self.state.step + 1, rank=world.rank, world_size=world.size, pin=on_cuda)

    @property
    def is_saved(self) -> bool:
        """Whether nothing is to be saved: there is a checkpoint of the step that the run stands at, the run has made no
        step, or it wants no checkpoints."""
        return self._saved_step == self.state.step or not (self.state.step and self.config.checkpoint_every)

    def is_due(self, every: int) -> bool:
        """Whether something done every so many steps (0: never), and after the last, is to be done now."""
        step = self.state.step
        return step > 0 and every > 0 and (step % every == 0 or step == self.config.steps)

    def step(self, batches: Iterator[Batch], metrics: MetricsLog) -> None:
        """One update of the weights from this rank's part of the next global batch."""
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        config, number = self.config, self.state.step + 1
        rate = learning_rate(number, steps=config.steps, peak=config.learning_rate, schedule=config.schedule)
        self._optimizer.zero_grad()
        totals = accumulate_gradients(
            self._model, batch, micro_batch_size=config.rows_at_once, arithmetic=self._arithmetic
        )
        norm = self._update(number, rate=rate) if totals.weight else None
        self._count(totals)
        seconds = time.perf_counter() - started
        self._pace.add(seconds, tokens=totals.tokens)
        self._last = self._record(totals, rate=rate, norm=norm, seconds=seconds, waited=waited)
        metrics.write(self._last)
        if number == 1 or self.is_due(config.log_every):
            self.tell(step_line(self._last, steps=config.steps, pace=self._pace))

    def validate(self, metrics: MetricsLog) -> None:
        """Loss over the text labels of all validation rows, if there are any."""
        batches = self.data.validation_batches(rank=self._world.rank, world_size=self._world.size)
        totals = evaluate(self._model, batches, arithmetic=self._arithmetic)
        self._validation_loss = totals.mean(Role.TEXT)
        if self._validation_loss is None:
            return
        record: dict[str, Any] = {
            "step": self.state.step,
            "validation_text_loss": self._validation_loss,
            "validation_text_tokens": totals.labels_by_role[Role.TEXT],
            **{f"validation_{name}": value for name, value in self._of_metadata(totals).items()},
        }
        metrics.write(record)
        self.tell(validation_line(record, steps=self.config.steps))

    def save(self, metrics: MetricsLog) -> None:
        """Write a checkpoint, and see that the metrics up to it are on disk."""
        metrics.sync()
        writes = self._world.is_first  # all processes give their shares
        weights, optimizer = self._model.weights(keep=writes), self._optimizer.tensors(keep=writes)
        if writes:
            checkpoint = Checkpoint(state=self.state, weights=weights, optimizer=optimizer)
            directory, keep = self.directory / "checkpoints", self.config.keep_checkpoints
            path = save_checkpoint(directory, checkpoint, shared=self._shared(self.state.step), keep=keep)
            self.tell(f"step {self.state.step}/{self.config.steps}  saved {path}")
        self._world.wait()
        self._saved_step = self.state.step

    def result(self, *, stopped_by: str | None) -> TrainResult:
        """How the run stands."""
        return TrainResult(
            directory=self.directory,
            state=self.state,
            stopped_by=stopped_by,
            loss=self._last.get("loss"),
            text_loss=self._last.get("text_loss"),
            validation_text_loss=self._validation_loss,
            num_parameters=self._num_parameters,
            tokens_per_second=self._pace.tokens_per_second,
        )

    def _write_config(self) -> None:
        """Write `config.json`; tell what it said otherwise before a resume."""
        path, now = self.directory / "config.json", self.config.model_dump(mode="json")
        if self.state.step and path.exists():
            for difference in differences(with_current_keys(json.loads(path.read_text())["config"]), now):
                self.tell(f"changed since the checkpoint: {difference}")
        described = {
            "config": now,
            "layouts": self.data.layouts,
            "sequence_length": self.data.sequence_length,
            "num_parameters": self._num_parameters,
            "masked_ids": zero_weight_ids(self.data) if self.config.mask_zero_weight_ids else [],
            "torch": str(torch.__version__),
        }
        path.write_text(json.dumps({**described, "shared": self._shared(self.state.step)}, indent=1) + "\n")

    def _shared(self, step: int) -> dict[str, Any]:
        """What a run that goes on after update `step` must share with the one that came there."""
        tokenizer = self.data.tokenizer.model_dump(mode="json")
        return {**self.config.resume_settings(), "tokenizer": tokenizer, **self.data.fingerprints(step)}

    def _of_metadata(self, totals: LossTotals) -> dict[str, float | None]:
        """How well metadata was predicted; None where no layout pays for it."""
        is_paid = self._arithmetic.with_hits
        return {
            "metadata_loss": totals.mean(Role.METADATA) if is_paid else None,
            "metadata_accuracy": totals.accuracy(Role.METADATA) if is_paid else None,
        }

    def _update(self, number: int, *, rate: float) -> float:
        """Clip and step; returns the gradients' norm."""
        norm = self._optimizer.clip()
        if not math.isfinite(norm):
            raise DivergedError(
                f"step {number}: the gradient is {norm}; weights are left as they were. Try a lower learning_rate or "
                "a longer schedule.warmup_steps, and resume from the last checkpoint, if there is one"
            )
        self._optimizer.step(rate)
        return norm

    def _count(self, totals: LossTotals) -> None:
        before = self.state
        self.state = TrainingState(
            step=before.step + 1,
            tokens=before.tokens + totals.tokens,
            text_tokens=before.text_tokens + totals.labels_by_role[Role.TEXT],
            skipped_batches=before.skipped_batches + (not totals.weight),
        )

    def _record(
        self, totals: LossTotals, *, rate: float, norm: float | None, seconds: float, waited: float
    ) -> dict[str, Any]:
        """One line of `metrics.jsonl`; `trainer.metrics` tells what the fields are."""
        return {
            "step": self.state.step,
            "loss": totals.loss,
            "text_loss": totals.mean(Role.TEXT),
            **self._of_metadata(totals),
            "tokens": self.state.tokens,
            "text_tokens": self.state.text_tokens,
            "lr": rate,
            "grad_norm": norm,
            "tokens_per_second": totals.tokens / seconds,
            "data_wait": waited / seconds,
            **self._speed.record(totals.tokens / seconds),
            "skipped_batches": self.state.skipped_batches,
        }


def build_decoder(config: TrainConfig, dataset: PackedDataset | TrainingData, *, device: torch.device) -> Decoder:
    """The model of a run over `dataset`, its weights not yet drawn."""
    return Decoder(
        config.model,
        tokenizer=dataset.tokenizer,
        masked_ids=zero_weight_ids(dataset) if config.mask_zero_weight_ids else (),
        activation_checkpointing=config.activation_checkpointing,
        compiled=device.type == "cuda" if config.compile is None else config.compile,
    )


def zero_weight_ids(dataset: PackedDataset | TrainingData) -> list[int]:
    """Special ids that are never a paid label in a layout, or in any of a run's layouts."""
    special, weights = dataset.tokenizer.special, dataset.role_weights
    by_role = {
        Role.BOS: [special.bos],
        Role.EOS: [special.eos],
        Role.PAD: [special.pad],
        Role.WRAPPER: [special.boc, special.eoc],
        Role.META_TOKEN: special.meta,
    }
    return [id for role, ids in by_role.items() if not weights[role] for id in ids]
