"""The goldfish loss (arXiv 2406.10209): some text labels are masked, always the same ones after the same text."""

from __future__ import annotations

from functools import cache

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.schema import Role


def goldfish_drops(tokens: NumPyArray, roles: NumPyArray, segments: NumPyArray, *, k: int, h: int) -> NumPyArray:
    """bool [n, L]: labels to mask, one in `k` of those that follow `h` text tokens of their own segment.

    A label is masked where a hash of the `h` tokens before it is 0 modulo `k`. The hash is the upper half of a dot
    product with fixed odd 64-bit numbers, modulo 2^64. (The paper's code multiplies ids: one id 0 makes the hash 0.)

    Args:
        tokens: uint16 or uint32 [n, L + 1].
        roles: uint8 [n, L + 1].
        segments: int32 [n, L + 1].
        k: one label in so many is masked.
        h: tokens that the hash is computed from.
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
    """uint64 [count], odd; a larger count starts with the same numbers."""
    return np.random.default_rng(2406_10209).integers(0, 2**63, count, dtype=np.uint64) * 2 + 1
