"""Files and directories appear whole or not at all, and are on disk before and after they are renamed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from colophon.shards.common.durable import created_directory, replace_text, replaced_file, sync, sync_open_file


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every fsync and rename from here on: `fsync NAME` and `rename NAME`, with `*` for a temporary name."""
    recorded: list[str] = []
    names: dict[int, str] = {}
    opened, fsync, replace, rename = os.open, os.fsync, Path.replace, Path.rename

    def shown(path: str | os.PathLike[str]) -> str:
        name = Path(path).name
        return "*" if name.endswith(".tmp") else name

    def recorded_open(path: str, flags: int) -> int:
        handle = opened(path, flags)
        names[handle] = shown(path)
        return handle

    def recorded_fsync(handle: int) -> None:
        recorded.append(f"fsync {names[handle]}")
        fsync(handle)

    def recorded_replace(path: Path, target: Path) -> Path:
        recorded.append(f"rename {shown(path)} {shown(target)}")
        return replace(path, target)

    def recorded_rename(path: Path, target: Path) -> Path:
        recorded.append(f"rename {shown(path)} {shown(target)}")
        return rename(path, target)

    monkeypatch.setattr("colophon.shards.common.durable.os.open", recorded_open)
    monkeypatch.setattr("colophon.shards.common.durable.os.fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    return recorded


def test_a_file_is_synced_renamed_and_its_directory_synced(tmp_path: Path, calls: list[str]) -> None:
    replace_text(tmp_path / "out" / "a.json", "{}\n")
    assert calls == ["fsync *", "rename * a.json", "fsync out"]


def test_a_directory_is_synced_with_all_in_it_renamed_and_its_parent_synced(tmp_path: Path, calls: list[str]) -> None:
    with created_directory(tmp_path / "model") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a").write_bytes(b"a")
        (temporary / "b").write_bytes(b"b")
    assert sorted(calls[:-2]) == ["fsync *", "fsync a", "fsync b", "fsync inner"]
    assert calls[-2:] == ["rename * model", f"fsync {tmp_path.name}"]


def test_a_reader_sees_the_old_file_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replaced_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".a.txt.")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_changes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replaced_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_synced_is_not_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(handle: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="No space left"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_one_file_do_not_share_a_temporary_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replaced_file(path) as first, replaced_file(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # its block ends last
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf_8_with_its_line_ends(tmp_path: Path) -> None:
    replace_text(tmp_path / "a.txt", "é\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n"


@pytest.mark.parametrize("exists", [False, True], ids=["missing", "empty"])
def test_a_directory_appears_whole(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "out" / "model"
    if exists:
        path.mkdir(parents=True)
    with created_directory(path) as temporary:
        (temporary / "a").write_text("a")
        assert not (path / "a").exists()
    assert (path / "a").read_text() == "a"
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "kept").write_text("kept")
    with pytest.raises(OSError), created_directory(path) as temporary:
        (temporary / "a").write_text("a")
    assert [entry.name for entry in path.iterdir()] == ["kept"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_text("kept")
    with pytest.raises(OSError), created_directory(path) as temporary:
        (temporary / "a").write_text("a")
    assert path.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_raises_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), created_directory(tmp_path / "model") as temporary:
        (temporary / "a").write_text("a")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_cannot_be_synced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "missing")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM])
def test_what_has_no_fsync_is_written_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Some network file systems have no fsync, for directories or at all; none can be mounted in a test."""
    fsync = os.fsync

    def refused(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) or refuses_files:
            raise OSError(number, os.strerror(number))
        fsync(handle)

    refuses_files = False
    monkeypatch.setattr(os, "fsync", refused)
    replace_text(tmp_path / "a.json", "{}")
    with created_directory(tmp_path / "model") as temporary:
        (temporary / "inner").mkdir()
    assert (tmp_path / "a.json").read_text() == "{}"
    refuses_files = True
    if number in (errno.EACCES, errno.EPERM):  # no file system refuses that to the owner of a file
        with pytest.raises(OSError, match=os.strerror(number)):
            replace_text(tmp_path / "a.json", "new")
        assert (tmp_path / "a.json").read_text() == "{}"
        return
    replace_text(tmp_path / "a.json", "new")
    with (tmp_path / "a.json").open() as file:
        assert file.read() == "new"
        sync_open_file(file.fileno())


def test_a_directory_whose_disk_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failed)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync(tmp_path)
