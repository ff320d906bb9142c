"""Paths below an output: real directories and regular files, and no link is followed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from colophon.shards.arrow_files import read_table
from colophon.shards.common.errors import ShardError
from colophon.shards.common.output_paths import OutputPathError, entries, inside, open_regular
from colophon.shards.common.state_files import read_regular, read_state
from tests.links import MESSAGE, ODD, replace, untouched


@pytest.mark.parametrize("kind", ODD)
def test_a_link_or_a_pipe_at_any_place_is_refused(tmp_path: Path, kind: str) -> None:
    root, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    with untouched(elsewhere):
        for place in ("file", "a/file", "a/b/c/file"):
            replace(root / place, kind, elsewhere)
            for is_directory in (True, False):
                with pytest.raises(OutputPathError, match=re.escape(f"{root}/{place}: ") + MESSAGE):
                    inside(root, place, is_directory=is_directory)
            with pytest.raises(OutputPathError, match=re.escape(f"{root}/{place}: ") + MESSAGE):
                inside(root, f"{place}/file")
            with pytest.raises(OutputPathError, match=MESSAGE):
                list(entries(root, Path(place).parent))
            with pytest.raises(OutputPathError, match=MESSAGE):
                list(entries(root, place))
            with pytest.raises(OutputPathError, match=MESSAGE):
                open_regular(root / place, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            with pytest.raises(OutputPathError, match=MESSAGE):
                read_regular(root / place, remedy="Delete it")
            with pytest.raises(OutputPathError, match=MESSAGE):
                read_state(root / place, remedy="Delete it")


def test_files_and_directories_have_their_places(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("content")
    with pytest.raises(OutputPathError, match=r"/directory: a directory, not a regular file; .* Remove it$"):
        inside(tmp_path, "directory")
    with pytest.raises(OutputPathError, match=r"/file: a file, not a directory"):
        inside(tmp_path, "file", is_directory=True)
    with pytest.raises(OutputPathError, match=r"/file: a file, not a directory"):
        inside(tmp_path, "file/more")
    with pytest.raises(OutputPathError, match="a device, not a regular file"):
        inside(Path("/dev"), "null")
    assert inside(tmp_path, "file").read_text() == "content"
    assert inside(tmp_path, "directory", is_directory=True).is_dir()


def test_the_output_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "file").write_text("content")
    root = tmp_path / "out"
    root.symlink_to("disk")
    assert inside(root, "file") == root / "file"
    assert read_regular(inside(root, "file"), remedy="") == b"content"
    assert inside(root, "new/file") == root / "new" / "file"
    assert list(entries(root, ".")) == [root / "file"]
    assert list(entries(root, "missing")) == []


@pytest.mark.parametrize("path", ["../file", "a/../../file", "/etc/passwd", "a/..", "a\0b", "\ud800"])
def test_a_path_stays_inside(tmp_path: Path, path: str) -> None:
    with pytest.raises(OutputPathError, match=r"leaves the directory|is not a path"):
        inside(tmp_path, path)


def test_no_shard_is_read_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "shard.arrow")
    with pytest.raises(ShardError, match=r"shard\.arrow: not a regular file"):
        read_table(tmp_path / "shard.arrow")
