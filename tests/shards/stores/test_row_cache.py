"""The cache of rows: what it returns is what was added, whatever happened to its files; and it is never too large."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colophon.shards.common.cache_directory import CacheError, private_directory
from colophon.shards.stores.row_cache import RowCache

NUM_ROWS, ROW_BYTES, ENTRY_BYTES = 200, 96, 16
BOUND = 20 * (ROW_BYTES + ENTRY_BYTES) + 50


def content(row: int, key: str = "a") -> bytes:
    return np.random.default_rng([row, ord(key)]).bytes(ROW_BYTES)


def opened(directory: Path, key: str = "a", *, bound: int = BOUND, lines: list[str] | None = None) -> RowCache:
    report: Callable[[str], None] = (lines if lines is not None else []).append
    return RowCache(directory, key=key, num_rows=NUM_ROWS, row_bytes=ROW_BYTES, max_bytes=bound, report=report)


def add(cache: RowCache, rows: range, key: str = "a") -> None:
    cache.add(list(rows), [content(row, key) for row in rows])


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache's directory whose size is checked before and after every write."""
    path = private_directory(tmp_path / "cache", remedy="")
    write = os.pwrite

    def watched(handle: int, data: Any, at: int) -> int:
        written = write(handle, data, at)
        assert size(path) <= BOUND
        return written

    monkeypatch.setattr(os, "pwrite", watched)
    return path


def test_rows_are_kept_until_the_bound_and_for_other_processes(directory: Path) -> None:
    cache = opened(directory)
    for start in range(0, 60, 6):
        add(cache, range(start, start + 6))
    assert size(directory) > BOUND - 2 * ROW_BYTES
    again = opened(directory)
    for found in (cache, again):
        assert len(found) == 20
        assert [found.read(row) for row in range(20)] == [content(row) for row in range(20)]
        assert found.read(20) is None
        assert not found.has(np.array([20, 199])).any()
    assert [path.stat().st_mode & 0o777 for path in directory.iterdir()] == [0o600] * 3


def test_two_handles_see_each_others_rows_and_share_the_bound(directory: Path) -> None:
    first, second = opened(directory), opened(directory)
    add(first, range(8))
    add(second, range(4, 16))
    add(first, range(40, 60))
    assert second.read(2) == content(2)
    assert first.read(15) == content(15)
    assert (directory / "a.rows").stat().st_size == 20 * ROW_BYTES


def grow(directory: Path, key: str, rows: range) -> None:
    cache = opened(directory, key)
    for row in rows:
        add(cache, range(row, row + 1), key)


def test_processes_that_write_at_once_keep_the_bound_and_every_row(directory: Path) -> None:
    context = multiprocessing.get_context("fork")
    parts = [("a", range(0, 40)), ("a", range(20, 60)), ("b", range(40))]
    processes = [context.Process(target=grow, args=(directory, key, rows)) for key, rows in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3  # each watched its writes
    caches = [opened(directory, key) for key in "ab"]
    assert sum(map(len, caches)) == 20
    for cache, key in zip(caches, "ab", strict=True):
        assert {cache.read(row) for row in range(60)} <= {None, *(content(row, key) for row in range(60))}


def test_another_data_set_replaces_one_that_nobody_uses(directory: Path) -> None:
    old = opened(directory, "a")
    add(old, range(20))
    new = opened(directory, "b")
    add(new, range(3), "b")
    assert (len(old), len(new)) == (20, 0)  # the old one is in use
    old.close()
    new = opened(directory, "b")
    add(new, range(30), "b")
    assert len(new) == 20
    assert not (directory / "a.rows").exists()


def test_a_lower_bound_shrinks_what_is_there(directory: Path) -> None:
    cache = opened(directory)
    add(cache, range(20))
    cache.close()
    less = opened(directory, bound=5 * (ROW_BYTES + ENTRY_BYTES))
    assert (len(less), size(directory)) == (5, 5 * (ROW_BYTES + ENTRY_BYTES))
    assert [less.read(row) for row in range(6)] == [*map(content, range(5)), None]


@pytest.mark.parametrize("suffix", ["rows", "index"])
@pytest.mark.parametrize("damage", ["zeros", "cut", "other row", "empty"])
def test_a_damaged_file_gives_no_wrong_row(directory: Path, suffix: str, damage: str) -> None:
    cache = opened(directory)
    add(cache, range(10))
    cache.close()
    path = directory / f"a.{suffix}"
    found, item = path.read_bytes(), {"rows": ROW_BYTES, "index": ENTRY_BYTES}[suffix]
    changed = {
        "zeros": found[: 3 * item] + bytes(4 * item) + found[7 * item :],
        "cut": found[: 4 * item + 7],
        "other row": found[item : 2 * item] + found[item:],
        "empty": b"",
    }[damage]
    path.write_bytes(changed)
    again = opened(directory)
    right = [again.read(row) == content(row) for row in range(10)]
    assert [again.read(row) for row in range(10) if not right[row]] == [None] * right.count(False)
    assert right.count(False) > 0
    add(again, range(10))
    assert [opened(directory).read(row) for row in range(10)] == [content(row) for row in range(10)]


def test_a_full_disk_ends_the_growth_with_one_line(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    cache = opened(directory, lines=lines)
    add(cache, range(4))
    write = os.pwrite

    def full(handle: int, data: Any, at: int) -> int:
        if len(data) > 10:
            return write(handle, bytes(data[:10]), at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    add(cache, range(4, 9))
    add(cache, range(9, 12))
    assert lines == [f"{directory}: No space left on device: no more rows are cached; they are read from the store"]
    monkeypatch.setattr(os, "pwrite", write)
    assert [opened(directory).read(row) for row in range(5)] == [*map(content, range(4)), None]


@pytest.mark.parametrize("name", ["a.rows", "a.index", "lock"])
def test_links_and_pipes_are_refused(directory: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").write_text("keep")
    (directory / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=f"{name}: a link; delete it"):
        opened(directory)
    assert (tmp_path / "elsewhere").read_text() == "keep"
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(CacheError, match="not a regular file"):
        opened(directory)


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(CacheError, match="other users can write to the cache"):
        private_directory(tmp_path / "open", remedy="choose another")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(CacheError, match="link: not a directory"):
        private_directory(tmp_path / "link", remedy="choose another")
