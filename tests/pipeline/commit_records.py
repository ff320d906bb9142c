"""The commit records of a run's output, read and edited as they are stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.pass_record import RECORDS, older_path
from colophon.pipeline.storage.segments import SEGMENT_SCHEMA, segment_names, write_segment
from colophon.shards.common.state_files import with_checksum
from colophon.shards.manifest import MANIFEST_NAME, TABLES, read_manifest
from colophon.shards.records import Record

_JSON = ("counts", "content", "problems")


def committed_record(root: str, output: str, partition: str) -> Record | None:
    """The commit record of a file that exists in full size."""
    return Store(root).ledger().sound(output).get(partition)


def committed_records(root: str = "out") -> list[Record]:
    """The commit records of all files that exist in full size."""
    ledger = Store(root).ledger()
    return [record for output in ledger.outputs for record in ledger.sound(output)]


def edit_records(edit: Callable[[Any], object], *, root: str = "out") -> None:
    """Rewrite all records as one segment. `edit` gets each as JSON and changes it; `clear` drops it."""
    files, ledger = Store(root).files, Store(root).ledger()
    values = [record.model_dump(mode="json") for output in ledger.outputs for record in ledger.records(output)]
    for value in values:
        edit(value)
    for name in segment_names(files.sizes(RECORDS)):
        Path(root, RECORDS, name).unlink()
    rows = [{**value, **{key: json.dumps(value[key]) for key in _JSON if value[key]}} for value in values if value]
    rows = [{key: row[key] or None for key in SEGMENT_SCHEMA.names} for row in rows]
    write_segment(files, pa.Table.from_pylist(rows, SEGMENT_SCHEMA), after=[])


def drop_records(output: str, *partitions: str, root: str = "out") -> None:
    """Delete the records of some partitions of an output, or all of its records."""
    edit_records(
        lambda r: r["output"] == output and (not partitions or r["partition"] in partitions) and r.clear(), root=root
    )


def as_an_older_version(root: str = "out") -> int:
    """Give a finished output the form of the version before segments; the number of its records.

    A record is a file of its own, the manifest has no tables, and the summary does not have the newest key.
    """
    records = committed_records(root)
    for name in segment_names(Store(root).files.sizes(RECORDS)):
        Path(root, RECORDS, name).unlink()
    for record in records:
        Path(root, older_path(record.output, record.partition)).write_text(record.model_dump_json(indent=1))
    value = read_manifest(Path(root)).model_dump(mode="json")
    shutil.rmtree(Path(root, TABLES))
    Path(root, MANIFEST_NAME).write_text(with_checksum(json.dumps(value, indent=1)))
    summary = Path(root, "report/summary.json")
    counts = json.loads(summary.read_text())
    del counts["null_in_sources"]
    summary.write_text(with_checksum(json.dumps(counts, indent=1)))
    return len(records)
