"""Updates of a training with `order = "documents"`: the same text tokens of the same documents in every layout."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedDataset
from colophon.shards.stores.places import run_place
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.batch import Batch, BatchBuffer
from colophon.trainer.data.documents.assembly import Assembly
from colophon.trainer.data.documents.order import DocumentOrder
from colophon.trainer.data.documents.text_line import Segments, TextLine
from colophon.trainer.data.groups import TextGroups
from colophon.trainer.data.held_out import HeldOut, check_same_layout
from colophon.trainer.data.held_out_choice import FEWEST_DOCUMENTS, MOST_ROWS_OF_A_DOCUMENT, choose_by_text
from colophon.trainer.data.packed_layout import PackedLayout, PackedLayouts
from colophon.trainer.data.rows.length import checked_length
from colophon.trainer.errors import TrainerError

_MOST_VALIDATION_ROWS = 256


class DocumentUpdates:
    """The data of each update, where the documents decide it; see `trainer.data.documents.order`."""

    def __init__(self, config: TrainConfig, *, layouts: PackedLayouts, packed: PackedLayout) -> None:
        """Read the runs of all layouts of a run.

        Args:
            config: with `order = "documents"`: one layout, and one for each phase.
            layouts: opens the layouts.
            packed: the layout before the first phase, which validation uses.

        Raises:
            ShardError: a layout is missing, or its files differ from their records.
            TrainerError: no text is left to train on, two layouts have different documents, or the length in
                `text_tokens` does not fit the phases or the schedule.
        """
        self._width = packed.dataset.sequence_length + 1
        self._tokens = config.batch_size * packed.dataset.sequence_length  # of text in an update
        self.config = config
        if config.text_tokens is not None:
            steps = -(-config.text_tokens // self._tokens)
            starts = [phase.first_step(steps) for phase in config.phases]
            self.config = checked_length(config, steps, phase_starts=starts)
        whole = TextLine.of(packed)
        kept, self._validation = _hold_out(whole, config)
        self._lines = [whole.only(kept)]
        for phase in config.phases:
            other = TextLine.of(layouts.open(phase.mixed_sources[0]))
            _check_same_documents(whole, other)
            self._lines.append(other.only(kept))
        line = self._lines[0]
        if not line.num_tokens:
            raise TrainerError(
                f"layout {config.layout!r} of {packed.output}: all documents are held out for validation: none is left "
                "to train on (set validation_rows or validation_output)"
            )
        blocks = line.blocks(packed.dataset.sequence_length)
        self._order = DocumentOrder(blocks, num_tokens=line.num_tokens, seed=config.seed)
        rows = np.unique(self._validation.all_segments.row)
        documents = {} if config.validation_output is not None else self._validation.by_partition()
        self.held_out = HeldOut(packed=self._validation.packed, rows=rows, whole_documents=documents)
        """The documents of validation; `rows` are those of the layout that have a part of one."""

    @property
    def num_rows(self) -> int:
        """Rows of the first layout that have text to train on."""
        return len(np.unique(self._lines[0].all_segments.row))

    def text_tokens(self) -> int:
        """Tokens of text in all updates of the run."""
        return self._tokens * self.config.num_steps

    def tokens(self) -> int:
        """Labels in all updates of the run, without padding, to about a hundredth: each phase has its layout's ratio of
        labels to text, and rows that are full."""
        starts = [*self.config.phase_starts(), self.config.num_steps + 1]
        steps = np.diff(starts, prepend=1)
        return sum(
            round(int(n) * self._tokens * self._labels_by_text(line))
            for n, line in zip(steps, self._lines, strict=True)
        )

    def _labels_by_text(self, line: TextLine) -> float:
        num_ids = int(line.all_segments.length.sum())
        return num_ids * (1 - 1 / self._width) / line.num_tokens  # the first id of a row is no label

    @property
    def epochs(self) -> float:
        """The number of times that the run reads its text."""
        return self.text_tokens() / self._lines[0].num_tokens

    @property
    def pairing(self) -> str:
        """Equal for runs whose updates have the same text and whose validations have the same documents, whatever
        their layouts."""
        parts = (self._lines[0].digest, self._validation.digest, str(self.config.seed), str(self._tokens))
        return sha256(" ".join(parts).encode()).hexdigest()

    def summary(self) -> list[str]:
        """Human-readable lines: the documents and their order, and the layout of each phase."""
        line = self._lines[0]
        order = (
            f"order of documents {line.digest[:12]}: {len(line.documents):,} documents with {line.num_tokens:,} text "
            f"tokens, {self._tokens:,} in each update"
        )
        starts = [1, *self.config.phase_starts()]
        phases = [f"from step {start}: {line.packed.layout}" for start, line in zip(starts, self._lines, strict=True)]
        return [order, *(phases if len(phases) > 1 else [])]

    def fingerprints(self, step: int) -> dict[str, Any]:
        """JSON values that must be the same when the run is resumed after update `step`."""
        begun = [start for start in self.config.phase_starts() if start <= step]
        shared: dict[str, Any] = {
            "order": "documents",
            "documents": self._lines[0].digest,
            "shards": self._lines[0].packed.fingerprint,
            "validation shards": self._validation.packed.fingerprint,
            "validation documents": self._validation.digest,
        }
        if begun:
            lines = self._lines[1:][: len(begun)]
            shared["phases"] = {
                str(number): {"first step": start, "layout": line.packed.layout, "shards": line.packed.fingerprint}
                for number, (start, line) in enumerate(zip(begun, lines, strict=True))
            }
        return shared

    def batch(self, step: int, *, rank: int, world_size: int, buffer: BatchBuffer) -> Batch:
        """Rank `rank`'s rows of the global batch of update `step`, in `buffer`; every rank has equally many.

        Rows of padding fill the last places where the rows do not divide evenly.
        """
        dataset, part = self._part(step, rank=rank, world_size=world_size)
        return buffer.assemble(part, dataset, goldfish=self.config.goldfish)

    def rows(self, step: int, *, rank: int, world_size: int) -> Iterator[tuple[PackedDataset, NumPyArray]]:
        """Yield the data set and the rows, int64, that have the segments of the rank's part of update `step`."""
        dataset, part = self._part(step, rank=rank, world_size=world_size)
        yield dataset, np.unique(part.segments.row)

    def _part(self, step: int, *, rank: int, world_size: int) -> tuple[PackedDataset, Assembly]:
        line = self._lines[sum(start <= step for start in self.config.phase_starts())]
        whole = self._assembly(line, (step - 1) * self._tokens, step * self._tokens)
        part = whole.part(rank, step=world_size, count=-(-whole.num_rows // world_size))
        return line.packed.dataset, part

    def _assembly(self, line: TextLine, first: int, last: int) -> Assembly:
        """The rows for the stream's text tokens from `first` to before `last`."""
        intervals = list(self._order.intervals(first, last))
        parts = [line.segments(start, end) for start, end in intervals]
        starts, ends = (np.repeat(bounds, [len(part) for part in parts]) for bounds in zip(*intervals, strict=True))
        segments = Segments.joined(parts)
        return Assembly.of(segments, label_from=starts, label_to=ends, width=self._width)

    def validation_batches(self, *, rank: int, world_size: int, groups: TextGroups | None = None) -> Iterator[Batch]:
        """The rank's part of the held-out documents, in micro-batches; every rank has equally many."""
        line, size = self._validation, self.config.rows_at_once
        if not line.num_tokens:
            return
        segments = line.all_segments
        ends = segments.start + segments.num_text
        whole = Assembly.of(segments, label_from=segments.start, label_to=ends, width=self._width)
        own = whole.part(rank, step=world_size, count=-(-whole.num_rows // world_size))
        line.packed.dataset.read_ahead(np.unique(own.segments.row))
        for start in range(0, own.num_rows, size):
            micro = own.part(start, count=min(size, own.num_rows - start))
            dataset = line.packed.dataset
            buffer = BatchBuffer(micro.num_rows, width=self._width, dtype=dataset.id_dtype, groups=groups)
            yield buffer.assemble(micro, dataset, goldfish=None)


def _hold_out(whole: TextLine, config: TrainConfig) -> tuple[NumPyArray, TextLine]:
    """The documents to train on, bool [num_documents] of `whole`, and the line of the documents of validation.

    Both depend on the documents' places and lengths and on the seed, not on the layout.
    """
    length, rows = whole.packed.dataset.sequence_length, config.validation_rows
    if config.validation_output is not None:
        other = PackedLayout.open(run_place(config.validation_output), config.layout, cache=config.cache)
        check_same_layout(whole.packed, other)
        line = TextLine.of(other)
        wanted = line.num_tokens if rows is None else rows * length
        chosen = choose_by_text(line, num_tokens=wanted, seed=config.seed, most=None)
        return np.ones(len(whole.documents), bool), line.only(chosen)
    if rows is None:
        rows = min(_MOST_VALIDATION_ROWS, max(1, whole.num_tokens // (100 * length)))
    most = max(MOST_ROWS_OF_A_DOCUMENT, rows // FEWEST_DOCUMENTS) * length
    chosen = choose_by_text(whole, num_tokens=rows * length, seed=config.seed, most=most)
    if rows and not chosen.any():
        raise TrainerError(
            f"layout {config.layout!r} of {whole.packed.output}: no document is short enough to be held out, at most "
            f"{most:,} tokens (set validation_rows or validation_output)"
        )
    return ~chosen, whole.only(chosen)


def _check_same_documents(first: TextLine, other: TextLine) -> None:
    if first.digest != other.digest:
        raise TrainerError(
            f'order = "documents": layouts {first.packed.layout!r} and {other.packed.layout!r} of '
            f"{other.packed.output} have different documents: pack both from the same run"
        )
