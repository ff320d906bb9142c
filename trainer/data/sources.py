"""What a run trains on at a time: packed layouts, the rows of each that it may see, and their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedDataset
from colophon.trainer.config import SourceConfig, TrainConfig
from colophon.trainer.data.held_out import HeldOut
from colophon.trainer.data.mixture import RowOrder, Shares
from colophon.trainer.data.packed_layout import PackedLayout
from colophon.trainer.data.row_values import row_scores, row_weights
from colophon.trainer.errors import TrainerError


class Opened:
    """The layouts of a run by output and name, each opened once; they must fit each other."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._layouts: dict[tuple[Path, str], PackedLayout] = {}

    def layout(self, source: SourceConfig) -> PackedLayout:
        """The layout of a source.

        Raises:
            ShardError: it is not there, or its files do not fit their records.
            TrainerError: its tokenizer, sequence length or ids are not those of the layouts opened before.
        """
        output = source.output_directory(self._output)
        key = (output.resolve(), source.layout)
        if key not in self._layouts:
            packed = PackedLayout.open(output, source.layout)
            if self._layouts:
                _check_fit(next(iter(self._layouts.values())), packed)
            self._layouts[key] = packed
        return self._layouts[key]

    @property
    def described(self) -> list[dict[str, Any]]:
        """The layouts as they were packed, each with its `name` and the `output` directory it is in."""
        return [{"output": str(packed.output), **packed.dataset.info.layout} for packed in self._layouts.values()]

    @property
    def role_weights(self) -> NumPyArray:
        """float32 [7]: the highest loss weight that any of the layouts has for a role."""
        weights = [packed.dataset.role_weights for packed in self._layouts.values()]
        highest: NumPyArray = reduce(np.maximum, weights)
        return highest


def _check_fit(first: PackedLayout, other: PackedLayout) -> None:
    for name, one, two in (
        ("tokenizer", first.dataset.tokenizer, other.dataset.tokenizer),
        ("sequence_length", first.dataset.sequence_length, other.dataset.sequence_length),
        ("type of ids", first.dataset.id_dtype, other.dataset.id_dtype),
    ):
        if one != two:
            told = "" if name == "tokenizer" else f", {one} and {two}"
            raise TrainerError(
                f"layouts {first.layout!r} of {first.output} and {other.layout!r} of {other.output} cannot be trained "
                f"on together: they differ in {name}{told}"
            )


class Source:
    """A layout as a run trains on it."""

    def __init__(self, config: SourceConfig, *, opened: Opened, held_out: HeldOut, seed: int, stream: int) -> None:
        """Open a source; `stream` tells it from others of the run.

        Raises:
            ShardError: the layout is not there, or its files do not fit their records.
            TrainerError: it does not fit the others, has no rows to train on, or not the annotations asked for.
        """
        packed = opened.layout(config)
        self._config = config
        self.output = packed.output
        self.dataset: PackedDataset = packed.dataset
        self._rows = held_out.training_rows(packed)
        if not len(self._rows):
            raise TrainerError(
                f"layout {config.layout!r} of {packed.output} has {len(self.dataset)} rows, all with documents that "
                "are validated on: none is left to train on (set validation_rows or validation_output)"
            )
        self._weights, self._scores = self._row_weights(packed), self._row_scores(packed)
        self._order = RowOrder(
            len(self._rows),
            seed=seed,
            stream=stream,
            weights=self._weights,
            scores=self._scores,
            curriculum=config.curriculum,
        )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def layout(self) -> str:
        """Its name."""
        return self._config.layout

    @property
    def weight(self) -> float:
        """Of its samples among those of other sources."""
        return float(len(self)) if self._config.weight is None else self._config.weight

    def rows(self, samples: NumPyArray) -> NumPyArray:
        """int64 [n]: the rows of the data set that samples int64 [n] are."""
        return self._rows[self._order.rows(samples)]

    def fingerprint(self, *, share: float) -> dict[str, Any]:
        """What a resumed run must find unchanged, readable."""
        curriculum = self._config.curriculum
        return {
            "layout": self._config.layout,
            "shards": self.dataset.fingerprint,
            "training rows": len(self),
            "share": share,
            "row weights": None if self._weights is None else _digest(self._weights),
            "curriculum": None if curriculum is None else curriculum.model_dump(mode="json"),
            "scores": None if self._scores is None else _digest(self._scores),
        }

    def _row_weights(self, packed: PackedLayout) -> NumPyArray | None:
        config = self._config.row_weights
        if config is None:
            return None
        weights = row_weights(packed, config)[self._rows]
        if not weights.any():
            raise TrainerError(f"layout {packed.layout!r}: row_weights.column {config.column!r}: all rows weigh 0")
        return weights

    def _row_scores(self, packed: PackedLayout) -> NumPyArray | None:
        curriculum = self._config.curriculum
        return None if curriculum is None else row_scores(packed, curriculum.column)[self._rows]


def _digest(values: NumPyArray) -> str:
    return sha256(values.astype("<f8").tobytes()).hexdigest()


class Phase:
    """Sources that are mixed from one update on."""

    def __init__(self, sources: Sequence[Source], *, first_step: int, batch_size: int) -> None:
        self.sources, self.first_step, self._batch_size = tuple(sources), first_step, batch_size
        self.shares = Shares([source.weight for source in sources], batch_size=batch_size)

    def rows(self, step: int, *, part: slice) -> Iterator[tuple[Source, NumPyArray]]:
        """The rows of the global batch of update `step` of the run, source by source; of them, those in `part`."""
        places, first = np.arange(self._batch_size)[part], 0
        for source, (start, stop) in zip(self.sources, self.shares.samples(step - self.first_step + 1), strict=True):
            mine = places[(places >= first) & (places < first + stop - start)]
            if len(mine):
                yield source, source.rows(start - first + mine)
            first += stop - start

    def summary(self) -> str:
        """One line for a person."""
        parts = zip(self.shares.shares, self.sources, strict=True)
        names = [source.layout for source in self.sources]
        told = ", ".join(
            f"{share:.1%} {source.layout}{f' of {source.output}' if names.count(source.layout) > 1 else ''} "
            f"({len(source):,} rows)"
            for share, source in parts
        )
        return f"from step {self.first_step}: {told}"

    def fingerprint(self) -> dict[str, Any]:
        """What a resumed run must find unchanged, readable."""
        named = zip(self.sources, self.shares.shares, strict=True)
        return {str(number): source.fingerprint(share=share) for number, (source, share) in enumerate(named)}


def open_phases(config: TrainConfig, *, opened: Opened, held_out: HeldOut) -> list[Phase]:
    """What a run trains on: its own sources, and those of its phases, in order.

    Raises:
        ShardError, TrainerError: as `Source`.
    """
    starts = [1, *config.phase_starts()]
    mixed = [config.mixed_sources, *(phase.mixed_sources for phase in config.phases)]
    return [
        Phase(
            [
                Source(source, opened=opened, held_out=held_out, seed=config.seed, stream=(number << 16) + index)
                for index, source in enumerate(sources)
            ],
            first_step=start,
            batch_size=config.batch_size,
        )
        for number, (start, sources) in enumerate(zip(starts, mixed, strict=True))
    ]
