"""The shares of shards, and the locks of shards and whole runs that exclude each other."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.pipeline.errors import StoreError, UsageError
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.lock import locked, owners_of
from colophon.pipeline.storage.owner import Owner
from colophon.pipeline.storage.shard import LOCK_NAME, Shard, excludes, shard_of_lock
from colophon.shards.common.errors import ColophonError

BEAT = 0.1
SIZES = st.lists(st.integers(0, 1 << 40), max_size=60)


@given(sizes=SIZES, count=st.integers(1, 70))
def test_every_partition_is_in_one_share(sizes: list[int], count: int) -> None:
    shares = [Shard(number, count).share(sizes) for number in range(1, count + 1)]
    assert sorted(index for share in shares for index in share) == list(range(len(sizes)))
    assert all(share == sorted(share) for share in shares)


@given(sizes=SIZES, count=st.integers(1, 70))
def test_shares_differ_by_at_most_the_largest_partition(sizes: list[int], count: int) -> None:
    loads = [sum(sizes[index] for index in Shard(number, count).share(sizes)) for number in range(1, count + 1)]
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_a_share_by_hand() -> None:
    sizes = [10, 70, 30, 60, 20, 50, 40]  # largest first: 1 3 5 | 6 2 4 | 0 -> shards 1 2 3 | 3 2 1 | 1
    assert [Shard(number, 3).share(sizes) for number in (1, 2, 3)] == [[0, 1, 4], [2, 3], [5, 6]]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "3", "1/3/5", "-1/3", "1 / 3", "a/b", "", "1/1234567890"])
def test_a_shard_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Shard.parse(text)
    assert str(refused.value) == f"--shard {text}: must be NUMBER/COUNT with 1 <= NUMBER <= COUNT, such as 3/64"


def test_shards_are_spelled_and_their_locks_are_known() -> None:
    assert Shard.parse("003/64") == Shard(3, 64)
    assert str(Shard(3, 64)) == "3/64"
    assert shard_of_lock(Shard(3, 64).lock_name) == Shard(3, 64)
    assert shard_of_lock(LOCK_NAME) is None


def test_which_locks_exclude_each_other() -> None:
    third, fourth, other = Shard(3, 64).lock_name, Shard(4, 64).lock_name, Shard(3, 32).lock_name
    for one, two in ((LOCK_NAME, third), (third, other)):
        assert excludes(one, two) and excludes(two, one)
    for one, two in ((third, fourth), (third, third), (third, "shards/3-of-64.json"), (LOCK_NAME, "manifest.json")):
        assert not excludes(one, two) and not excludes(two, one)


@pytest.fixture(params=["disk", "disk without locks", "object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "object store":
        yield "memory://shard-test/out"
        filesystem = fsspec.filesystem("memory")
        if filesystem.exists("/shard-test"):
            filesystem.rm("/shard-test", recursive=True)
        return
    if request.param == "disk without locks":

        def refused(handle: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", refused)
    yield str(tmp_path / "out")


def lock(root: str, shard: Shard | None = None) -> object:
    return locked(Store(root, shard=shard), log=lambda line: None, beat_seconds=BEAT)


def test_shards_of_one_count_run_at_once_and_nothing_else_does(root: str) -> None:
    with lock(root, Shard(1, 3)), lock(root, Shard(3, 3)):
        assert set(owners_of(Store(root))) == {Shard(1, 3), Shard(3, 3)}
        for other in (None, Shard(1, 3), Shard(1, 2)):
            with pytest.raises(ColophonError, match=rf"shard [13]/3 \(process {os.getpid()} on"), lock(root, other):
                pytest.fail("two commands work on the same partitions")
        assert set(owners_of(Store(root))) == {Shard(1, 3), Shard(3, 3)}, "a refused command leaves no lock"
    assert owners_of(Store(root)) == {}


def test_no_shard_begins_beside_a_whole_run(root: str) -> None:
    with lock(root):
        with pytest.raises(ColophonError, match=rf"another run \(process {os.getpid()} on"), lock(root, Shard(1, 3)):
            pytest.fail("both work")
        assert set(owners_of(Store(root))) == {None}


@pytest.mark.parametrize(("dead", "next_one"), [(Shard(1, 3), None), (None, Shard(1, 3)), (Shard(1, 3), Shard(2, 4))])
def test_what_outlives_a_killed_command_publishes_nothing_beside_the_next(
    root: str, dead: Shard | None, next_one: Shard | None
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed = Store(root, run="killed", shard=dead)
    owner = Owner.this_process().model_copy(update={"pid": ended.pid, "token": "killed"})
    killed.files.replace_text(killed.lock_name, owner.model_dump_json())
    with lock(root, next_one):
        assert set(owners_of(Store(root))) == {next_one}
        message, late = "the run of this process has ended", {"output": "tokens", "partition": "p", "suffix": ".arrow"}
        with pytest.raises(StoreError, match=message), killed.draft(**late) as draft:
            draft.path.write_text("late")
            killed.publish([draft.finish(check=lambda path: None, rows=1, fingerprint="", counts={})])
    assert killed.files.read_text(killed.lock_name) is None


def test_a_silent_shard_of_another_machine_is_waited_for_where_no_system_holds_its_lock(
    root: str, request: pytest.FixtureRequest
) -> None:
    store, lines = Store(root, shard=Shard(2, 3)), list[str]()
    elsewhere = Owner(host="elsewhere", pid=1, since=0, token="theirs")
    store.files.replace_text(store.lock_name, elsewhere.model_dump_json())
    with locked(Store(root), log=lines.append, beat_seconds=BEAT):
        assert store.files.read_text(store.lock_name) is None
    waited = [line for line in lines if line.endswith("waiting to see whether it is alive")]
    assert len(waited) == ("[disk]" not in request.node.name)
