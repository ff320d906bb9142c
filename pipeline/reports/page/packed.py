"""Numbers of token files and packed files: lengths of documents, tokens of layouts, some sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colophon.pipeline.reports.inspection import shown_sequence
from colophon.shards.arrow_files import list_chunks, read_table
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import checked_path
from colophon.shards.outputs import TOKENS
from colophon.shards.reader import PackedDataset
from colophon.shards.run_output import RunOutput
from colophon.shards.tokenizer.tokenizer import Tokenizer

_LONGEST = 1 << 20
_TOKENS_SHOWN = 400


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """The tokens of documents."""

    documents: NumPyArray
    """int64 [2**20 + 1]: documents by their number of tokens; longer ones are in the last place."""

    def quantile(self, share: float) -> int:
        """The smallest number of tokens that this share of the documents does not exceed; 0 without documents."""
        return int(np.searchsorted(np.cumsum(self.documents), share * self.documents.sum()))

    def by_power(self) -> list[tuple[int, int, int]]:
        """The smallest and largest length of each interval between powers of two, and its documents.

        Lengths 0, 1, 3 and 3 give [(0, 0, 1), (1, 1, 1), (2, 3, 2)].
        """
        if not self.documents.any():
            return []
        highest = int(np.flatnonzero(self.documents)[-1])
        ends = [(0, 0), *((1 << power, (2 << power) - 1) for power in range(highest.bit_length()))]
        return [(low, high, int(self.documents[low : high + 1].sum())) for low, high in ends]


def lengths(run: RunOutput) -> Lengths:
    """The tokens of all documents of the token files, which are mapped one at a time.

    Raises:
        ShardError: a file cannot be read or differs from its record.
    """
    documents = np.zeros(_LONGEST + 1, np.int64)
    tokens = run.manifest.outputs.get(TOKENS)
    for record in tokens.records if tokens else ():
        offsets, _ = list_chunks(read_table(checked_path(run.directory, record)).column("input_ids"))
        found = np.bincount(np.minimum(np.diff(offsets), _LONGEST))
        documents[: len(found)] += found
    return Lengths(documents=documents)


def sequences(run: RunOutput, layout: str, tokenizer: Tokenizer, *, most: int) -> Iterator[dict[str, Any]]:
    """Yield the first tokens of sequences from the first to the last of the layout's first file, as `inspect` has them.

    Raises:
        ShardError: the file cannot be read or differs from its record, or a different tokenizer wrote it.
        TokenizerError: the tokenizer does not have an id.
    """
    dataset = opened(run.manifest.packed_files(run.directory, layout)[:1], tokenizer)
    for row in np.unique(np.linspace(0, len(dataset) - 1, most).astype(int)).tolist():
        yield shown_sequence(dataset, tokenizer, layout=layout, row=row, tokens=_TOKENS_SHOWN)


def opened(paths: Sequence[Path], tokenizer: Tokenizer) -> PackedDataset:
    """The packed sequences of these files, which this tokenizer can show.

    Raises:
        ShardError: a file cannot be read, or a different tokenizer wrote it.
    """
    dataset = PackedDataset(paths)
    if dataset.info.tokenizer.sha256 != tokenizer.sha256:
        raise ShardError(f"{paths[0].parent}: tokenizer {tokenizer.name} is not the one that wrote the files")
    return dataset
