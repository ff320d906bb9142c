"""Links and pipes in a run's output: every read and write refuses them, and nothing is written elsewhere."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from colophon.pipeline.storage.commits import LOCK_NAME, Store
from colophon.pipeline.storage.files import LocalFiles
from colophon.pipeline.storage.lock import locked, owners_of
from colophon.shards.common.errors import ColophonError, ExitCode
from colophon.shards.common.file_locks import LockedError
from colophon.shards.common.output_paths import OutputPathError
from tests.links import MESSAGE, ODD, PRECIOUS, replace, untouched
from tests.pipeline.project import colophon, manifest, run


def enter(context: object) -> None:
    with context:  # type: ignore[attr-defined]
        pass


CALLS: dict[str, Callable[[LocalFiles], object]] = {
    "read": lambda files: files.read_text("tokens/a.parquet"),
    "replace": lambda files: files.replace_text("tokens/a.parquet", "new"),
    "create": lambda files: files.create_text("tokens/a.parquet", "new"),
    "remove": lambda files: files.remove("tokens/a.parquet"),
    "size": lambda files: files.size("tokens/a.parquet"),
    "names": lambda files: files.names("tokens"),
    "sizes": lambda files: files.sizes("tokens"),
    "remove all": lambda files: files.remove_all("tokens", ["a.parquet"]),
    "copy": lambda files: enter(files.local_copy("tokens/a.parquet")),
    "temporary": lambda files: enter(files.temporary_file("tokens", "a.parquet")),
    "move": lambda files: files.move(files.path / "new", "tokens/a.parquet"),
}


@pytest.mark.parametrize("place", ["tokens", "tokens/a.parquet"])
@pytest.mark.parametrize("kind", ODD)
def test_every_call_refuses_them(tmp_path: Path, kind: str, place: str) -> None:
    root, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    files = LocalFiles(str(root))
    with untouched(elsewhere):
        replace(root / place, kind, elsewhere)
        (root / "new").write_text("new")
        for call in CALLS.values():
            with pytest.raises(OutputPathError, match=re.escape(f"{root / place}: ") + MESSAGE):
                call(files)
        assert (root / place).lstat()
        assert (root / "new").read_text() == "new"


@pytest.mark.parametrize(
    "place",
    [
        *("tokens", "tokens/x", "records", "records/tokens", "records/tokens/a.json"),
        *("records/pending", "records/pending/a.json", "report"),
    ],
)
@pytest.mark.parametrize("kind", ["a link to a directory", "a pipe"])
def test_a_sweep_deletes_nothing_elsewhere(tmp_path: Path, kind: str, place: str) -> None:
    root, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    store = Store(str(root))
    with untouched(elsewhere):
        replace(root / place, kind, elsewhere)
        with pytest.raises(OutputPathError, match=re.escape(f"{root / place}: ") + MESSAGE):
            store.sweep(["tokens"])
        if place != "report":
            with pytest.raises(OutputPathError, match=MESSAGE), store.draft(**DRAFT) as draft:
                draft.path.write_text(PRECIOUS)
                store.publish([draft.finish(check=lambda path: None, rows=1, fingerprint="new", counts={})])
                store.files.names("tokens")
                store.ledger()


DRAFT = {"output": "tokens", "partition": "a", "suffix": ".parquet"}


def test_a_lock_that_becomes_a_link_ends_the_run(tmp_path: Path) -> None:
    with untouched(tmp_path / "elsewhere"):
        replace(tmp_path / "out" / LOCK_NAME, "a link to a file", tmp_path / "elsewhere")
        with pytest.raises(OutputPathError, match=MESSAGE), Store(f"{tmp_path}/out", run="token").draft(**DRAFT):
            pytest.fail("writes")


def test_a_sweep_deletes_our_temporary_files_alone(tmp_path: Path) -> None:
    names = {".a.0123456789ab.parquet.tmp": True, ".manifest.json.0123456789ab.tmp": True, ".notes.tmp": False}
    directories = ("tokens", "records", "records/pending", "records/tokens", "report", ".")
    for directory in directories:
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
        for name in names:
            (tmp_path / directory / name).write_text("x")
        (tmp_path / directory / ".d.0123456789ab.tmp").mkdir()
    (tmp_path / ".linked.0123456789ab.tmp").symlink_to("tokens")
    assert Store(str(tmp_path)).drafts("tokens") == {"a", "d", "manifest"}
    Store(str(tmp_path)).sweep(["tokens"])
    for directory in directories:
        assert [name for name in names if not (tmp_path / directory / name).exists()] == [n for n in names if names[n]]


class TestTheLock:
    @pytest.mark.parametrize("kind", ODD)
    def test_is_no_link_and_no_pipe(self, tmp_path: Path, kind: str) -> None:
        with untouched(tmp_path / "elsewhere"):
            replace(tmp_path / "out" / LOCK_NAME, kind, tmp_path / "elsewhere")
            store = Store(str(tmp_path / "out"))
            with pytest.raises(OutputPathError, match=rf"out/\.lock: {MESSAGE}"), locked(store, log=print):
                pytest.fail("locked")
            with pytest.raises(OutputPathError, match=rf"out/\.lock: {MESSAGE}"):
                owners_of(store).get(None)

    def test_is_no_second_name_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text(PRECIOUS)
        (tmp_path / "out").mkdir()
        os.link(tmp_path / "precious", tmp_path / "out" / LOCK_NAME)
        with pytest.raises(OutputPathError, match=r"\.lock: a hard link"), locked(Store(f"{tmp_path}/out"), log=print):
            pytest.fail("locked")
        assert (tmp_path / "precious").read_text() == PRECIOUS

    def test_a_holder_that_has_not_named_itself(self, tmp_path: Path) -> None:
        path = tmp_path / LOCK_NAME
        path.touch()
        handle = os.open(path, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            with pytest.raises(ColophonError) as refused, locked(Store(str(tmp_path)), log=print):
                pytest.fail("locked")
        finally:
            os.close(handle)
        assert refused.value.exit_code == ExitCode.FAILED
        named = rf"{path}: locked by process {os.getpid()} of \S+, which has not named itself\. Wait"
        assert re.match(rf"{named}|{tmp_path}: another run is using it", str(refused.value))


def test_the_lock_of_an_output_that_somebody_holds_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    handle = os.open(tmp_path / "tokens", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    files = LocalFiles(str(tmp_path))
    try:
        with pytest.raises(LockedError, match=rf"^{tmp_path}/tokens: locked by "), files.exclusive("tokens", seconds=0):
            pytest.fail("locked")
    finally:
        os.close(handle)
    with files.exclusive("tokens", seconds=0) as is_held:
        assert is_held


PLACES = (
    ".lock",
    "tokens",
    "annotations",
    "annotations/url",
    "packed",
    "packed/plain/new.arrow",
    "records",
    "records/tokens/.settings.json",
    "records/packed/plain/new.json",
    "records/pending/new.json",
    "records/new.parquet",
    "report",
    "report/summary.json",
    "calibration",
    "manifest.json",
    "quarantine.jsonl",
)


def test_a_run_ends_with_one_line_and_writes_nothing_elsewhere(finished: Path, tmp_path: Path) -> None:
    elsewhere, problems = tmp_path / "elsewhere", []
    for place in PLACES:
        path, kept = Path("out", place), Path("kept")
        if path.exists():
            path.rename(kept)
        with untouched(elsewhere):
            replace(path, "a link to a file" if path.suffix else "a link to a directory", elsewhere)
            called = run()
            if called.code != 2 or not re.match(rf"out/{re.escape(place)}: {MESSAGE}", called.line):
                problems.append((place, called.code, called.err))
            path.unlink()
        if kept.exists():
            kept.rename(path)
    assert problems == []
    assert run().code == 0


def test_readers_refuse_a_pipe(finished: Path) -> None:
    readers = {"tokens": ["verify", "inspect"], "annotations/url": ["verify", "inspect"], "packed/plain": ["verify"]}
    for output, commands in readers.items():
        path = Path("out", manifest().outputs[output].records[0].path)
        kept = path.read_bytes()
        replace(path, "a pipe", path)
        for command in commands:
            called = colophon(command, "recipe.toml")
            assert called.code in (1, 2), (command, path, called)
            assert f"{path}: a pipe, not a regular file" in called.out + called.err, (command, called)
        path.unlink()
        path.write_bytes(kept)
