"""The training loop: load, then batch by batch forward, backward, clip, step; validate and keep checkpoints on the way.

A run's files, under `<output>/training/<name>/`: `config.json`, `metrics.jsonl`, `checkpoints/step-XXXXXXXX/`.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shards.schema import Role
from trainer.checkpoint import TrainingState, differences, latest_checkpoint, load_checkpoint, save_checkpoint
from trainer.config import TrainConfig
from trainer.data import Batch, TrainingData
from trainer.errors import DivergedError, TrainerError
from trainer.loss import LossTotals
from trainer.metrics import MetricsLog, Pace, step_line
from trainer.model import Decoder
from trainer.optimizer import build_optimizer, clip_gradients, set_learning_rate
from trainer.schedule import learning_rate
from trainer.step import Precision, accumulate_gradients, evaluate
from trainer.stopping import StopRequest

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    directory: Path
    """Where its metrics and checkpoints are."""
    state: TrainingState
    stopped_by: str | None
    """The signal that ended the run before its last step."""
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

    SIGTERM and SIGINT end the run after the step at hand, with a checkpoint.

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
    """
    run = _Run(config, output=output, directory=output / "training" / name, report=report)
    run.start(resume=resume, overwrite=overwrite)
    with (
        MetricsLog(run.directory / "metrics.jsonl", resumed_at=run.state.step) as metrics,
        StopRequest() as stop,
        closing(run.data.batches(run.state.step + 1, pin=run.on_cuda)) as batches,
    ):
        while not stop.requested:
            if run.is_due(config.validation_every):
                run.validate(metrics)
            if run.state.step == config.steps:
                break
            run.step(next(batches), metrics)
            if run.is_due(config.checkpoint_every) or stop.requested:
                metrics.sync()
                run.save()
    return run.result(stopped_by=stop.requested)


