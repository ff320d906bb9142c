"""Calls of `colophon verify` in a finished project, and edits that only a part of the run notices."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colophon.pipeline.storage.commits import Store
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.state_files import with_checksum
from colophon.shards.manifest import Manifest
from colophon.shards.records import Record
from tests.pipeline.commit_records import edit_records
from tests.pipeline.project import Called, colophon, manifest

EDITED = "manifest.json: its checksum is wrong: it was edited or damaged, or an older version wrote it. "


def verify(*arguments: str) -> Called:
    return colophon("verify", "recipe.toml", "--executor", "inline", *arguments)


def findings(*arguments: str) -> list[str]:
    """The lines of a verification that found something, without the last, which counts them."""
    called = verify(*arguments)
    assert called.code == 1, called.err
    assert "Traceback" not in called.err
    *lines, last = called.err.splitlines()
    things = "1 finding" if len(lines) == 1 else f"{len(lines)} findings"
    assert last.startswith(f"colophon: {things} in ")
    return lines


def edit_report(path: Path, edit: Callable[[Any], object], *, is_noticed: bool = True) -> None:
    """Change a JSON file of the report; unless `is_noticed`, with a checksum that is right."""
    value = json.loads(path.read_text())
    edit(value)
    text = json.dumps(value, indent=1)
    path.write_text(text if is_noticed else with_checksum(text))


def record_of(output: str) -> Record:
    return manifest().outputs[output].records[1]


def edit_manifest(edit: Callable[[Any], object], *, is_noticed: bool = True) -> None:
    """Change `manifest.json`; unless `is_noticed`, the manifest with its tables as one value, with right checksums."""
    path = Path("out/manifest.json")
    value = json.loads(path.read_text() if is_noticed else manifest().model_dump_json())
    edit(value)
    if is_noticed:
        path.write_text(json.dumps(value))
    else:
        Store("out").write_manifest(Manifest.model_validate(value))


def record_as_it_is(record: Record, **changes: Any) -> None:
    """Write a record and a manifest that match the file as it is now, so that only its content is wrong."""
    path = Path("out", record.path)
    size_and_hash = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    changed = record.model_copy(update={**size_and_hash, **changes})
    names = (record.output, record.partition)
    edit_records(lambda r: (r["output"], r["partition"]) == names and r.update(changed.model_dump(mode="json")))

    def replace(value: Any) -> None:
        records = value["outputs"][record.output]["records"]
        number = next(i for i, entry in enumerate(records) if entry["partition"] == record.partition)
        records[number] = changed.model_dump(mode="json")

    edit_manifest(replace, is_noticed=False)
