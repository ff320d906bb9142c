"""The contract between a conversion and its formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from colophon.pipeline.conversion.files import OutputFiles
from colophon.pipeline.conversion.rows import Block
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedDataset


@dataclass(frozen=True, kw_only=True)
class Target:
    """A layout that is converted, and where to."""

    dataset: PackedDataset
    role_weights: NumPyArray
    """float32 [7]: those of the layout; with `--binarize` 0 or 1."""
    files: OutputFiles
    file_bytes: int
    """A format with several files begins a new one when the ids in it have more bytes."""

    @property
    def sequence_length(self) -> int:
        """Inputs of a row."""
        return self.dataset.sequence_length

    @property
    def width(self) -> int:
        """Ids of a row: one more."""
        return self.dataset.sequence_length + 1

    @property
    def id_dtype(self) -> np.dtype[Any]:
        """uint16 or uint32."""
        return self.dataset.id_dtype

    @property
    def has_binary_weights(self) -> bool:
        """Whether all loss weights are 0 or 1."""
        return bool(np.isin(self.role_weights, (0, 1)).all())


class Writer(Protocol):
    """Writes the files of one format."""

    def add(self, block: Block) -> None:
        """Write the next rows."""

    def close(self) -> None:
        """Write what follows the last row."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format."""

    name: str
    """The value of `--to`."""
    reader: str
    """The library that reads it."""
    holds_weights: bool
    """Whether it holds any loss weight; others hold whether a label has one."""
    lacks: tuple[str, ...]
    """Human-readable: what the format, or its usual reader, cannot hold."""
    writer: Callable[[Target], Writer]
