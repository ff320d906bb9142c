"""The lock of an output: who holds it and who may take it over, on a disk and on an object store."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage.commits import LOCK_NAME, Draft, Store
from colophon.pipeline.storage.lock import locked, owners_of
from colophon.pipeline.storage.owner import Owner
from colophon.pipeline.storage.publication import Finished
from colophon.shards.common.errors import ColophonError
from colophon.shards.manifest import Manifest
from colophon.shards.records import Record
from tests.pipeline.commit_records import committed_record, committed_records
from tests.pipeline.project import hashes, manifest, run

HOLD = """
import sys
from colophon.pipeline.storage.lock import locked
from colophon.pipeline.storage.commits import Store
with locked(Store(sys.argv[1]), log=print):
    print("held", flush=True)
    sys.stdin.read()
"""
BEAT = 0.1
DRAFT = {"output": "tokens", "partition": "p", "suffix": ".parquet"}


def held_elsewhere(root: str) -> subprocess.Popen[str]:
    """A process that holds the lock of `root` until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def holder(project: Path) -> Iterator[subprocess.Popen[str]]:
    process = held_elsewhere("out")
    yield process
    process.kill()
    process.communicate()


def test_the_second_run_names_the_first(holder: subprocess.Popen[str]) -> None:
    called = run()
    assert called.code == 1
    assert called.line.startswith(f"out: another run (process {holder.pid} on ")
    assert "since 0:00:" in called.line
    assert called.line.endswith(" is using it. Wait until it ends, or set another output.path")
    assert {path.name for path in Path("out").iterdir()} == {LOCK_NAME}
    owner = owners_of(Store("out")).get(None)
    assert owner is not None
    assert owner.pid == holder.pid
    assert run("--set", "output.path=other").code == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, None])
def test_a_lock_ends_with_its_owner_however_it_ends(holder: subprocess.Popen[str], end: signal.Signals | None) -> None:
    if end is not None:
        holder.send_signal(end)
    holder.communicate("")
    assert owners_of(Store("out")).get(None) is None
    assert run().code == 0
    assert not Path("out", LOCK_NAME).exists()


def test_a_run_leaves_no_owner_and_no_directory_that_it_did_not_need(finished: Path) -> None:
    assert owners_of(Store("out")).get(None) is None
    with locked(Store("out"), log=print), locked(Store("deep/new"), log=print):
        assert Path("deep/new", LOCK_NAME).exists()
    assert not Path("deep/new").exists()
    assert Path("out").is_dir()


