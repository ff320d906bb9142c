"""The cache: directories appear complete or not at all, one process builds them, and all share them."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext import model_cache
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_cache import cache_dir, cached_directory, remembered_sha256


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLOPHON_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build_with_a_mark(directory: Path) -> None:
    (directory / "built").write_text("whole")
    with (directory.parent / "marks").open("a") as file:
        file.write(f"{os.getpid()}\n")


def build_with_others(barrier: Any, found: Any) -> None:
    barrier.wait()
    found.put(str(cached_directory("things/x", build_with_a_mark)))


def test_one_of_many_processes_builds_the_directory(empty_cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(4), context.Queue()
    processes = [context.Process(target=build_with_others, args=(barrier, found)) for _ in range(4)]
    for process in processes:
        process.start()
    paths = {found.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert paths == {str(empty_cache / "things/x")}
    assert len((empty_cache / "things/marks").read_text().splitlines()) == 1


def test_a_build_that_fails_leaves_nothing(empty_cache: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cached_directory("things/x", fail)
    assert [path.name for path in (empty_cache / "things").iterdir()] == ["x.lock"]
    assert (cached_directory("things/x", build_with_a_mark) / "built").read_text() == "whole"


def test_a_full_disk_is_one_line(models: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(AnnotatorError, match=r"No space left on device; COLOPHON_CACHE_DIR chooses another$"):
        FastTextModel(models / "softmax.bin").load()
    assert not any(path.is_dir() for path in (empty_cache / "fasttext").iterdir())


def test_the_directory_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("COLOPHON_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(AnnotatorError, match="file/cache: not writable; set COLOPHON_CACHE_DIR to"):
        cache_dir()
    monkeypatch.delenv("COLOPHON_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "colophon"
    assert (tmp_path / "xdg" / "colophon").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(model_cache.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert cache_dir().parent == tmp_path / "temporary"


def test_a_file_is_read_once_for_its_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    first = remembered_sha256(path)
    assert first == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with monkeypatch.context() as patch:
        patch.setattr(model_cache, "file_sha256", lambda _: pytest.fail("read again"))
        assert remembered_sha256(path) == first
    before = path.stat()
    path.write_bytes(b"abd")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # edited in place; ctime differs
    assert remembered_sha256(path) != first
    with pytest.raises(AnnotatorError, match="No such file"):
        remembered_sha256(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "table"),
    [("softmax.bin", "rows"), ("chars.bin", "rows"), ("many.bin", "slots"), ("output.ftz", "slots")],
)
def test_mapped_tables_equal_those_in_memory(kinds: Path, name: str, table: str, empty_cache: Path) -> None:
    texts = pa.array(["theorem proof lol", "zzq the energy", "never"])
    in_memory = FastTextModel(kinds / name, cached=False).probabilities(texts)
    assert not (empty_cache / "fasttext").exists()
    mapped = FastTextModel(kinds / name)
    np.testing.assert_array_equal(mapped.probabilities(texts), in_memory)
    again = FastTextModel(kinds / name)
    np.testing.assert_array_equal(again.probabilities(texts), in_memory)
    (directory,) = (path for path in (empty_cache / "fasttext").iterdir() if path.is_dir())
    assert str(directory / f"{table}.npy") in Path("/proc/self/maps").read_text(), "shared pages of one file"
