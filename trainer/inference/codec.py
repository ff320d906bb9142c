"""The part of a tokenizer that studies of a trained model use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.metadata import TextEncoder

Decode = Callable[[NumPyArray], str]
"""From ids to text; bytes that are not UTF-8 become U+FFFD."""


class Codec(TextEncoder, Protocol):
    """A tokenizer that encodes and decodes."""

    def decode(self, ids: NumPyArray) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD."""
        ...