def test_a_full_disk_is_named_with_the_lock(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("colophon.pipeline.storage.lock.os.write", full)
    called = run()
    assert (called.code, called.line) == (1, f"{Path('out/.lock')}: cannot be written: No space left on device")
    assert not Path("out").exists()


def refuse_flock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let flock fail as on a file system without locks; none can be mounted in a test."""

    def refused(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.fixture(params=["object store", "disk without locks"])
def leased(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose lock is a lease."""
    if request.param == "disk without locks":
        refuse_flock(monkeypatch, errno.ENOLCK)
        (tmp_path / "out").mkdir()
        yield Store(str(tmp_path / "out"))
        return
    root = "memory://lock-test/out"
    yield Store(root)
    filesystem, path = fsspec.url_to_fs(root)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def ignore_no_locks(log: Callable[[str], None]) -> Callable[[str], None]:
    """`log` without the line about a disk without locks."""
    return lambda line: None if "has no locks" in line else log(line)


def committed(store: Store, *, content: str) -> Record:
    """Commit a file with that content, which is its fingerprint too."""
    with store.draft(**DRAFT) as draft:
        draft.path.write_text(content)
        (record,) = store.publish([finished(draft, fingerprint=content)])
        return record


def finished(draft: Draft, *, fingerprint: str) -> Finished:
    return draft.finish(check=lambda path: None, rows=1, fingerprint=fingerprint, counts={})


def write_lock(store: Store, owner: Owner) -> None:
    store.files.replace_text(LOCK_NAME, owner.model_dump_json())


def other_owner(**change: object) -> Owner:
    return Owner(host="elsewhere", pid=1, since=time.time() - 3661, token="theirs").model_copy(update=change)


def test_a_lease_is_held_and_released(leased: Store) -> None:
    with locked(leased, log=ignore_no_locks(pytest.fail), beat_seconds=BEAT):
        owner = owners_of(leased).get(None)
        assert owner is not None
        assert owner.pid == os.getpid()
        refused = pytest.raises(ColophonError, match=rf"another run \(process {os.getpid()} on .*is using it")
        with refused, locked(leased, log=lambda line: None, beat_seconds=BEAT):
            pytest.fail("both hold it")
    assert leased.files.read_text(LOCK_NAME) is None


def test_a_silent_lease_of_another_machine_is_taken_over(leased: Store) -> None:
    write_lock(leased, other_owner())
    lines: list[str] = []
    with locked(leased, log=ignore_no_locks(lines.append), beat_seconds=BEAT):
        owner = owners_of(leased).get(None)
        assert owner is not None
        assert owner.token != "theirs"
    waiting, taking_over = lines
    name = "process 1 on elsewhere, since 1:01:01"
    assert waiting == f"{leased.root}: locked by {name}; waiting to see whether it is alive"
    assert taking_over == f"{leased.root}: taking over the lock of {name}, which is dead"


def test_a_lease_that_beats_is_not_taken_over(leased: Store) -> None:
    write_lock(leased, other_owner())
    ended, beats = threading.Event(), iter(range(1, 10**6))

    def beat() -> None:
        while not ended.wait(BEAT):
            write_lock(leased, other_owner(beat=next(beats)))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(ColophonError, match="process 1 on elsewhere"), locked(leased, log=print, beat_seconds=BEAT):
            pytest.fail("taken from an owner that is alive")
    finally:
        ended.set()
        thread.join()
    found = owners_of(leased).get(None)
    assert found is not None
    assert found.token == "theirs"


def test_a_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(leased: Store) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with locked(leased, log=lambda line: None, beat_seconds=BEAT):
        here = owners_of(leased).get(None)
    assert here is not None
    write_lock(leased, here.model_copy(update={"pid": ended.pid, "token": "theirs"}))
    assert owners_of(leased).get(None) is None
    lines: list[str] = []
    with locked(leased, log=ignore_no_locks(lines.append), beat_seconds=BEAT):
        pass
    (line,) = lines
    assert line.startswith(f"{leased.root}: taking over the lock of process {ended.pid} on {here.host}, ")


def test_a_run_that_has_lost_its_lease_publishes_nothing_more(leased: Store) -> None:
    with locked(leased, log=ignore_no_locks(pytest.fail), beat_seconds=3600) as mine:
        store = Store(leased.root, run=mine.token)
        before = committed(store, content="mine")
        write_lock(leased, other_owner())  # as if this run had missed its beats
        with pytest.raises(StoreError, match="another run has taken over the lock"):
            committed(store, content="late")
        with pytest.raises(StoreError, match="another run has taken over the lock"):
            store.write_manifest(Manifest(colophon_version="0", recipe={}, partitions=[], outputs={}))
        assert committed_record(store.root, "tokens", "p") == before
    owner = owners_of(leased).get(None)
    assert owner is not None
    assert owner.token == "theirs"


def test_a_lease_that_was_taken_is_not_taken_back_by_a_beat(leased: Store) -> None:
    with locked(leased, log=ignore_no_locks(pytest.fail), beat_seconds=BEAT):
        (beats,) = (thread for thread in threading.enumerate() if thread.name == "lock")
        write_lock(leased, other_owner())
        beats.join(60)  # it ends by itself
        assert not beats.is_alive()
    assert Owner.model_validate_json(leased.files.read_text(LOCK_NAME) or "").token == "theirs"


class TestAWorkerThatOutlivesItsRun:
    """The run was killed; the next run, with other settings, holds the lock."""

    def test_publishes_nothing(self, tmp_path: Path) -> None:
        root = str(tmp_path)
        with locked(Store(root), log=print) as killed, Store(root, run=killed.token).draft(**DRAFT) as draft:
            draft.path.write_text("of the killed run")
            late = Store(root, run=killed.token)
            (tmp_path / LOCK_NAME).unlink()  # as the system does when the owner dies
            with locked(Store(root), log=print) as owner:
                committed(Store(root, run=owner.token), content="of the next run")
                with pytest.raises(StoreError, match=f"{root}: another run has taken over the lock"):
                    late.publish([finished(draft, fingerprint="other")])
                record = committed_record(root, "tokens", "p")
                assert record is not None
                assert record.fingerprint == "of the next run"
                assert (tmp_path / record.path).read_text() == "of the next run"

    def test_publishes_nothing_after_the_next_run_has_ended(self, tmp_path: Path) -> None:
        root = str(tmp_path)
        with locked(Store(root), log=print) as killed, Store(root, run=killed.token).draft(**DRAFT) as draft:
            draft.path.write_text("of the killed run")
            (tmp_path / LOCK_NAME).unlink()
            with locked(Store(root), log=print) as owner:
                record = committed(Store(root, run=owner.token), content="of the next run")
            late = Store(root, run=killed.token)
            with pytest.raises(StoreError, match="the run of this process has ended"):
                late.publish([finished(draft, fingerprint="other")])
            with pytest.raises(StoreError, match="the run of this process has ended"), late.draft(**DRAFT):
                pytest.fail("writes a file that nobody would sweep")
        assert committed_record(root, "tokens", "p") == record
        assert {path.name for path in (tmp_path / "tokens").iterdir()} == {"p.parquet"}

    def test_withdraws_its_record_where_no_lock_of_the_directory_stopped_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next run takes the lock between the check of an attempt and its record."""
        refuse_flock(monkeypatch, errno.ENOTSUP)
        store = Store(str(tmp_path), run="killed")
        write_lock(store, other_owner(token="killed"))

        def taken_over(step: str, stage: str = "") -> None:
            if step == "before record":
                write_lock(store, other_owner(token="next"))

        monkeypatch.setattr("colophon.pipeline.storage.publication.reached", taken_over)
        with pytest.raises(StoreError, match="another run has taken over the lock"):
            committed(store, content="late")
        assert committed_records(store.root) == []

    def test_may_finish_a_publication_before_the_next_run_sweeps(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publishing, resume, swept = threading.Event(), threading.Event(), threading.Event()

        def wait(step: str, stage: str = "") -> None:
            if step == "before rename":
                publishing.set()
                assert resume.wait(60)

        monkeypatch.setattr("colophon.pipeline.storage.publication.reached", wait)
        root = str(tmp_path)
        write_lock(Store(root), other_owner(token="killed"))  # as a process that was killed leaves it
        with ThreadPoolExecutor(2) as pool:
            late = pool.submit(committed, Store(root, run="killed"), content="late")
            assert publishing.wait(60)
            with locked(Store(root), log=print) as owner:
                sweep = pool.submit(lambda: (Store(root, run=owner.token).sweep(["tokens"]), swept.set()))
                assert not swept.wait(0.2)
                resume.set()
                sweep.result(60)
                assert committed_record(root, "tokens", "p") == late.result(60)


def test_a_lock_file_that_cannot_be_read_is_replaced(leased: Store) -> None:
    leased.files.replace_text(LOCK_NAME, "not JSON")
    with locked(leased, log=print, beat_seconds=BEAT):
        owner = owners_of(leased).get(None)
        assert owner is not None
        assert owner.pid == os.getpid()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_run_on_a_disk_without_locks_reports_it_and_completes(
    project: Path, templates: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_flock(monkeypatch, number)
    called = run()
    assert (called.code, called.err) == (0, "")
    line = f"out: its file system has no locks (flock: {os.strerror(number)}): the lock is a file that the run rewrites"
    assert line in called.out
    assert hashes(manifest()) == hashes(manifest(str(templates / "finished" / "out")))
    assert not Path("out", LOCK_NAME).exists()
    assert list(Path("out").rglob("*.tmp")) == []


def test_the_second_run_on_a_disk_without_locks_names_the_first(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine sees no flock, only the file; here the owner beats as a lease does."""
    refuse_flock(monkeypatch, errno.ENOLCK)
    owner = owners_of(Store("out")).get(None)
    assert owner is not None and owner.pid == holder.pid
    ended, store = threading.Event(), Store("out")

    def beat() -> None:
        for number in range(1, 10**6):
            write_lock(store, owner.model_copy(update={"beat": number}))
            if ended.wait(BEAT):
                return

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(ColophonError, match=f"process {holder.pid} on "), locked(store, log=print, beat_seconds=1):
            pytest.fail("both hold it")
    finally:
        ended.set()
        thread.join()
