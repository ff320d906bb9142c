"""`colophon status`: every partition of every output is in one state; the command starts nothing."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from colophon.pipeline.runs.status import print_status, status_of
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.lock import locked
from tests.pipeline.commit_records import drop_records
from tests.pipeline.project import LAYOUTS, colophon, manifest, resolved_recipe, run, snapshot

OUTPUTS = ["annotations/url", "annotations/crawl", "annotations/edu_score", "tokens", *(f"packed/{n}" for n in LAYOUTS)]


def states(*settings: str) -> dict[str, Any]:
    """The JSON that `colophon status --json` prints."""
    called = colophon("status", "recipe.toml", "--json", *(word for s in settings for word in ("--set", s)))
    assert (called.code, called.err) == (0, "")
    value: dict[str, Any] = json.loads(called.out)
    for output in value["outputs"].values():
        assert sum(output.values()) == value["partitions"]
    return value


def counted(found: dict[str, Any], state: str) -> dict[str, int]:
    return {output: counts[state] for output, counts in found["outputs"].items() if counts[state]}


def test_before_the_first_run_everything_is_missing_and_nothing_is_written(project: Path) -> None:
    found = states()
    assert list(found["outputs"]) == OUTPUTS
    assert counted(found, "missing") == dict.fromkeys(OUTPUTS, found["partitions"])
    assert found["running"] is None
    assert not Path("out").exists()


def test_after_a_run_everything_is_done(finished: Path) -> None:
    before = snapshot()
    found = states()
    assert counted(found, "done") == dict.fromkeys(OUTPUTS, len(manifest().partitions))
    assert found["quarantine"] == []
    assert snapshot() == before


def test_a_change_makes_its_outputs_stale(finished: Path) -> None:
    partitions = len(manifest().partitions)
    assert counted(states("layouts.prepend-url.dropout=0.5"), "stale") == {"packed/prepend-url": partitions}
    of_crawl = {"annotations/crawl": partitions, "packed/append-quality": partitions}
    assert counted(states("input.columns.dump=language"), "stale") == of_crawl


def test_an_edited_input_makes_its_partitions_stale(finished: Path) -> None:
    path = Path("data/part-1.parquet")
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    of_file = sum(partition.source == str(path) for partition in manifest().partitions)
    assert counted(states(), "stale") == dict.fromkeys(OUTPUTS, of_file)


@pytest.mark.parametrize(("text", "message"), [(None, "is missing"), ("{", "damaged: "), ("{}", "differs from")])
def test_settings_that_are_not_those_of_the_manifest_are_named(finished: Path, text: str | None, message: str) -> None:
    path = Path("out/records/tokens/.settings.json")
    path.unlink()
    if text is not None:
        path.write_text(text)
    (warning,) = states()["warnings"]
    assert warning.startswith(f"{path}: {message}")
    assert warning in colophon("status", "recipe.toml").out


def test_a_deleted_file_is_missing_until_the_next_run(finished: Path) -> None:
    record = manifest().outputs["tokens"].records[0]
    Path("out", record.path).unlink()
    assert counted(states(), "stale") == {"tokens": 1}
    drop_records("tokens", record.partition)
    assert counted(states(), "missing") == {"tokens": 1}


def test_a_cut_file_is_found_by_the_run_and_not_by_status(finished: Path) -> None:
    partitions = len(manifest().partitions)
    path = Path("out", manifest().outputs["tokens"].records[0].path)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert counted(states(), "done") == dict.fromkeys(OUTPUTS, partitions)
    assert run().code == 0
    assert path.read_bytes() == content


def test_running_and_left_behind(finished: Path) -> None:
    """A temporary file counts as running while a run holds the lock; without one a dead process left it."""
    record = manifest().outputs["packed/plain"].records[0]
    drop_records("packed/plain", record.partition)
    Path("out/packed/plain", f".{record.partition}.0123456789ab.arrow.tmp").touch()
    assert counted(states(), "missing") == {"packed/plain": 1}
    with locked(Store("out"), log=print):
        found = states()
        assert counted(found, "running") == {"packed/plain": 1}
        assert set(found["running"]) == {"host", "pid", "since"}
        file = io.StringIO()
        print_status(status_of(resolved_recipe()), console=Console(file=file, width=120))
        assert file.getvalue().startswith("running: process ")
    assert run().code == 0
    assert not list(Path("out").rglob("*.tmp"))
    assert counted(states(), "done") == dict.fromkeys(OUTPUTS, found["partitions"])


def test_quarantined_partitions_and_files(project: Path) -> None:
    Path("data/broken.parquet").write_bytes(b"PAR1 and no more")
    assert run().code == 3
    found = states()
    assert [entry["source"] for entry in found["quarantine"]] == ["data/broken.parquet"]
    called = colophon("status", "recipe.toml")
    assert called.code == 0
    assert "quarantined: data/broken.parquet: " in called.out
    assert "tokens" in called.out


@pytest.mark.parametrize("content", ["{}\n", "not JSON\n"])
def test_a_quarantine_file_of_another_version_is_ignored(finished: Path, content: str) -> None:
    Path("out/quarantine.jsonl").write_text(content)
    assert states()["quarantine"] == []
