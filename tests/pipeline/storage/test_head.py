"""Conditional writes on object stores: one of several runs gets the lock, and a run that has lost it adds nothing."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import fsspec
import pytest

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage import conditional_writes
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.files import RemoteFiles
from colophon.pipeline.storage.head import Head, Heads, newest_number, read_head
from colophon.pipeline.storage.lock import locked
from colophon.pipeline.storage.owner import Owner
from colophon.pipeline.storage.pass_record import RECORDS
from colophon.pipeline.storage.shard import LOCK_NAME, Shard
from colophon.shards.common.errors import ColophonError
from colophon.shards.manifest import MANIFEST_NAME, TABLES, Manifest
from colophon.shards.records import PartitionInfo
from colophon.shards.stores import retry
from tests.pipeline.servers import Fault, Proxy, proxy_before, s3_environment, s3_server
from tests.pipeline.storage.test_ledger import OUTPUTS, publish, state
from tests.pipeline.storage.test_lock import other_owner, write_lock

BEAT = 0.1
RUNS = 5


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A proxy before an S3 with an empty bucket."""
    with s3_server() as server, proxy_before(server) as proxy, s3_environment(proxy.address):
        fsspec.filesystem("s3").mkdir("bucket")
        yield proxy


@pytest.fixture
def out(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty output on S3."""
    proxy.reset()
    yield s3_root(request)
    proxy.reset()


def s3_root(request: pytest.FixtureRequest) -> str:
    return "s3://bucket/" + re.sub(r"\W+", "-", request.node.name)


def ignore(line: str) -> None:
    """Log nothing."""


def manifest_of(name: str) -> Manifest:
    return Manifest(colophon_version="0", recipe={"name": name}, partitions=[], outputs={})


def head_of(root: str) -> Head | None:
    storage = Store(root).files
    return read_head(storage, newest_number(storage.names(RECORDS)))


def start_together(root: str, number: int) -> tuple[list[Owner], list[str]]:
    """So many runs that ask for the lock of an output in one instant: those that get it, and the errors of others.

    A run that gets it holds it until all others have been refused.
    """
    together, refused = threading.Barrier(number), threading.Semaphore(0)
    owners, errors = [], []

    def run() -> None:
        together.wait(60)
        try:
            with locked(Store(root), log=ignore, beat_seconds=1.0) as owner:
                owners.append(owner)
                for _ in range(number - 1):
                    assert refused.acquire(timeout=60)
        except ColophonError as error:
            errors.append(str(error))
            refused.release()

    with ThreadPoolExecutor(number) as pool:
        for future in [pool.submit(run) for _ in range(number)]:
            future.result(120)
    return owners, errors


@pytest.mark.parametrize("dead", [False, True], ids=["free", "of a dead run"])
def test_of_runs_that_start_in_one_instant_exactly_one_gets_the_lock(out: str, dead: bool) -> None:
    if dead:
        with locked(Store(out), log=ignore):
            pass
        write_lock(Store(out), other_owner())
    owners, errors = start_together(out, RUNS)
    assert len(owners) == 1
    assert len(errors) == RUNS - 1
    assert all(error.startswith(f"{out}: another run (process ") and " is using it. " in error for error in errors)
    head = head_of(out)
    assert head is not None
    assert head.holder(LOCK_NAME) == owners[0].token
    assert Store(out).files.read_text(LOCK_NAME) is None


def test_a_store_that_ignores_conditions_has_no_head(out: str, proxy: Proxy) -> None:
    """All records count there, and the lock is checked before each, as on a disk without locks."""
    proxy.ignores_conditions = True
    with locked(Store(out), log=ignore) as owner:
        store = Store(out, run=owner.token)
        publish(store, "a", "1")
        assert head_of(out) is None
        assert store.ledger().compact() == 0
        assert state(store) == dict.fromkeys([(output, "a") for output in OUTPUTS], "1")
        store.write_manifest(manifest_of("mine"))
    assert Store(out).manifest() is not None


def test_a_lost_answer_of_a_conditional_write_changes_nothing(
    out: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library sends the request again, and the store refuses what it has already done."""
    monkeypatch.setattr(retry, "PAUSES_SECONDS", (0.01, 0.01))

    def writes(method: str, path: str) -> bool:
        return method == "PUT" and any(name in path for name in (".lock", "/head-", "manifest.json"))

    fault = Fault("lost", writes, every=2)
    proxy.faults = [fault]
    with locked(Store(out), log=pytest.fail) as owner:
        store = Store(out, run=owner.token)
        store.write_manifest(manifest_of("first"))
        store.write_manifest(manifest_of("second"))
        publish(store, "a", "1")
        store.ledger().compact()
    assert fault.struck >= 3
    assert state(Store(out)) == dict.fromkeys([(output, "a") for output in OUTPUTS], "1")
    found = Store(out).manifest()
    assert found is not None
    assert found.recipe == {"name": "second"}


class Runs:
    """A run that loses its lock at a moment of the test's choice, and the run that takes it over."""

    def __init__(self, root: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stack, self.root, self.patch = stack, root, monkeypatch
        self.old = Store(root, run=stack.enter_context(locked(Store(root), log=ignore, beat_seconds=3600)).token)
        self.new = self.old

    def take_over(self) -> Store:
        """Start the next run, which moves the records that it finds."""
        owner = self.stack.enter_context(locked(Store(self.root), log=ignore, beat_seconds=BEAT))
        self.new = Store(self.root, run=owner.token)
        self.new.ledger().compact()
        return self.new

    def after_the_next_check(self, happens: Callable[[], object]) -> None:
        """Let something happen after the old run has found that it still has its lock, and before it continues."""
        check, waiting = Store._check_lock, [happens]

        def checked(store: Store) -> None:
            check(store)
            if store == self.old and waiting:
                waiting.pop()()

        self.patch.setattr(Store, "_check_lock", checked)


@pytest.fixture(params=["S3", "memory"])
def runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """A run with a lock, on S3 or on another store that creates an object once."""
    root = "memory://head-test/out"
    if request.param == "S3":
        proxy = request.getfixturevalue("proxy")
        proxy.reset()
        root = s3_root(request)
    with ExitStack() as stack:
        yield Runs(root, stack, monkeypatch)
    filesystem, path = fsspec.url_to_fs(root)
    filesystem.rm(path, recursive=True)


def test_a_record_written_after_the_lock_was_lost_does_not_count(runs: Runs) -> None:
    publish(runs.old, "a", "old")
    runs.after_the_next_check(lambda: publish(runs.take_over(), "b", "new"))
    publish(runs.old, "b", "late")
    after = dict.fromkeys([(o, "a") for o in OUTPUTS], "old") | dict.fromkeys([(o, "b") for o in OUTPUTS], "new")
    assert state(runs.new) == after
    runs.new.ledger().compact()
    assert state(runs.new) == after
    assert not any(f"pending/{runs.old.run}/" in name for name in runs.new.files.sizes(RECORDS)), "deleted"


@pytest.mark.parametrize("runs", ["memory"], indirect=True)
def test_records_of_a_run_that_was_killed_are_taken_over(runs: Runs) -> None:
    publish(runs.old, "a", "old")
    publish(runs.old, "b", "old")
    owner = runs.stack.enter_context(locked(Store(runs.root), log=ignore, beat_seconds=BEAT))
    new = Store(runs.root, run=owner.token)
    before = state(new)
    assert before == {(output, partition): "old" for output in OUTPUTS for partition in "ab"}
    new.ledger().compact()
    assert state(new) == before


def test_a_segment_written_after_the_lock_was_lost_does_not_count(runs: Runs) -> None:
    records = publish(runs.old, "a", "old")
    runs.after_the_next_check(lambda: publish(runs.take_over(), "a", "new"))
    ledger = runs.old.ledger()
    ledger.report(records)
    with pytest.raises(StoreError, match="another run has taken over the lock; this run publishes nothing more"):
        ledger.compact()
    expected = dict.fromkeys([(output, "a") for output in OUTPUTS], "new")
    assert state(runs.new) == expected
    runs.new.ledger().compact()
    assert state(runs.new) == expected
    head = head_of(runs.root)
    assert head is not None
    segments = [name for name in runs.new.files.names(RECORDS) if name.startswith("segment-")]
    assert sorted(head.segments) == sorted(segments), "that of the old run is deleted"


@pytest.mark.parametrize("runs", ["S3"], indirect=True)
def test_a_manifest_written_after_the_lock_was_lost_does_not_replace_the_next_ones(runs: Runs) -> None:
    runs.after_the_next_check(lambda: runs.take_over().write_manifest(manifest_of("new")))
    with pytest.raises(StoreError, match="another run has taken over the lock"):
        runs.old.write_manifest(manifest_of("late"))
    found = runs.new.manifest()
    assert found is not None
    assert found.recipe == {"name": "new"}


@pytest.mark.parametrize("runs", ["S3"], indirect=True)
def test_a_run_writes_its_manifest_over_a_late_one(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old run's appears while the next one writes: it is replaced, and the next run does not end."""
    new = runs.take_over()
    replace, late = RemoteFiles.replace_version, [manifest_of("late")]

    def raced(storage: RemoteFiles, path: str, text: str, *, version: str | None) -> bool:
        if path == MANIFEST_NAME and late:
            storage.replace_text(path, late.pop().model_dump_json())
        return replace(storage, path, text, version=version)

    monkeypatch.setattr(RemoteFiles, "replace_version", raced)
    new.write_manifest(manifest_of("new"))
    found = new.manifest()
    assert found is not None
    assert found.recipe == {"name": "new"}


def with_partition(name: str) -> Manifest:
    return manifest_of(name).model_copy(update={"partitions": [PartitionInfo(name=name, source="", rows=1, bytes=1)]})


@pytest.mark.parametrize("runs", ["S3"], indirect=True)
def test_a_run_that_was_paused_deletes_no_table_of_the_next_one(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one writes a table again that the paused run is about to delete."""
    runs.old.write_manifest(with_partition("a"))
    remove, waiting = RemoteFiles.remove_all, ["next"]

    def paused(storage: RemoteFiles, directory: str, names: Sequence[str]) -> None:
        if directory == TABLES and waiting:
            waiting.clear()
            runs.take_over().write_manifest(with_partition("a"))
        remove(storage, directory, names)

    monkeypatch.setattr(RemoteFiles, "remove_all", paused)
    runs.old.write_manifest(with_partition("b"))
    assert not waiting
    assert runs.new.manifest() == runs.new.write_manifest(with_partition("a"))
    assert len(runs.new.files.sizes(TABLES)) == 1


@pytest.mark.parametrize("runs", ["memory"], indirect=True)
def test_an_unchanged_table_keeps_its_name(runs: Runs) -> None:
    runs.old.write_manifest(with_partition("a"))
    (name,) = runs.old.files.sizes(TABLES)
    assert re.fullmatch(rf"partitions-{runs.old.run}-[0-9a-f]{{32}}\.parquet", name)
    runs.take_over().write_manifest(with_partition("a"))
    assert [*runs.new.files.sizes(TABLES)] == [name]


@pytest.mark.parametrize("runs", ["S3"], indirect=True)
def test_a_late_beat_does_not_take_the_lock_back(runs: Runs) -> None:
    version = runs.old.files.version(LOCK_NAME)
    runs.take_over()
    assert not runs.old.files.replace_version(LOCK_NAME, "late", version=version)
    assert runs.new.run in (runs.new.files.read_text(LOCK_NAME) or "")


@pytest.mark.parametrize("runs", ["memory"], indirect=True)
def test_shards_change_one_head(runs: Runs) -> None:
    """Each adds its segments to those of the others, and a whole run that shards replace adds none."""
    publish(runs.old, "w", "whole")
    runs.old.files.remove(LOCK_NAME)  # the whole run has been killed
    with ExitStack() as stack:
        shards = []
        for number in (1, 2):
            shard = Shard(number, 2)
            owner = stack.enter_context(locked(Store(runs.root, shard=shard), log=ignore, beat_seconds=BEAT))
            shards.append(Store(runs.root, run=owner.token, shard=shard))
        ledgers = [store.ledger(share={f"p{number}"}) for number, store in enumerate(shards)]
        for number, store in enumerate(shards):
            publish(store, f"p{number}", "shard")
        for ledger in ledgers:
            ledger.compact()
        with pytest.raises(StoreError, match="another run has taken over the lock"):
            Heads(runs.old.files, LOCK_NAME, runs.old.run).change(lambda head: head.replacing(["late"]))  # type: ignore[arg-type]
    found = {partition: fingerprint for (_, partition), fingerprint in state(runs.old).items()}
    assert found == {"w": "whole", "p0": "shard", "p1": "shard"}, "records of the whole run count until one moves them"


@pytest.mark.parametrize("runs", ["memory"], indirect=True)
def test_old_heads_are_deleted_and_a_process_that_slept_is_refused(runs: Runs) -> None:
    files = runs.old.files
    assert isinstance(files, RemoteFiles)
    first = newest_number(files.names(RECORDS))
    heads = Heads(files, LOCK_NAME, runs.old.run)
    for number in range(40):
        head = heads.change(lambda head, number=number: head.replacing([str(number)]))  # type: ignore[misc]
    assert head.segments == [*map(str, range(40))]
    kept = [name for name in files.names(RECORDS) if name.startswith("head-")]
    assert 8 <= len(kept) <= 16
    assert not heads._create(first + 1, Head()), "this number is free, and does not count"
    assert head_of(runs.root) == head


@pytest.mark.parametrize("refuses", [True, False])
def test_a_store_that_does_not_know_conditions_is_written_without(refuses: bool) -> None:
    """An S3 may answer 501; s3fs raises ENOSYS then."""
    written: list[dict[str, Any]] = []

    class Filesystem:
        def pipe_file(self, path: str, content: bytes, **options: Any) -> None:
            if options and refuses:
                raise OSError(38, "A header you provided implies functionality that is not implemented")
            written.append(options)

    assert conditional_writes.create(Filesystem(), "a", content=b"1")
    assert written == [{} if refuses else {"mode": "create"}]


def test_an_empty_object_and_one_that_is_missing(out: str) -> None:
    storage = Store(out).files
    storage.replace_text("empty", "")
    assert storage.read_text("empty") == ""
    assert storage.read_text("missing") is None
