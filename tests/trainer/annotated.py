"""Annotations for the small runs of `tests.trainer.runs`, as the pipeline writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from colophon.shards.manifest import Manifest, OutputManifest, read_manifest
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from tests.recorded import record_of

NUM_DOCUMENTS = 60
"""Documents of a small run; half of them in each of two partitions."""


def annotate(
    output: Path, annotator: str = "quality", *, edges: list[float] | None = None, **columns: pa.Array | list[Any]
) -> None:
    """Add an annotator's columns, each of `NUM_DOCUMENTS` values over both partitions, to a small run."""
    manifest = read_manifest(output)
    table = pa.table(columns)
    assert table.num_rows == NUM_DOCUMENTS
    half = NUM_DOCUMENTS // 2
    directory = output / "annotations" / annotator
    directory.mkdir(parents=True, exist_ok=True)
    records = []
    for partition in (0, 1):
        path = directory / f"{partition}.parquet"
        pq.write_table(table.slice(partition * half, half), path)
        records.append(record_of(output, path, rows=half))
    settings = {"annotator": {"type": "fasttext", "edges": edges}}
    outputs = {**manifest.outputs, f"annotations/{annotator}": OutputManifest(settings=settings, records=records)}
    write_manifest(output, manifest.model_copy(update={"outputs": outputs}))


def write_manifest(output: Path, manifest: Manifest) -> None:
    """Replace the manifest of a run."""
    (output / "manifest.json").write_text(manifest.model_dump_json())


def text_tokens(dataset: PackedDataset) -> np.ndarray[Any, Any]:
    """int64 [num_rows, NUM_DOCUMENTS]: text tokens of each document in each row of a small run, token by token."""
    counts = np.zeros((len(dataset), NUM_DOCUMENTS), np.int64)
    rows = dataset.rows(np.arange(len(dataset)))
    for row in range(len(dataset)):
        partition = dataset.files.index(dataset.locate(row)[0])
        for role, document in zip(rows.roles[row], rows.documents[row], strict=True):
            if role == Role.TEXT:
                counts[row, partition * NUM_DOCUMENTS // 2 + int(document)] += 1
    return counts
