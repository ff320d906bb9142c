"""The updates of a run: each is queued, and its losses are read, checked and logged."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from colophon.trainer.checkpoints.checkpoint import TrainingState
from colophon.trainer.device.host_copy import HostCopy
from colophon.trainer.errors import DivergedError
from colophon.trainer.model.loss import LossTotals
from colophon.trainer.monitoring.metrics import MetricsLog, step_line, step_record
from colophon.trainer.monitoring.speed import Pace, Speed
from colophon.trainer.optimization.schedule import learning_rate
from colophon.trainer.run import Run
from colophon.trainer.step import accumulate_gradients


@dataclass(frozen=True, kw_only=True)
class _QueuedUpdate:
    """An update that the device may still be computing."""

    number: int
    rate: float
    values: HostCopy
    """The norm of the gradient and the sums of the losses."""
    waited: float
    """Seconds that the host waited for the batch."""
    seconds: float
    """From the request of the batch until everything was queued."""


class Updates:
    """The updates of a run after the state at which it starts."""

    def __init__(self, run: Run, *, state: TrainingState, rows_at_once: int, metrics: MetricsLog) -> None:
        """`rows_at_once` are the rows of a micro-batch; `metrics` gets a record of each update."""
        self._run, self._state, self._rows_at_once, self._metrics = run, state, rows_at_once, metrics
        world, decoder = run.world, run.model.decoder
        self._batches = run.data.batches(
            state.step + 1,
            rank=world.rank,
            world_size=world.size,
            pin=world.device.type == "cuda",
            # Each number of rows is compiled, so all micro-batches of a compiled model have one.
            row_multiple=rows_at_once if decoder.compiled else 1,
        )
        self._queued: _QueuedUpdate | None = None
        self._pace = Pace()
        flops = decoder.flops_per_token(run.data.sequence_length)
        self._speed = Speed(flops, device=world.device, world_size=world.size)
        self.last_record: dict[str, Any] = {}
        """The record of the last update that was logged."""

    def close(self) -> None:
        """End the thread that reads batches."""
        self._batches.close()

    @property
    def number(self) -> int:
        """Updates that are computed or queued."""
        return self._state.step + (self._queued is not None)

    @property
    def reads_late(self) -> bool:
        """Whether the losses of an update are read when the next one is queued."""
        return self._run.world.device.type == "cuda"

    @property
    def tokens_per_second(self) -> float | None:
        """Over all updates of this call; None before the first."""
        return self._pace.tokens_per_second

    def is_due(self, every: int) -> bool:
        """Whether an action of every `every` steps (0: never), and after the last step, is due now."""
        return self._is_due_after(self.number, every)

    def _is_due_after(self, step: int, every: int) -> bool:
        return step > 0 and every > 0 and (step % every == 0 or step == self._run.steps)

    def queue_next(self) -> None:
        """Queue one update of the weights from this rank's part of the next global batch; then read and log the losses
        of the update before, so that a GPU has work meanwhile. A CPU has done it by then, and it is read too."""
        run, config, number = self._run, self._run.config, self.number + 1
        started = time.perf_counter()
        batch = next(self._batches)
        waited = time.perf_counter() - started
        rate = learning_rate(number, steps=run.steps, peak=config.learning_rate, schedule=config.schedule)
        run.optimizer.zero_grad()
        sums = accumulate_gradients(run.model, batch, micro_batch_size=self._rows_at_once, arithmetic=run.arithmetic)
        norm = self._change_weights(rate) if sums.weight else torch.zeros((), device=run.world.device)
        values = HostCopy(torch.cat([norm.double()[None], sums.losses.over_all_ranks()]))
        seconds = time.perf_counter() - started
        self.settled()
        self._queued = _QueuedUpdate(number=number, rate=rate, values=values, waited=waited, seconds=seconds)
        if not self.reads_late:
            self.settled()

    def _change_weights(self, rate: float) -> Tensor:
        """Clip the gradients and update the weights; returns the gradients' norm, on the device."""
        norm = self._run.optimizer.clip()
        self._run.optimizer.step(rate)
        return norm

    def settled(self) -> TrainingState:
        """The state after all updates so far. Reads, checks and logs the losses of the queued one, if there is one.

        Raises:
            DivergedError: its gradient is not finite.
        """
        queued, self._queued = self._queued, None
        if queued is None:
            return self._state
        started = time.perf_counter()
        norm, *sums = queued.values.read()
        if not math.isfinite(norm):
            raise DivergedError(
                f"step {queued.number}: the gradient is {norm}; no checkpoint has this update. Try a lower "
                "learning_rate or a longer schedule.warmup_steps, and resume from the last checkpoint, if there is one"
            )
        totals = LossTotals.of(sums)
        self._state = self._state.after(totals)
        seconds = queued.seconds + (time.perf_counter() - started)
        self._log(queued, totals, norm=norm if totals.weight else None, seconds=seconds)
        return self._state

    def _log(self, queued: _QueuedUpdate, totals: LossTotals, *, norm: float | None, seconds: float) -> None:
        """Write the record of an update, and its line where one is due."""
        self._pace.add(seconds, tokens=totals.tokens)
        tokens_per_second = totals.tokens / seconds
        self.last_record = step_record(
            totals,
            state=self._state,
            with_metadata=self._run.has_metadata,
            groups=self._run.groups,
            rate=queued.rate,
            norm=norm,
            timing={
                "tokens_per_second": tokens_per_second,
                "data_wait": queued.waited / seconds,
                **self._speed.record(tokens_per_second),
            },
        )
        self._metrics.write(self.last_record)
        if queued.number == 1 or self._is_due_after(queued.number, self._run.config.log_every):
            recent = self._pace.since_line()
            record = {**self.last_record, "tokens_per_second": recent, **self._speed.record(recent)}
            self._run.report(step_line(record, steps=self._run.steps, pace=self._pace))
