"""The phases of a run: from which update on it trains on which sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.held_out import HeldOut
from colophon.trainer.data.packed_layout import PackedLayout, PackedLayouts
from colophon.trainer.data.rows.mixture import Shares
from colophon.trainer.data.rows.sources import Source


class Phase:
    """Sources that are mixed from one update on."""

    def __init__(self, sources: Sequence[Source], *, first_step: int, batch_size: int) -> None:
        self.sources, self.first_step, self._batch_size = tuple(sources), first_step, batch_size
        self.shares = Shares([source.weight for source in sources], batch_size=batch_size)

    def rows(self, step: int, *, part: slice) -> Iterator[tuple[Source, NumPyArray]]:
        """The rows of the global batch of update `step` of the run, source by source; of them, those in `part`."""
        places, first = np.arange(self._batch_size)[part], 0
        for source, (start, stop) in zip(self.sources, self.shares.samples(step - self.first_step + 1), strict=True):
            own_places = places[(places >= first) & (places < first + stop - start)]
            if len(own_places):
                yield source, source.rows(start - first + own_places)
            first += stop - start

    def text_tokens(self, step: int) -> int:
        """Tokens of text in the global batch of update `step` of the run."""
        return self._sum(step, lambda packed: packed.text_tokens)

    def tokens(self, step: int) -> int:
        """Labels in the global batch of update `step` of the run, without padding."""
        return self._sum(step, lambda packed: packed.tokens)

    def _sum(self, step: int, by_row: Callable[[PackedLayout], NumPyArray]) -> int:
        return sum(int(by_row(source.packed)[rows].sum()) for source, rows in self.rows(step, part=slice(None)))

    def summary(self) -> str:
        """One human-readable line: `from step 1: 75.0% prepend (1,000 rows), 25.0% append (990 rows)`."""
        names = [source.layout for source in self.sources]
        parts = ", ".join(
            f"{share:.1%} {source.layout}{f' of {source.output}' if names.count(source.layout) > 1 else ''} "
            f"({len(source):,} rows)"
            for share, source in zip(self.shares.shares, self.sources, strict=True)
        )
        return f"from step {self.first_step}: {parts}"

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that must be the same when a run is resumed."""
        with_shares = zip(self.sources, self.shares.shares, strict=True)
        return {str(number): source.fingerprint(share=share) for number, (source, share) in enumerate(with_shares)}


def open_sources(config: TrainConfig, *, layouts: PackedLayouts, held_out: HeldOut) -> list[list[Source]]:
    """Open the sources of a run before its first phase, then those of each phase.

    Raises:
        ShardError, TrainerError: as `Source`.
    """
    mixed_sources = [config.mixed_sources, *(phase.mixed_sources for phase in config.phases)]
    return [
        [
            Source(source, layouts=layouts, held_out=held_out, seed=config.seed, stream=(number << 16) + index)
            for index, source in enumerate(sources)
        ]
        for number, sources in enumerate(mixed_sources)
    ]


def phases_of(config: TrainConfig, sources_of_phases: Sequence[Sequence[Source]]) -> list[Phase]:
    """The data before the first phase, as a phase that starts at step 1, then the phases of settings with a length."""
    starts = [1, *config.phase_starts()]
    return [
        Phase(sources, first_step=start, batch_size=config.batch_size)
        for start, sources in zip(starts, sources_of_phases, strict=True)
    ]
