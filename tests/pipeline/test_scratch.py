"""Scratch directories of killed processes are deleted, those of others and of living processes are not."""

from __future__ import annotations

import os
import time
from pathlib import Path

from colophon.pipeline.scratch import scratch_directory


def aged(path: Path) -> Path:
    """The directory with a file in it, created a while ago."""
    path.mkdir(exist_ok=True)
    (path / "tokens.arrow").touch()
    os.utime(path, (0, time.time() - 3600))
    return path


def test_what_killed_processes_left_is_deleted(tmp_path: Path) -> None:
    left, other = aged(tmp_path / "colophon-verify-a"), aged(tmp_path / "somebody-verify-a")
    elsewhere = aged(tmp_path / "elsewhere")
    (tmp_path / "colophon-verify-link").symlink_to(elsewhere)
    (tmp_path / "colophon-verify-file").touch()
    fresh = tmp_path / "colophon-verify-fresh"
    fresh.mkdir()
    mine, second = tmp_path / "colophon-verify-mine", tmp_path / "colophon-verify-second"
    with scratch_directory(mine):
        assert not left.exists()
        assert mine.stat().st_mode & 0o777 == 0o700
        aged(mine)
        with scratch_directory(second):
            assert (mine / "tokens.arrow").exists(), "it is locked"
    assert not mine.exists()
    assert not second.exists()
    assert other.exists()
    assert (elsewhere / "tokens.arrow").exists()
    assert fresh.exists()
