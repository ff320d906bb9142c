"""Batches of a run by step: a pure function of (seed, step).

The rows of an epoch are permuted by (seed, epoch). The permutations of all epochs, joined, are cut into global batches;
rank r takes every world_size-th row from the r-th on. So each row is in a batch once an epoch, a batch may hold the end
of one epoch and the start of the next, and neither the number of devices nor a resume changes the rows of update
`step`. `trainer.data.rows.mixture` computes this order, and that of several sources. With `order = "documents"`,
`trainer.data.documents.order` decides the text of an update instead, and the rows are built from segments.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.schema import TokenizerInfo
from colophon.shards.stores.places import RunPlace
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.batch import Batch, BatchBuffer
from colophon.trainer.data.description import DataDescription
from colophon.trainer.data.document_numbers import DocumentNumbers
from colophon.trainer.data.documents.updates import DocumentUpdates
from colophon.trainer.data.groups import EachDocument, TextGroups
from colophon.trainer.data.packed_layout import PackedLayouts
from colophon.trainer.data.rows.updates import RowUpdates
from colophon.trainer.errors import TrainerError

UPDATES_AHEAD = 4
"""Updates whose rows are requested from an object store before they are needed."""


class TrainingData:
    """The training rows and the validation rows of a run."""

    def __init__(
        self, config: TrainConfig, *, output: RunPlace, report: Callable[[str], None] = lambda line: None
    ) -> None:
        """Open all layouts of a run; `output` is the output of the recipe, `report` receives human-readable lines.

        Raises:
            ShardError: a layout is missing, or its files differ from their records; no annotator has a column.
            TrainerError: no row or no label is left to train on; layouts differ in what they must share; the length in
                `text_tokens` does not fit the phases or the schedule.
        """
        self._layouts = PackedLayouts(output, cache=config.cache, report=report)
        packed = self._layouts.open(next(source for source in config.mixed_sources if source.layout == config.layout))
        self.dataset = packed.dataset
        """The layout that validation uses, as packed for training."""
        kind = DocumentUpdates if config.order == "documents" else RowUpdates
        self.updates: DocumentUpdates | RowUpdates = kind(config, layouts=self._layouts, packed=packed)
        """The data by update; `config.order` decides which."""
        self.config = self.updates.config
        """The settings with their number of steps."""
        held_out = self.updates.held_out
        self.validation_dataset, self.validation_rows = held_out.packed.dataset, held_out.rows
        self.groups = TextGroups(config.group_by, self.numbers) if config.group_by else None
        """The groups of `group_by`."""
        if not self.role_weights.any():
            raise TrainerError("no label of this run has loss weight: set role_weights of a layout above 0")

    @property
    def tokenizer(self) -> TokenizerInfo:
        """The tokenizer of all layouts."""
        return self.dataset.tokenizer

    @property
    def sequence_length(self) -> int:
        """Inputs per row, in all layouts."""
        return self.dataset.sequence_length

    @property
    def role_weights(self) -> NumPyArray:
        """float32 [7]: the highest loss weight of each role in any of the layouts."""
        return self._layouts.role_weights

    def description(self, step: int) -> DataDescription:
        """The data of all updates up to `step`, for a checkpoint."""
        phases = [phase for phase in self.config.phases if phase.first_step(self.config.num_steps) <= step]
        sources = [*self.config.mixed_sources, *(source for phase in phases for source in phase.mixed_sources)]
        sources.sort(key=lambda source: source.layout != self.config.layout)  # validation's first
        return DataDescription(
            tokenizer=self.tokenizer,
            layouts=self._layouts.descriptions(sources),
            held_out=self.updates.held_out.descriptions(),
        )

    @property
    def num_rows(self) -> int:
        """Rows that the run trains on before its first phase."""
        return self.updates.num_rows

    def text_tokens(self) -> int:
        """Tokens of text in all updates of the run; costs up to some tens of microseconds an update."""
        return self.updates.text_tokens()

    def tokens(self) -> int:
        """Labels in all updates of the run, without padding; exact by rows, to about a hundredth by documents."""
        return self.updates.tokens()

    def summary(self) -> list[str]:
        """Human-readable lines on the data and its order; none where the whole run has one source of rows."""
        return self.updates.summary()

    def traffic(self) -> list[str]:
        """One human-readable line for each layout in an object store: what this process has read of it so far."""
        datasets = {id(dataset): dataset for dataset in (*self._layouts.datasets, self.validation_dataset)}
        return [line for dataset in datasets.values() if (line := dataset.traffic()) is not None]

    def fingerprints(self, step: int) -> dict[str, Any]:
        """JSON values that must be the same when the run is resumed after update `step`: the data of all updates so
        far."""
        layouts = {one.key: one.meaning() for one in self.description(step).layouts}
        return {"layouts": layouts, **self.updates.fingerprints(step)}

    @cached_property
    def numbers(self) -> DocumentNumbers:
        """Numbers of the documents in all batches."""
        opened, validation = self._layouts.opened, self.updates.held_out.packed
        return DocumentNumbers(opened if any(one is validation for one in opened) else [*opened, validation])

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1, buffer: BatchBuffer | None = None) -> Batch:
        """Rank `rank`'s part of the global batch of update `step` (from 1); in `buffer`, if given."""
        buffer = self._buffer(rank=rank, world_size=world_size) if buffer is None else buffer
        return self.updates.batch(step, rank=rank, world_size=world_size, buffer=buffer)

    def batches(
        self, step: int, *, rank: int = 0, world_size: int = 1, pin: bool = False, row_multiple: int = 1
    ) -> Generator[Batch]:
        """The rank's parts of the batches from update `step` on, without end; a thread reads one batch ahead.

        Two buffers alternate, so a batch is overwritten once the next one is requested.

        Args:
            step: the first update.
            rank: of this process.
            world_size: number of processes.
            pin: whether batches are in page-locked memory, from which a GPU copies while it computes. Copies that are
                queued on the current stream when the next batch is requested are completed before the overwriting.
            row_multiple: with `order = "documents"`, rows of padding are added up to a multiple of this number of rows.
        """
        buffers = [self._buffer(rank=rank, world_size=world_size, pin=pin, row_multiple=row_multiple) for _ in range(2)]
        self.read_ahead(range(step, step + UPDATES_AHEAD), rank=rank, world_size=world_size)

        def read(step: int, copied: torch.cuda.Event | None) -> Batch:
            if copied is not None:
                copied.synchronize()
            self.read_ahead(range(step + UPDATES_AHEAD, step + UPDATES_AHEAD + 1), rank=rank, world_size=world_size)
            return self.batch(step, rank=rank, world_size=world_size, buffer=buffers[step % 2])

        # A new thread uses GPU 0; waiting there for an event of another GPU would open a context on GPU 0 in every
        # process.
        device = (torch.cuda.set_device, (torch.cuda.current_device(),)) if torch.cuda.is_available() else (None, ())
        with ThreadPoolExecutor(1, "colophon-batches", *device) as reader:
            ahead = reader.submit(read, step, None)
            while True:
                batch, step = ahead.result(), step + 1
                ahead = reader.submit(read, step, _recorded_event() if pin else None)
                yield batch

    def read_ahead(self, steps: range, *, rank: int = 0, world_size: int = 1) -> None:
        """Start to read the rank's rows of some updates, where they are in an object store."""
        if not any(dataset.is_stored for dataset in self._layouts.datasets):
            return
        for step in range(steps.start, min(steps.stop, self.config.num_steps + 1)):
            for dataset, rows in self.updates.rows(step, rank=rank, world_size=world_size):
                dataset.read_ahead(rows)

    def traced(self, step: int) -> tuple[Batch, NumPyArray]:
        """The global batch of update `step`, and int64 [b, L + 1]: the number of each token's document in `numbers`;
        -1 for padding."""
        width, size = self.sequence_length + 1, self.config.batch_size
        groups = EachDocument(self.numbers)
        batch = self.batch(step, buffer=BatchBuffer(size, width=width, dtype=self.dataset.id_dtype, groups=groups))
        assert batch.groups is not None
        return replace(batch, groups=None), batch.groups[:, 0].numpy()

    def _buffer(self, *, rank: int, world_size: int, pin: bool = False, row_multiple: int = 1) -> BatchBuffer:
        return BatchBuffer(
            len(range(rank, self.config.batch_size, world_size)),
            width=self.sequence_length + 1,
            dtype=self.dataset.id_dtype,
            pin=pin,
            groups=self.groups,
            row_multiple=row_multiple,
        )

    def validation_batches(self, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """The rank's part of the validation rows, in micro-batches; every rank has equally many."""
        return self.updates.validation_batches(rank=rank, world_size=world_size, groups=self.groups)


def _recorded_event() -> torch.cuda.Event:
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event
