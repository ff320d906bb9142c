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
from trainer.attention import document_mask
from trainer.checkpoint import TrainingState, latest_checkpoint, load_checkpoint, save_checkpoint
from trainer.config import TrainConfig
from trainer.data import Batch, TrainingData
from trainer.errors import TrainerError
from trainer.loss import LossSums, LossTotals, global_sum
from trainer.metrics import MetricsLog, Pace, step_line
from trainer.model import Decoder
from trainer.optimizer import build_optimizer, clip_gradients, set_learning_rate
from trainer.schedule import learning_rate
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
        TrainerError: a run of this name exists, a checkpoint of other shards or settings, a loss that is not finite.
    """
    run = _Run(config, output=output, directory=output / "training" / name, report=report)
    run.start(resume=resume, overwrite=overwrite)
    with (
        MetricsLog(run.directory / "metrics.jsonl", resumed_at=run.state.step) as metrics,
        StopRequest() as stop,
        closing(run.data.batches(run.state.step + 1, pin=run.device.type == "cuda")) as batches,
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
        self.device = choose_device(config.device)
        self._autocast_dtype = choose_autocast(config.dtype, self.device)
        self.data = TrainingData(config, output=output)
        self.model = Decoder(config.model, tokenizer=self.data.dataset.tokenizer)
        self.model.initialise(seed=config.seed)
        self.model.to(self.device)
        self._optimizer = build_optimizer(self.model, config.optimizer)
        self.state = TrainingState(step=0)
        self._pays_metadata = bool(self.data.dataset.role_weights[Role.METADATA])
        self._pace = Pace()
        self._tokens, self._seconds = 0, 0.0
        self._last: dict[str, Any] = {}
        self._validation_loss: float | None = None

    def start(self, *, resume: bool, overwrite: bool) -> None:
        """Make the run's directory, or take up what is in it."""
        if overwrite:
            shutil.rmtree(self.directory, ignore_errors=True)
        elif self.directory.exists() and not resume:
            raise TrainerError(f"{self.directory} exists; resume it, overwrite it or give another name")
        checkpoint = latest_checkpoint(self.directory / "checkpoints")
        if checkpoint is not None:
            self.state = load_checkpoint(checkpoint, shared=self._shared(), model=self.model, optimizer=self._optimizer)
            self._report(f"resumed after step {self.state.step} from {checkpoint}")
        self.directory.mkdir(parents=True, exist_ok=True)
        described = {"config": self.config.model_dump(mode="json"), "num_parameters": self.model.num_parameters}
        text = json.dumps({**described, "shared": self._shared(), "torch": torch.__version__}, indent=1)
        (self.directory / "config.json").write_text(text + "\n")
        self._report(
            f"{self.model.num_parameters:,} parameters on {self.device}, {len(self.data.rows):,} rows of "
            f"{self.data.dataset.sequence_length} tokens, {len(self.data.validation_rows):,} to validate on"
        )

    def is_due(self, every: int) -> bool:
        """Whether something done every so many steps, and after the last, is to be done now."""
        step = self.state.step
        return step > 0 and (step % every == 0 or step == self.config.steps)

    def step(self, batch: Batch, metrics: MetricsLog) -> None:
        """One update of the weights from this rank's part of a global batch."""
        started = time.perf_counter()
        number = self.state.step + 1
        rate = learning_rate(
            number, steps=self.config.steps, peak=self.config.learning_rate, schedule=self.config.schedule
        )
        set_learning_rate(self._optimizer, rate)
        total_weight = global_sum(batch.loss_weights.sum(dtype=torch.float64)).item()
        totals = self._accumulate(batch, total_weight=total_weight)
        norm = self._update(number) if total_weight else None
        self._count(totals, skipped=not total_weight)
        seconds = time.perf_counter() - started
        self._pace.add(seconds)
        self._tokens, self._seconds = self._tokens + totals.tokens, self._seconds + seconds
        self._last = {
            "step": number,
            "loss": totals.weighted / total_weight if total_weight else None,
            "text_loss": totals.mean(Role.TEXT),
            "metadata_loss": totals.mean(Role.METADATA) if self._pays_metadata else None,
            "tokens": self.state.tokens,
            "text_tokens": self.state.text_tokens,
            "lr": rate,
            "grad_norm": norm,
            "tokens_per_second": totals.tokens / seconds,
            "skipped_batches": self.state.skipped_batches,
        }
        metrics.write(self._last)
        if number == 1 or self.is_due(self.config.log_every):
            self._report(step_line(self._last, steps=self.config.steps, pace=self._pace))

    def validate(self, metrics: MetricsLog) -> None:
        """Loss over the text labels of all validation rows, if there are any."""
        if not len(self.data.validation_rows):
            return
        sums = LossSums(self.device)
        with torch.no_grad():
            for batch in self.data.validation_batches():
                self._forward(batch, sums)
        totals = sums.totals()
        self._validation_loss = totals.mean(Role.TEXT)
        metrics.write(
            {
                "step": self.state.step,
                "validation_text_loss": self._validation_loss,
                "validation_text_tokens": totals.count(Role.TEXT),
            }
        )
        if self._validation_loss is not None:
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
            tokens_per_second=self._tokens / self._seconds if self._seconds else None,
        )

    def _shared(self) -> dict[str, Any]:
        tokenizer = self.data.dataset.tokenizer.model_dump(mode="json")
        return {**self.config.decides_result(), "tokenizer": tokenizer, **self.data.fingerprints()}

    def _accumulate(self, batch: Batch, *, total_weight: float) -> LossTotals:
        """Gradients of the global batch's loss, summed over its micro-batches."""
        self._optimizer.zero_grad(set_to_none=True)
        sums = LossSums(self.device)
        for micro in batch.split(self.config.rows_at_once):
            weighted = self._forward(micro, sums)
            if total_weight:
                torch.autograd.backward(weighted / total_weight)
        return sums.totals()

    def _forward(self, batch: Batch, sums: LossSums) -> torch.Tensor:
        """Weighted sum of one micro-batch's losses, counted in `sums`."""
        on_device = batch.to(self.device)
        masked = self.config.document_masking
        mask = document_mask(on_device.segments) if masked else None
        positions = on_device.positions if masked else _row_positions(on_device.positions)
        with torch.autocast(self.device.type, dtype=self._autocast_dtype, enabled=self._autocast_dtype is not None):
            summed: tuple[torch.Tensor, torch.Tensor] = self.model(
                on_device.input_ids, positions, mask, on_device.labels, on_device.loss_weights
            )
        weighted, losses = summed
        sums.add(weighted, losses, on_device.label_roles.flatten())
        return weighted

    def _update(self, number: int) -> float:
        """Clip and step; returns the gradients' norm."""
        norm = clip_gradients(self.model, max_norm=self.config.optimizer.max_grad_norm).item()
        if not math.isfinite(norm):
            raise TrainerError(
                f"step {number}: the gradient is {norm}; weights are left as they were. Try a lower learning_rate or "
                "a longer schedule.warmup_steps, and resume from the last checkpoint"
            )
        self._optimizer.step()
        return norm

    def _count(self, totals: LossTotals, *, skipped: bool) -> None:
        before = self.state
        self.state = TrainingState(
            step=before.step + 1,
            tokens=before.tokens + totals.tokens,
            text_tokens=before.text_tokens + totals.count(Role.TEXT),
            skipped_batches=before.skipped_batches + skipped,
        )


def choose_device(wanted: str) -> torch.device:
    """The device that `device = ...` of a recipe means here.

    Raises:
        TrainerError: CUDA is asked for and not there.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise TrainerError("device is cuda, but torch finds no CUDA device; available: cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def choose_autocast(wanted: str, device: torch.device) -> torch.dtype | None:
    """The dtype of matrix products, or None where they stay float32."""
    if wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda"):
        return torch.bfloat16
    return None


def _row_positions(positions: torch.Tensor) -> torch.Tensor:
    """Positions that run through the whole row: int32 [b, L]."""
    return torch.arange(positions.shape[1], dtype=torch.int32, device=positions.device).expand_as(positions)
