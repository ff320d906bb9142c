"""A run's directory as a file system: the same behaviour on a disk and on an object store."""

from __future__ import annotations

import errno
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from colophon.pipeline.storage.files import LocalFiles, RemoteFiles, files_at
from colophon.pipeline.storage.run_files import RunFiles
from colophon.shards.common.errors import ColophonError


@pytest.fixture(params=["disk", "object store"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunFiles]:
    """An empty run's directory."""
    if request.param == "disk":
        yield files_at(str(tmp_path / "run"))
        return
    root = "memory://files-test/run"
    yield files_at(root)
    filesystem, path = fsspec.url_to_fs(root)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def test_the_root_decides_the_kind_of_files() -> None:
    assert files_at("out/web") == LocalFiles("out/web")
    assert files_at("s3://bucket/run") == RemoteFiles("s3://bucket/run")
    assert [files_at(root).is_local for root in ("out", "/out", "s3://bucket/run")] == [True, True, False]
    with pytest.raises(ColophonError, match=re.escape("s3://bucket/run is not a local directory")):
        _ = files_at("s3://bucket/run").path


def test_files_that_do_not_exist(files: RunFiles) -> None:
    assert files.read_text("a/b.json") is None
    assert files.read_state("a/b.json", remedy="") is None
    assert files.size("a/b.json") is None
    assert files.names("a") == []


def test_a_text_is_replaced_as_a_whole(files: RunFiles) -> None:
    for text in ('{"é": 1}', "{}"):
        files.replace_text("a/b.json", text)
        assert files.read_text("a/b.json") == text
        assert files.size("a/b.json") == len(text.encode())
        with files.local_copy("a/b.json") as path:
            assert path.read_text(encoding="utf-8") == text
    files.replace_text("a/.settings.json", '{"a": [2]}')
    assert files.read_state("a/.settings.json", remedy="") == {"a": [2]}
    assert sorted(files.names("a")) == [".settings.json", "b.json"]


def test_a_temporary_file_is_deleted_with_its_context(files: RunFiles) -> None:
    with files.temporary_file("tokens", ".part.tmp") as path:
        path.write_bytes(b"content")
    assert not path.exists()
    assert files.names("tokens") == []


def test_a_temporary_file_becomes_visible(files: RunFiles) -> None:
    with files.temporary_file("tokens", ".part.tmp") as path:
        path.write_bytes(b"content")
        if isinstance(files, LocalFiles):
            files.move(path, "tokens/part")
        else:
            assert isinstance(files, RemoteFiles)
            files.upload(path, "tokens/part")
    assert files.names("tokens") == ["part"]
    assert files.size("tokens/part") == 7


def test_a_file_is_created_once(files: RunFiles) -> None:
    assert files.create_text("lock", "first")
    assert not files.create_text("lock", "second")
    assert files.read_text("lock") == "first"
    files.remove("lock")
    assert files.create_text("lock", "third")
    assert files.read_text("lock") == "third"


def test_a_file_is_created_once_on_a_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    files = LocalFiles(str(tmp_path))
    assert files.create_text("lock", "first")
    assert not files.create_text("lock", "second")
    assert (files.read_text("lock"), files.names(".")) == ("first", ["lock"])


def test_removing_a_file_twice(files: RunFiles) -> None:
    assert isinstance(files, LocalFiles | RemoteFiles)
    files.replace_text("a.json", "{}")
    for _ in range(2):
        files.remove("a.json")
        assert files.read_text("a.json") is None


def test_files_can_be_sent_to_workers(files: RunFiles) -> None:
    assert pickle.loads(pickle.dumps(files)) == files


def test_a_small_scratch_array_is_in_memory(files: RunFiles) -> None:
    array = files.scratch_array((3, 4), np.uint16)
    assert (array.shape, array.dtype, isinstance(array, np.memmap)) == ((3, 4), np.uint16, False)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve disk space")
def test_a_large_scratch_array_has_its_disk_space_before_it_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colophon.pipeline.storage.run_files._ARRAY_IN_MEMORY_BYTES", 1000)
    memmap, bytes_on_disk = np.memmap, list[int]()

    def recording_memmap(file: Any, *arguments: Any, **options: Any) -> Any:
        bytes_on_disk.append(os.fstat(file.fileno()).st_blocks * 512)
        return memmap(file, *arguments, **options)

    monkeypatch.setattr(np, "memmap", recording_memmap)
    array = files_at(str(tmp_path)).scratch_array((1000, 1000), np.uint32)
    array[:] = 7
    assert bytes_on_disk == [pytest.approx(array.nbytes, abs=1 << 20)]
    assert bytes_on_disk[0] >= array.nbytes
    assert int(array.sum()) == 7_000_000
    assert list(tmp_path.iterdir()) == []
