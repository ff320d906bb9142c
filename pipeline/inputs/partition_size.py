"""`partition_bytes = "auto"`: a size of partitions from the size of the input and the number of workers.

It is the largest power of two, from 4 to 256 MiB, that gives each worker four partitions. Where that would be more than
20,000 partitions, it is the smallest power of two that gives no more. Powers of two, so that a file that is added to
the input seldom changes it. The size of the input is that of its files: compressed ones have more partitions.

    28 GB, 8 workers:      28e9 / (8 * 4) = 875 MB     -> 256 MiB, about 105 partitions
    1 GB, 64 workers:      1e9 / (64 * 4) = 3.9 MB     -> 4 MiB, about 240 partitions
    44 TB, 1000 workers:   256 MiB would be 164,000; 44e12 / 20,000 = 2.2 GB -> 4 GiB, about 10,200 partitions

The machine is no part of it: all machines that work on a run cut its input alike.
"""

from __future__ import annotations

_SMALLEST, _LARGEST = 4 << 20, 256 << 20
_PARTITIONS_PER_WORKER = 4
_MOST_PARTITIONS = 20_000
ASSUMED_WORKERS = 64
"""The number of workers where the recipe has none."""


def automatic_bytes(total_bytes: int, *, workers: int) -> int:
    """Return the size of partitions for an input of `total_bytes`."""
    size = _SMALLEST
    while size < _LARGEST and size * 2 * workers * _PARTITIONS_PER_WORKER <= total_bytes:
        size *= 2
    while size * _MOST_PARTITIONS < total_bytes:
        size *= 2
    return size
