"""CSV and WARC files as rows, through datatrove's readers."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from colophon.pipeline.errors import InputError, one_line
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.retry import is_transient


def datatrove_rows(partition: Partition) -> Iterator[dict[str, Any]]:
    """The rows of a file, as dicts of all columns; rows without text are kept, which datatrove would skip."""
    from datatrove.pipeline.readers import CSVReader, WarcReader

    reader_class: Any = {"csv": CSVReader, "warc": WarcReader}[partition.format]
    csv.field_size_limit(sys.maxsize)  # the default rejects a text of more than 128 KiB

    def keep_all(_: Any, data: dict[str, Any], path: str, id_in_file: int | str) -> dict[str, Any]:
        return {"text": "kept", "id": str(id_in_file), "metadata": {"row": dict(data)}}

    folder, _, name = partition.url.rpartition("/")
    reader = reader_class(folder, glob_pattern=PurePosixPath(name).name, adapter=keep_all)
    documents = iter(reader.read_file(name))
    while True:
        try:
            document = next(documents, None)
        except Exception as error:  # each format's parser has its own errors, all of them about the file
            if is_transient(error):
                raise
            raise InputError(f"{type(error).__name__}: {one_line(error)}") from error
        if document is None:
            return
        row = document.metadata["row"]
        # A damaged quote joins rows or cuts them; csv then fills in None as a key or as values.
        if partition.format == "csv" and (None in row or None in row.values()):
            columns = ", ".join(str(name) for name in row if name is not None)
            raise InputError(f"row {document.id}: not as many fields as columns; columns: {columns}")
        yield row
