"""The ledger: what segments and pending records say together, at any moment and after any crash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage import ledger as module
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.files import LocalFiles
from colophon.pipeline.storage.ledger import MAX_SEGMENTS, Ledger
from colophon.pipeline.storage.owner import Owner
from colophon.pipeline.storage.pass_record import pending_path
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.records import Record
from tests.pipeline.commit_records import committed_record

OUTPUTS = ("annotations/url", "tokens")


class Crash(BaseException):
    """The process dies here: only the test may catch it."""


def publish(store: Store, partition: str, content: str, *outputs: str, replaces: bool = False) -> tuple[Record, ...]:
    """Publish a file of each output with that content, which is its fingerprint too."""
    drafts = [store.draft(output=output, partition=partition, suffix=".x") for output in outputs or OUTPUTS]
    files = []
    for number, context in enumerate(drafts):
        draft = context.__enter__()
        draft.path.write_text(content + "." * number)
        files.append(draft.finish(check=lambda path: None, rows=1, fingerprint=content, counts={"rows": 1}))
    records = store.publish(files, replaces=replaces)
    for context in drafts:
        context.__exit__(None, None, None)
    return records


def state(store: Store) -> dict[tuple[str, str], str]:
    """The fingerprint of each sound record."""
    ledger = store.ledger()
    return {(o, r.partition): r.fingerprint for o in ledger.outputs for r in ledger.sound(o)}


def segments(root: Path) -> list[Path]:
    return sorted(root.glob("records/segment-*"))


def pending(root: Path) -> list[str]:
    return sorted(path.stem for path in root.glob("records/pending/*.json"))


@pytest.fixture(params=["disk", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "disk":
        yield Store(str(tmp_path))
        return
    yield Store("memory://ledger-test/out")
    fsspec.filesystem("memory").rm("/ledger-test", recursive=True)


def test_a_pass_over_a_partition_has_one_record(store: Store) -> None:
    records = publish(store, "a", "1")
    assert [record.output for record in records] == [*OUTPUTS]
    assert [*store.files.sizes("records")] == ["pending/a.json"]
    ledger = store.ledger()
    assert [ledger.sound(output).get("a") for output in OUTPUTS] == [*records]


def test_a_segment_says_what_its_records_said(store: Store) -> None:
    for partition in "abc":
        publish(store, partition, "1")
    before = [[*store.ledger().sound(output)] for output in OUTPUTS]
    ledger = store.ledger()
    ledger.compact()
    (name,) = store.files.sizes("records")
    assert name.startswith("segment-000001-")
    assert [[*store.ledger().sound(output)] for output in OUTPUTS] == before
    assert [[*ledger.sound(output)] for output in OUTPUTS] == before
    ledger.compact()
    assert [*store.files.sizes("records")] == [name], "nothing new, nothing written"


def test_later_records_override_earlier_ones(store: Store) -> None:
    publish(store, "a", "1")
    publish(store, "b", "1")
    store.ledger().compact()
    publish(store, "a", "2")
    expected = {(output, name): number for output in OUTPUTS for name, number in (("a", "2"), ("b", "1"))}
    assert state(store) == expected
    store.ledger().compact()
    publish(store, "a", "3", "tokens")
    assert state(store) == {**expected, ("tokens", "a"): "3"}
    store.ledger().compact()
    assert state(store) == {**expected, ("tokens", "a"): "3"}


def test_the_records_of_two_passes_before_a_segment(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    publish(store, "a", "1", "tokens")
    publish(store, "a", "1", "packed/plain")
    assert state(store) == {("tokens", "a"): "1", ("packed/plain", "a"): "1"}


def test_workers_results_become_a_segment_while_a_pass_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_PARTITIONS", 2)
    ledger = store.ledger()
    for partition in "abc":
        ledger.report(publish(store, partition, "1"))
    names = sorted(store.files.sizes("records"))
    assert names[0] == "pending/c.json"
    assert names[1].startswith("segment-000001-")
    assert state(store) == {(output, name): "1" for output in OUTPUTS for name in "abc"}


def test_a_record_that_is_not_visible_yet_is_left_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system shows a file late that a different machine wrote."""
    monkeypatch.setattr(module, "SEGMENT_PARTITIONS", 1)
    store = Store(str(tmp_path))
    ledger, records = store.ledger(), publish(store, "a", "1")
    path = tmp_path / pending_path("a")
    path.rename(tmp_path / "hidden")
    ledger.report(records)
    (tmp_path / "hidden").rename(path)
    assert pending(tmp_path) == ["a"]
    ledger.compact()
    assert state(store) == {(output, "a"): "1" for output in OUTPUTS}


def test_a_late_attempt_after_the_segment_leaves_the_file_committed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    publish(store, "a", "1")
    store.ledger().compact()
    publish(store, "a", "1")
    expected = {(output, "a"): "1" for output in OUTPUTS}
    assert state(store) == expected
    store.ledger().compact()
    assert state(store) == expected


@contextmanager
def crash_at(step: str) -> Iterator[None]:
    def reached(name: str, stage: str = "") -> None:
        if name == step:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        for place in ("ledger", "publication"):
            patch.setattr(f"colophon.pipeline.storage.{place}.reached", reached)
        yield


