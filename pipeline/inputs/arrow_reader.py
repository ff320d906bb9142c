"""Arrow IPC files as rows, read so that a damaged file raises.

datatrove's reader trusts the offsets in a file: one flipped bit ended the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.partitions import Partition

_MAGIC_BYTES = 8
"""`ARROW1` with padding, before the part of the file that has the stream format."""


def arrow_rows(partition: Partition) -> Iterator[dict[str, Any]]:
    """The rows of a file, as dicts of all columns.

    The batches are read in file order and counted against the footer: a flipped bit there made it list none of them.
    """
    # pa.OSFile rather than a Python file: when a damaged message claims 2^60 bytes, Python would try to allocate them.
    with fsspec.open(partition.url, "rb") if "://" in partition.url else pa.OSFile(partition.url) as handle:
        expected = pa.ipc.open_file(handle).num_record_batches
        handle.seek(_MAGIC_BYTES)
        num_batches = 0
        for batch in pa.ipc.open_stream(handle):
            num_batches += 1
            batch.validate(full=True)
            yield from batch.to_pylist()
    if num_batches != expected:
        raise InputError(f"{num_batches} record batches read, the footer lists {expected}")
