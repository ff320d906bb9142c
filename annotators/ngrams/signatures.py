"""Signatures of texts: smallest hashes of their n-grams (MinHash), and the numbers by which similar texts meet."""

from __future__ import annotations

from functools import cache

import numpy as np

from colophon.annotators.ngrams.compiled import combine_bands, fill_smallest
from colophon.annotators.ngrams.texts import Ngrams
from colophon.shards.common.arrays import NumPyArray

_MERSENNE = (1 << 61) - 1


@cache
def hash_functions(number: int, *, seed: int) -> tuple[NumPyArray, NumPyArray]:
    """The multipliers and addends of hash functions, uint64 [number] each: datatrove's of the same seed."""
    random = np.random.RandomState(seed)
    return (
        random.randint(1, _MERSENNE, dtype=np.uint64, size=number),
        random.randint(0, _MERSENNE, dtype=np.uint64, size=number),
    )


def smallest_hashes(ngrams: Ngrams, functions: tuple[NumPyArray, NumPyArray]) -> NumPyArray:
    """uint64 [texts, functions]: the smallest value of each hash function over the n-grams of each text.

    2^64 - 1 for a text without n-grams. Cost: about 1 ns for each n-gram and function.
    """
    hashes = np.empty((len(ngrams.num_words), len(functions[0])), np.uint64)
    fill_smallest(ngrams.keys, ngrams.firsts, *functions, hashes)
    return hashes


def band_keys(hashes: NumPyArray, salts: NumPyArray, *, rows: int) -> NumPyArray:
    """uint64 [texts, bands]: for each `rows` hashes one number, which depends on the band and on the text's salt.

    Args:
        hashes: uint64 [texts, bands * rows].
        salts: uint64 [texts].
        rows: hashes of a band.
    """
    keys = np.empty((len(hashes), hashes.shape[1] // rows), np.uint64)
    combine_bands(hashes, salts, keys)
    return keys
