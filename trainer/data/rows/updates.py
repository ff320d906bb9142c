"""Updates of a training with `order = "rows"`: `batch_size` rows of permuted epochs, see `mixture`."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.batch import Batch, BatchBuffer, read_batch
from colophon.trainer.data.groups import TextGroups
from colophon.trainer.data.held_out import hold_out_rows
from colophon.trainer.data.packed_layout import PackedLayout, PackedLayouts
from colophon.trainer.data.rows.length import phase_at, with_length
from colophon.trainer.data.rows.phases import open_sources, phases_of


class RowUpdates:
    """The data of each update, where it is a number of rows."""

    def __init__(self, config: TrainConfig, *, layouts: PackedLayouts, packed: PackedLayout) -> None:
        """Open all layouts of a run.

        Args:
            config: with `order = "rows"`.
            layouts: opens the layouts.
            packed: the layout that validation uses.

        Raises:
            ShardError: a layout is missing, or its files differ from their records; no annotator has a column.
            TrainerError: no row is left to train on; layouts differ in what they must share; the length in
                `text_tokens` does not fit the phases or the schedule.
        """
        self._packed = packed
        self.held_out = hold_out_rows(packed, config)
        """The rows of validation."""
        sources = open_sources(config, layouts=layouts, held_out=self.held_out)
        self.config = with_length(config, sources)
        """The settings with their number of steps."""
        self.phases = phases_of(self.config, sources)

    @property
    def num_rows(self) -> int:
        """Training rows of all sources before the first phase."""
        return sum(map(len, self.phases[0].sources))

    def text_tokens(self) -> int:
        """Tokens of text in all updates of the run; costs some tens of microseconds an update."""
        return sum(phase_at(self.phases, step).text_tokens(step) for step in range(1, self.config.num_steps + 1))

    def tokens(self) -> int:
        """Labels in all updates of the run, without padding; costs as `text_tokens`."""
        return sum(phase_at(self.phases, step).tokens(step) for step in range(1, self.config.num_steps + 1))

    @property
    def epochs(self) -> float | None:
        """The number of times that the run reads its rows; None where it has several sources or phases."""
        (first, *phases), samples = self.phases, self.config.num_steps * self.config.batch_size
        return None if phases or len(first.sources) > 1 else samples / self.num_rows

    def summary(self) -> list[str]:
        """One human-readable line for each phase; no line where the whole run has one source."""
        lines = [phase.summary() for phase in self.phases]
        return lines if len(lines) > 1 or len(self.phases[0].sources) > 1 else []

    def fingerprints(self, step: int) -> dict[str, Any]:
        """JSON values that must be the same when the run is resumed after update `step`: the data of all updates so
        far. A phase that has not begun may change."""
        first, *phases = self.phases
        shared: dict[str, Any] = {
            "shards": self._packed.fingerprint,
            "training rows": self.num_rows,
            "validation shards": self.held_out.packed.fingerprint,
            "validation rows": sha256(self.held_out.rows.astype("<i8").tobytes()).hexdigest(),
        }
        if self.config.sources or self.config.curriculum:
            shared["sources"] = first.fingerprint()
        begun = {str(n): phase for n, phase in enumerate(phases) if phase.first_step <= step}
        if begun:
            shared["phases"] = {n: {"first step": p.first_step, "sources": p.fingerprint()} for n, p in begun.items()}
        return shared

    def batch(self, step: int, *, rank: int, world_size: int, buffer: BatchBuffer) -> Batch:
        """Rank `rank`'s part of the global batch of update `step`, in `buffer`."""
        filled = 0
        for dataset, rows in self.rows(step, rank=rank, world_size=world_size):
            filled = buffer.fill(filled, dataset, rows, goldfish=self.config.goldfish)
        return buffer.batch

    def rows(self, step: int, *, rank: int, world_size: int) -> Iterator[tuple[PackedDataset, NumPyArray]]:
        """Yield the data sets and rows, int64, of the rank's part of update `step`."""
        for source, rows in phase_at(self.phases, step).rows(step, part=slice(rank, None, world_size)):
            yield source.dataset, rows

    def validation_batches(self, *, rank: int, world_size: int, groups: TextGroups | None = None) -> Iterator[Batch]:
        """The rank's part of the validation rows, in micro-batches; every rank has equally many.

        Where the rows do not divide evenly, some ranks get a row a second time, marked as padding.
        """
        rows = self.held_out.rows
        own_rows = rows[rank::world_size]
        num_fillers = -(-len(rows) // world_size) - len(own_rows)
        own_rows = np.concatenate([own_rows, rows[:num_fillers]])
        size = self.config.rows_at_once
        self.held_out.packed.dataset.read_ahead(own_rows)
        for start in range(0, len(own_rows), size):
            batch = read_batch(self.held_out.packed.dataset, own_rows[start : start + size], groups=groups)
            if num_fillers and start + size >= len(own_rows):
                batch.roles[-num_fillers:], batch.loss_weights[-num_fillers:] = Role.PAD, 0.0
            yield batch
