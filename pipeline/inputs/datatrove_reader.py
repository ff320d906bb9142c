"""WARC files as rows, through datatrove's reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from colophon.pipeline.inputs.partitions import Partition


def warc_rows(partition: Partition) -> Iterator[dict[str, Any]]:
    """The rows of a file, as dicts of all columns; rows without text are kept, which datatrove would skip."""
    from datatrove.pipeline.readers import WarcReader

    def keep_all(_: Any, data: dict[str, Any], path: str, id_in_file: int | str) -> dict[str, Any]:
        return {"text": "kept", "id": str(id_in_file), "metadata": {"row": dict(data)}}

    folder, _, name = partition.url.rpartition("/")
    reader = WarcReader(folder, glob_pattern=PurePosixPath(name).name, adapter=keep_all)
    for document in reader.read_file(name):
        yield document.metadata["row"]
