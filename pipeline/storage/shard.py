"""A shard: the part of a run's partitions that one command works on, beside commands for the other parts.

The commands need not know of each other. Each computes its share from the plan alone: partitions are sorted by size,
largest first, and dealt out back and forth (1 2 3 3 2 1 1 2 …). Shares differ by at most the largest partition.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colophon.pipeline.errors import UsageError
from colophon.shards.common.arrays import NumPyArray

LOCK_NAME = ".lock"
"""The file of a whole run's lock."""
SHARDS = "shards"
"""The directory of the shards' locks and results."""
_SPELLING = re.compile(r"0*(\d{1,9})/0*(\d{1,9})", re.ASCII)
_LOCK = re.compile(rf"{SHARDS}/(\d{{1,9}})-of-(\d{{1,9}})\.lock", re.ASCII)


@dataclass(frozen=True, order=True)
class Shard:
    """Shard `number` of `count`, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of `3/64`.

        Raises:
            UsageError: it is spelled in another way, or the number is not between 1 and the count.
        """
        found = _SPELLING.fullmatch(text)
        shard = cls(int(found[1]), int(found[2])) if found else None
        if shard is None or not 1 <= shard.number <= shard.count:
            raise UsageError(f"--shard {text}: must be NUMBER/COUNT with 1 <= NUMBER <= COUNT, such as 3/64")
        return shard

    @property
    def path(self) -> str:
        """The path of its files under the output, without a suffix."""
        return f"{SHARDS}/{self.number}-of-{self.count}"

    @property
    def lock_name(self) -> str:
        """The path of its lock under the output."""
        return f"{self.path}.lock"

    def share(self, sizes: Sequence[int] | NumPyArray) -> list[int]:
        """The indices, ascending, of the shard's partitions among all. `sizes` are theirs, in the plan's order."""
        share: list[int] = np.flatnonzero(shard_numbers(sizes, count=self.count) == self.number).tolist()
        return share


def shard_numbers(sizes: Sequence[int] | NumPyArray, *, count: int) -> NumPyArray:
    """int64 [partitions]: the number of each partition's shard. `sizes` are in the plan's order."""
    largest_first = np.argsort(-np.asarray(sizes, np.int64), kind="stable")
    turn, place = np.divmod(np.arange(len(largest_first)), count)
    numbers = np.empty(len(largest_first), np.int64)
    numbers[largest_first] = np.where(turn % 2, count - place, place + 1)
    return numbers


def shard_of_lock(name: str) -> Shard | None:
    """The shard whose lock has this path under the output; None for other files."""
    found = _LOCK.fullmatch(name)
    return Shard(int(found[1]), int(found[2])) if found else None


def excludes(mine: str, other: str) -> bool:
    """Whether two locks of one output, by their paths, must not be held at once.

    A whole run excludes every shard. Shards of one count have shares without a common partition, those of different
    counts do not.
    """
    one, two = shard_of_lock(mine), shard_of_lock(other)
    if mine == other or (one is None and mine != LOCK_NAME) or (two is None and other != LOCK_NAME):
        return False  # the same lock, or no lock
    return one is None or two is None or one.count != two.count
