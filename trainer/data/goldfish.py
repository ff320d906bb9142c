"""The goldfish loss (arXiv 2406.10209): some text labels are never paid, always the same ones after the same text."""

from __future__ import annotations

from functools import cache

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.schema import Role


def goldfish_drops(tokens: NumPyArray, roles: NumPyArray, segments: NumPyArray, *, k: int, h: int) -> NumPyArray:
    """Which labels are dropped: bool [n, L], one in `k` of those that stand behind `h` text tokens of their segment.

    A label is dropped where a hash of the `h` tokens before it is 0 modulo `k`: a dot product with fixed odd 64-bit
    numbers, modulo 2^64 (a product of ids, as in the paper's code, is 0 as soon as one id is), of which the upper half
    counts.

    Args:
        tokens: uint16 or uint32 [n, L + 1].
        roles: uint8 [n, L + 1].
        segments: int32 [n, L + 1].
        k: one label in so many is dropped.
        h: tokens that decide.
    """
    width = tokens.shape[1]
    if width <= h:
        return np.zeros((len(tokens), width - 1), bool)
    ids = tokens.astype(np.uint64) + np.uint64(1)
    hashes = np.zeros((len(tokens), width - h), np.uint64)
    is_text = roles == Role.TEXT
    decidable = is_text[:, h:] & (segments[:, h:] == segments[:, :-h])
    for distance, factor in enumerate(_factors(h), 1):
        part = slice(h - distance, width - distance)
        hashes += factor * ids[:, part]
        decidable &= is_text[:, part]
    drops = np.zeros((len(tokens), width - 1), bool)
    drops[:, h - 1 :] = decidable & ((hashes >> np.uint64(32)) % np.uint64(k) == 0)
    return drops


@cache
def _factors(count: int) -> NumPyArray:
    """uint64 [count], odd; the first ones are the same for every count."""
    factors: NumPyArray = np.random.default_rng(2406_10209).integers(0, 2**63, count, dtype=np.uint64) * 2 + 1
    return factors