@pytest.mark.parametrize("step", ["before rename", "before record"])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_recipe_that_is_changed_back_does_not_trust_a_replaced_file(
    tmp_path: Path, step: str, is_deleted: bool
) -> None:
    """The record of the old file is in a segment, and the new file has the same size."""
    store = Store(str(tmp_path))
    old = publish(store, "a", "1")
    store.ledger().compact()
    if is_deleted:
        for record in old:
            (tmp_path / record.path).unlink()
    with pytest.raises(Crash), crash_at(step):
        publish(store, "a", "2", replaces=True)
    assert state(store) == {}
    store.ledger().compact()
    assert state(store) == {}
    publish(store, "a", "1")
    assert state(store) == {(output, "a"): "1" for output in OUTPUTS}


@pytest.mark.parametrize("step", ["before segment", "before removal"])
def test_a_crash_while_a_segment_is_written_changes_nothing(store: Store, step: str) -> None:
    publish(store, "a", "1")
    publish(store, "b", "1")
    store.ledger().compact()
    publish(store, "a", "2")
    before = state(store)
    with pytest.raises(Crash), crash_at(step):
        store.ledger().compact()
    assert state(store) == before
    store.ledger().compact()
    assert state(store) == before
    assert not [name for name in store.files.sizes("records") if name.startswith("pending/")]


def test_many_segments_are_merged_and_withdrawals_stay(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for number in range(MAX_SEGMENTS):
        publish(store, f"p{number}", "1", "tokens")
        store.ledger().compact()
    with pytest.raises(Crash), crash_at("before record"):
        publish(store, "p0", "2", "tokens")
    before = state(store)
    assert len(segments(tmp_path)) == MAX_SEGMENTS == len(before) + 1
    old = segments(tmp_path)
    with pytest.raises(Crash), crash_at_second("before removal"):
        store.ledger().compact()
    assert len(segments(tmp_path)) == MAX_SEGMENTS + 2
    assert state(store) == before
    for path in old[:0:-1]:  # an object store deletes in any order
        path.unlink()
    assert old[0].exists()
    assert ("tokens", "p0") not in state(store)
    store.ledger().compact()
    assert state(store) == before
    assert len(segments(tmp_path)) <= 4


@contextmanager
def crash_at_second(step: str) -> Iterator[None]:
    times = iter([None])

    def reached(name: str, stage: str = "") -> None:
        if name == step and next(times, Crash) is Crash:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("colophon.pipeline.storage.ledger.reached", reached)
        yield


def test_overridden_rows_do_not_pile_up(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for number in range(12):
        publish(store, "a", f"{number:02}")
        store.ledger().compact()
    assert len(segments(tmp_path)) <= 3
    assert state(store) == {(output, "a"): "11" for output in OUTPUTS}


@pytest.mark.parametrize("content", [b"", b"{", b'{"partition": "b"}', b"\0" * 300])
def test_a_damaged_pending_record_withdraws_the_older_ones(tmp_path: Path, content: bytes) -> None:
    """A loss of power may leave it: it is the record of files that have replaced those of the segment."""
    store = Store(str(tmp_path))
    publish(store, "a", "1")
    publish(store, "b", "1")
    store.ledger().compact()
    (tmp_path / pending_path("a")).write_bytes(content)
    assert state(store) == {(output, "b"): "1" for output in OUTPUTS}
    store.ledger().compact()
    assert state(store) == {(output, "b"): "1" for output in OUTPUTS}
    assert pending(tmp_path) == []


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, emptied, one_bit])
def test_a_damaged_segment_is_one_line_with_its_remedy(tmp_path: Path, damage: Any) -> None:
    store = Store(str(tmp_path))
    publish(store, "a", "1")
    store.ledger().compact()
    (segment,) = segments(tmp_path)
    damage(segment)
    message = rf"^{segment}: damaged: its bytes differ from those that were written \(sha256\)\. Delete it; `colophon"
    with pytest.raises(DamagedFileError, match=message):
        store.ledger()
    segment.unlink()
    assert state(store) == {}


def test_a_run_that_has_lost_its_lock_moves_no_records(store: Store) -> None:
    publish(store, "a", "1")
    ledger = replace(store, run="mine").ledger()
    store.files.replace_text(".lock", Owner.this_process().model_dump_json())
    with pytest.raises(StoreError, match="another run has taken over the lock"):
        ledger.compact()
    assert [*store.files.sizes("records")] == ["pending/a.json"]


def test_records_that_a_run_moves_while_they_are_read_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as by `colophon status`, which holds no lock."""
    store = Store(str(tmp_path))
    publish(store, "a", "1")
    mover, sizes, listings = store.ledger(), LocalFiles.sizes, iter([True])

    def moved_after_listing(files: LocalFiles, directory: str) -> dict[str, int]:
        listed = sizes(files, directory)
        if next(listings, False):
            mover.compact()
        return listed

    monkeypatch.setattr(LocalFiles, "sizes", moved_after_listing)
    assert len(store.ledger().records("tokens")) == 1


def test_a_file_of_a_different_size_is_not_sound(store: Store) -> None:
    (record, _) = publish(store, "a", "1")
    store.files.replace_text(record.path, "longer than it was")
    assert state(store) == {("tokens", "a"): "1"}
    assert committed_record(store.root, record.output, "a") is None
    assert store.ledger().records(record.output).get("a") == record


def test_the_lock_of_the_records_is_held_while_they_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    publish(store, "a", "1")
    seen = []

    def reached(step: str, stage: str = "") -> None:
        with (
            pytest.raises(Exception, match="locked by"),
            LocalFiles(store.root).exclusive("records/pending", seconds=0),
        ):
            pytest.fail("not locked")
        seen.append(step)

    monkeypatch.setattr(module, "reached", reached)
    Ledger(store.files).compact()
    assert seen == ["before segment", "before removal"]
