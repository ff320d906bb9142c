"""A source: one packed layout, the rows of it that a run may train on, and their order."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedDataset
from colophon.shards.stores.places import RunPlace
from colophon.trainer.config import SourceConfig
from colophon.trainer.data.held_out import HeldOut
from colophon.trainer.data.packed_layout import PackedLayout, PackedLayouts
from colophon.trainer.data.rows.mixture import RowOrder
from colophon.trainer.data.rows.values import row_scores, row_weights
from colophon.trainer.errors import TrainerError


class Source:
    """A layout as a run trains on it."""

    def __init__(
        self, config: SourceConfig, *, layouts: PackedLayouts, held_out: HeldOut, seed: int, stream: int
    ) -> None:
        """Open the layout, and read the weights and scores of its rows.

        Args:
            config: the source's settings.
            layouts: the layouts of the run; the source's is opened there.
            held_out: rows of validation.
            seed: of the run.
            stream: number of the source in the run; sources with different streams have different orders.

        Raises:
            ShardError: the layout is missing, or no annotator has a column that is needed.
            TrainerError: the layout differs from the others of the run, or no row is left to train on.
        """
        packed = layouts.open(config)
        self._config = config
        self.packed = packed
        self.output: RunPlace = packed.output
        self.dataset: PackedDataset = packed.dataset
        self._rows = held_out.training_rows(packed)
        if not len(self._rows):
            raise TrainerError(
                f"layout {config.layout!r} of {packed.output} has {len(self.dataset)} rows, all with documents that "
                "are held out for validation: none is left to train on (set validation_rows or validation_output)"
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
        """The layout's name."""
        return self._config.layout

    @property
    def weight(self) -> float:
        """Share of the samples, on the scale of all sources' weights; the number of rows where none is set."""
        return float(len(self)) if self._config.weight is None else self._config.weight

    def rows(self, samples: NumPyArray) -> NumPyArray:
        """int64 [n]: the data set's rows of samples int64 [n], which are counted from 0 over all epochs."""
        return self._rows[self._order.rows(samples)]

    def fingerprint(self, *, share: float) -> dict[str, Any]:
        """JSON values that must be the same when a run is resumed."""
        curriculum = self._config.curriculum
        return {
            "layout": self._config.layout,
            "shards": self.packed.fingerprint,
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