class _Run:
    """What one call of `train` works with."""

    def __init__(self, config: TrainConfig, *, output: Path, directory: Path, report: Report) -> None:
        self.config, self.directory, self._report = config, directory, report
        self._precision = choose_precision(config)
        self.data = TrainingData(config, output=output)
        self.model = Decoder(config.model, tokenizer=self.data.dataset.tokenizer)
        self.model.initialise(seed=config.seed)
        self.model.to(self._precision.device)
        self._optimizer = build_optimizer(self.model, config.optimizer)
        self.state = TrainingState(step=0)
        self._pays_metadata = bool(self.data.dataset.role_weights[Role.METADATA])
        self._pace = Pace()
        self._last: dict[str, Any] = {}
        self._validation_loss: float | None = None

    def start(self, *, resume: bool, overwrite: bool) -> None:
        """Make the run's directory, or take up what is in it."""
        if resume and overwrite:
            raise TrainerError("a run is either resumed or overwritten, not both")
        if self.directory.exists() and overwrite:
            shutil.rmtree(self.directory)
        elif self.directory.exists() and not resume:
            raise TrainerError(f"{self.directory} exists; resume it, overwrite it or give another name")
        checkpoint = latest_checkpoint(self.directory / "checkpoints")
        if checkpoint is not None:
            self.state = load_checkpoint(checkpoint, shared=self._shared(), model=self.model, optimizer=self._optimizer)
            self._report(f"resumed after step {self.state.step} from {checkpoint}")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write_config()
        self._report(
            f"{self.model.num_parameters:,} parameters on {self._precision.device}, {len(self.data.rows):,} rows of "
            f"{self.data.dataset.sequence_length} tokens, {len(self.data.validation_rows):,} to validate on"
        )

    @property
    def on_cuda(self) -> bool:
        """Whether batches have to be copied to a GPU."""
        return self._precision.device.type == "cuda"

    def is_due(self, every: int) -> bool:
        """Whether something done every so many steps, and after the last, is to be done now."""
        step = self.state.step
        return step > 0 and (step % every == 0 or step == self.config.steps)

    def step(self, batch: Batch, metrics: MetricsLog) -> None:
        """One update of the weights from this rank's part of a global batch."""
        started = time.perf_counter()
        config, number = self.config, self.state.step + 1
        rate = learning_rate(number, steps=config.steps, peak=config.learning_rate, schedule=config.schedule)
        set_learning_rate(self._optimizer, rate)
        self._optimizer.zero_grad(set_to_none=True)
        totals = accumulate_gradients(
            self.model,
            batch,
            micro_batch_size=config.rows_at_once,
            document_masking=config.document_masking,
            precision=self._precision,
        )
        norm = self._update(number) if totals.weight else None
        self._count(totals)
        seconds = time.perf_counter() - started
        self._pace.add(seconds, tokens=totals.tokens)
        self._last = self._record(totals, rate=rate, norm=norm, seconds=seconds)
        metrics.write(self._last)
        if number == 1 or self.is_due(config.log_every):
            self._report(step_line(self._last, steps=config.steps, pace=self._pace))

    def validate(self, metrics: MetricsLog) -> None:
        """Loss over the text labels of all validation rows, if there are any."""
        totals = evaluate(
            self.model,
            self.data.validation_batches(),
            document_masking=self.config.document_masking,
            precision=self._precision,
        )
        self._validation_loss = totals.mean(Role.TEXT)
        if self._validation_loss is None:
            return
        record = {
            "step": self.state.step,
            "validation_text_loss": self._validation_loss,
            "validation_text_tokens": totals.labels_by_role[Role.TEXT],
        }
        metrics.write(record)
        self._report(f"step {self.state.step}/{self.config.steps}  validation text {self._validation_loss:.4f}")

    def save(self) -> None:
        """Write a checkpoint."""
        path = save_checkpoint(
            self.directory / "checkpoints",
            state=self.state,
            shared=self._shared(),
            model=self.model,
            optimizer=self._optimizer,
            keep=self.config.keep_checkpoints,
        )
        self._report(f"step {self.state.step}/{self.config.steps}  saved {path}")

    def result(self, *, stopped_by: str | None) -> TrainResult:
        """How the run stands."""
        return TrainResult(
            directory=self.directory,
            state=self.state,
            stopped_by=stopped_by,
            loss=self._last.get("loss"),
            text_loss=self._last.get("text_loss"),
            validation_text_loss=self._validation_loss,
            num_parameters=self.model.num_parameters,
            tokens_per_second=self._pace.tokens_per_second,
        )

    def _write_config(self) -> None:
        """Write `config.json`; tell what it said otherwise before a resume."""
        path, now = self.directory / "config.json", self.config.model_dump(mode="json")
        if self.state.step and path.exists():
            for difference in differences(json.loads(path.read_text())["config"], now):
                self._report(f"changed since the checkpoint: {difference}")
        described = {"config": now, "num_parameters": self.model.num_parameters, "torch": str(torch.__version__)}
        path.write_text(json.dumps({**described, "shared": self._shared()}, indent=1) + "\n")

    def _shared(self) -> dict[str, Any]:
        tokenizer = self.data.dataset.tokenizer.model_dump(mode="json")
        return {**self.config.decides_result(), "tokenizer": tokenizer, **self.data.fingerprints()}

    def _update(self, number: int) -> float:
        """Clip and step; returns the gradients' norm."""
        norm = clip_gradients(self.model, max_norm=self.config.optimizer.max_grad_norm).item()
        if not math.isfinite(norm):
            raise DivergedError(
                f"step {number}: the gradient is {norm}; weights are left as they were. Try a lower learning_rate or "
                "a longer schedule.warmup_steps, and resume from the last checkpoint"
            )
        self._optimizer.step()
        return norm

    def _count(self, totals: LossTotals) -> None:
        before = self.state
        self.state = TrainingState(
            step=before.step + 1,
            tokens=before.tokens + totals.tokens,
            text_tokens=before.text_tokens + totals.labels_by_role[Role.TEXT],
            skipped_batches=before.skipped_batches + (not totals.weight),
        )

    def _record(self, totals: LossTotals, *, rate: float, norm: float | None, seconds: float) -> dict[str, Any]:
        """One line of `metrics.jsonl`; `trainer.metrics` tells what the fields are."""
        return {
            "step": self.state.step,
            "loss": totals.loss,
            "text_loss": totals.mean(Role.TEXT),
            "metadata_loss": totals.mean(Role.METADATA) if self._pays_metadata else None,
            "tokens": self.state.tokens,
            "text_tokens": self.state.text_tokens,
            "lr": rate,
            "grad_norm": norm,
            "tokens_per_second": totals.tokens / seconds,
            "skipped_batches": self.state.skipped_batches,
        }


def choose_precision(config: TrainConfig) -> Precision:
    """What `device` and `dtype` of a recipe mean here.

    Raises:
        TrainerError: CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise TrainerError("device is cuda, but torch finds no CUDA device; available: cpu")
    cuda = available and config.device != "cpu"
    bfloat16 = config.dtype == "bfloat16" or (config.dtype == "auto" and cuda)
    return Precision(
        device=torch.device("cuda" if cuda else "cpu"), autocast_dtype=torch.bfloat16 if bfloat16 else None
    )
