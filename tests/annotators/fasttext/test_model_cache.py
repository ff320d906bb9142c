"""The cache: directories appear complete or not at all, one process builds them, and all share them."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext import cache_lock, model_cache
from colophon.annotators.fasttext.kernel import cached_tables
from colophon.annotators.fasttext.kernel.tables import build_model
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_cache import ModelCacheError, cache_dir, cached_directory, remembered_sha256
from colophon.annotators.fasttext.model_file import read_layout
from colophon.shards.common import cache_directory
from colophon.shards.common.digests import file_sha256, fingerprint


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLOPHON_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build_with_a_mark(directory: Path) -> None:
    (directory / "built").write_text("whole")
    with (directory.parent / "marks").open("a") as file:
        file.write(f"{os.getpid()}\n")


def read_whole(directory: Path) -> Path | None:
    path = directory / "built"
    return directory if path.is_file() and path.read_text() == "whole" else None


def cached_x() -> Path:
    return cached_directory("things", "x", build=build_with_a_mark, read=read_whole)


def build_with_others(barrier: Any, found: Any) -> None:
    barrier.wait()
    found.put(str(cached_x()))


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
        cached_directory("things", "x", build=fail, read=read_whole)
    assert [path.name for path in (empty_cache / "things").iterdir()] == ["x.lock"]
    assert (cached_x() / "built").read_text() == "whole"


@pytest.mark.parametrize("kind", ["half", "empty", "file", "link"])
def test_what_is_not_usable_is_replaced(kind: str, empty_cache: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "built").write_text("precious")
    place = cached_x()
    shutil.rmtree(place)
    if kind == "link":
        place.symlink_to(victim)
    elif kind == "file":
        place.write_text("")
    else:
        place.mkdir()
        (place / "built").write_text("half") if kind == "half" else None
    assert (cached_x() / "built").read_text() == "whole"
    assert (victim / "built").read_text() == "precious"
    assert not place.is_symlink()
    assert {path.name for path in (empty_cache / "things").iterdir()} == {"x", "x.lock", "marks"}


def test_what_killed_processes_left_is_removed_after_a_day(empty_cache: Path, tmp_path: Path) -> None:
    shutil.rmtree(cached_x())
    old, link, new = (empty_cache / "things" / f".{name}.0123456789ab.tmp" for name in ("y", "link", "new"))
    for path in (old, new):
        path.mkdir()
        (path / "rows.npy").write_text("half")
    link.symlink_to(new)
    for path in (old, link):
        os.utime(path, (0, 0), follow_symlinks=False)
    cached_x()
    assert [path.name for path in (empty_cache / "things").glob(".*")] == [new.name]
    assert (new / "rows.npy").read_text() == "half"


def test_a_build_that_is_damaged_at_once_is_an_error(empty_cache: Path) -> None:
    with pytest.raises(ModelCacheError, match="things/x: damaged again after it was built; set COLOPHON_CACHE_DIR"):
        cached_directory("things", "x", build=build_with_a_mark, read=lambda _: None)


def test_a_full_disk_is_one_line(models: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ModelCacheError, match=r"No space left on device; COLOPHON_CACHE_DIR chooses another$"):
        FastTextModel(models / "softmax.bin").load()
    assert not any(path.is_dir() for path in (empty_cache / "fasttext").iterdir())


def test_the_directory_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("COLOPHON_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelCacheError, match="file/cache: not writable; set COLOPHON_CACHE_DIR to"):
        cache_dir()
    monkeypatch.delenv("COLOPHON_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "colophon"
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "xdg", tmp_path / "xdg" / "colophon")] == [0o700] * 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(cache_directory.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert cache_dir().parent == tmp_path / "temporary"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_directory_that_others_can_write_is_refused(mode: int, empty_cache: Path) -> None:
    empty_cache.mkdir()
    empty_cache.chmod(mode)
    with pytest.raises(
        ModelCacheError, match=rf"cache: other users can write to the cache \(mode {mode:04o}\); run chmod"
    ):
        cache_dir()
    empty_cache.chmod(0o755)  # others may read: there are no secrets in it
    assert cache_dir() == empty_cache
    (empty_cache / "sha256").mkdir()
    (empty_cache / "sha256").chmod(mode)
    with pytest.raises(ModelCacheError, match="cache/sha256: other users can write"):
        remembered_sha256(__file__)


def test_a_directory_of_another_user_is_refused(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_dir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(
        ModelCacheError, match="cache: the cache belongs to another user; set COLOPHON_CACHE_DIR to a new"
    ):
        cache_dir()


def test_links(empty_cache: Path, tmp_path: Path) -> None:
    """The cache may be a link to a directory of this user; in it there are none."""
    (tmp_path / "own").mkdir(mode=0o700)
    empty_cache.symlink_to(tmp_path / "own")
    assert cache_dir() == empty_cache
    (tmp_path / "elsewhere").mkdir()
    (empty_cache / "sha256").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelCacheError, match="cache/sha256: not a directory; delete it"):
        remembered_sha256(__file__)
    assert not any((tmp_path / "elsewhere").iterdir())
    empty_cache.unlink()
    (tmp_path / "own").chmod(0o777)
    empty_cache.symlink_to(tmp_path / "own")
    with pytest.raises(ModelCacheError, match="other users can write"):
        cache_dir()


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


@pytest.mark.parametrize("content", [b"", b"0" * 63, b"0" * 65, b"0" * 63 + b"\n", b"A" * 64, b"\xff" * 64, None])
def test_a_note_is_64_hexadecimal_digits(content: bytes | None, empty_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    right = remembered_sha256(path)
    (note,) = (empty_cache / "sha256").glob("*.txt")
    assert note.stat().st_mode & 0o777 == 0o600
    note.unlink()
    if content is None:
        (tmp_path / "other").write_text("1" * 64)
        note.symlink_to(tmp_path / "other")
    else:
        note.write_bytes(content)
    assert remembered_sha256(path) == right
    assert note.read_text() == right
    assert not note.is_symlink()


def test_a_file_that_is_written_to_meanwhile_gets_no_note(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")

    def written(path: Path) -> str:
        digest = file_sha256(path)
        path.write_bytes(b"abcd")
        return digest

    monkeypatch.setattr(model_cache, "file_sha256", written)
    remembered_sha256(path)
    assert not any((empty_cache / "sha256").glob("*.txt"))


def test_a_lock_is_no_link_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    victim, lock = tmp_path / "victim", tmp_path / "x.lock"
    victim.write_text("precious")
    lock.symlink_to(victim)
    with cache_lock.locked(lock):
        pass
    lock.unlink()
    os.mkfifo(lock)
    with cache_lock.locked(lock):
        pass
    lock.unlink()
    lock.hardlink_to(victim)
    with cache_lock.locked(lock):
        pass
    assert victim.read_text() == "precious"


def test_a_lock_without_a_sign_of_life_is_named_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_lock, "SILENT_SECONDS", 0.0)
    lock = tmp_path / "x.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.warns(RuntimeWarning, match=rf"x\.lock: (process {os.getpid()}.*|another process) has the lock"),
            cache_lock.locked(lock),
        ):
            pass


def test_the_owner_of_a_lock_touches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_lock, "_BEAT_SECONDS", 0.0)
    touched = threading.Event()
    monkeypatch.setattr(os, "utime", lambda _: touched.set())
    with cache_lock.locked(tmp_path / "x.lock"):
        assert touched.wait(10)


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
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700


TEXTS = pa.array(["theorem proof lol", "zzq the energy", "never"])


def tables_of(cache: Path) -> Path:
    (directory,) = (path for path in (cache / "fasttext").iterdir() if path.is_dir())
    return directory


def zero_the_second_half(path: Path) -> None:
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(size // 2)
        file.write(bytes(size - size // 2))


def restore_times(damage: Callable[[Path], object]) -> Callable[[Path], None]:
    def damaged(path: Path) -> None:
        status = path.stat()
        damage(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    return damaged


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "half": restore_times(zero_the_second_half),
    "zeroed": restore_times(lambda path: path.write_bytes(bytes(path.stat().st_size))),
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:-2] + bytes([path.read_bytes()[-2] ^ 1, 0])),
    "link": lambda path: path.symlink_to(path.rename(path.parent.parent / "elsewhere")),
    "directory": lambda path: (path.unlink(), path.mkdir()),
    "FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize(
    ("name", "damages"),
    [("softmax.bin", list(DAMAGE)), ("chars_wide_pruned.ftz", ["missing", "half"]), ("chars_pruned.ftz", ["missing"])],
)
def test_any_damage_to_a_file_is_found_and_mended(
    name: str, damages: list[str], kinds: Path, empty_cache: Path
) -> None:
    right = FastTextModel(kinds / name).probabilities(TEXTS)
    directory = tables_of(empty_cache)
    files = sorted(path.name for path in directory.iterdir())
    contents = {file: (directory / file).read_bytes() for file in files}
    for file in files:
        for kind in damages:
            DAMAGE[kind](directory / file)
            np.testing.assert_array_equal(FastTextModel(kinds / name).probabilities(TEXTS), right, err_msg=kind)
            assert {path.name: path.read_bytes() for path in directory.iterdir()} == contents, (file, kind)


def test_a_model_that_changes_while_its_tables_are_built_leaves_none(
    models: Path, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced_before(*arguments: Any, **options: Any) -> Any:
        shutil.copy(models / "hs.bin", model)
        return build_model(read_layout(model), **options)

    model = tmp_path / "model.bin"
    shutil.copy(models / "softmax.bin", model)
    kept = FastTextModel(model)
    with monkeypatch.context() as patch:
        patch.setattr(cached_tables, "build_model", replaced_before)
        with pytest.raises(AnnotatorError, match=r"model\.bin: the file has changed while its tables were built"):
            kept.load()
    assert not any(path.is_dir() for path in (empty_cache / "fasttext").iterdir())


def test_files_of_other_models_are_found(kinds: Path, empty_cache: Path) -> None:
    names = ("softmax.bin", "hs.bin")
    right = [FastTextModel(kinds / name).probabilities(TEXTS) for name in names]
    one, other = (path for path in (empty_cache / "fasttext").iterdir() if path.is_dir())
    for file in ("rows.npy", "numbers.json"):
        (one / file).replace(one / "kept")
        (other / file).replace(one / file)
        (one / "kept").replace(other / file)
        for name, expected in zip(names, right, strict=True):
            np.testing.assert_array_equal(FastTextModel(kinds / name).probabilities(TEXTS), expected)
    one.rename(empty_cache / "x")
    other.rename(one)
    (empty_cache / "x").rename(other)
    for name, expected in zip(names, right, strict=True):
        np.testing.assert_array_equal(FastTextModel(kinds / name).probabilities(TEXTS), expected)


@pytest.mark.parametrize("is_signed", [False, True])
def test_hostile_numbers(is_signed: bool, models: Path, empty_cache: Path) -> None:
    """Another number in `numbers.json`, with and without the sha256 that fits: no crash, and no other score."""
    model = models / "softmax.bin"
    right = FastTextModel(model).probabilities(TEXTS)
    path = tables_of(empty_cache) / "numbers.json"
    content = path.read_text()
    changes: list[tuple[tuple[str, ...], Any]] = [(("shape",), None), (("tables",), []), (("label_counts",), 7)]
    changes += [(("tables", "rows"), {}), (("tables", "rows", "sha256"), "../x"), (("inputs", "codes"), "x")]
    changes += [(("shape", "inverse"), -1), (("tables", "rows", "bytes"), 10**30), (("tables", "slots", "shape"), [2])]
    if not is_signed:
        numbers = {"num_words": 10**6, "stride": 4096, "hash_buckets": 2**31, "slot_shift": 0, "max_chars": 1000}
        changes += [(("shape", name), number) for name, number in numbers.items()]
    for place, value in changes:
        numbers = json.loads(content)
        inner: Any = numbers
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        if is_signed:
            del numbers["sha256"]
            numbers["sha256"] = fingerprint(numbers)
        path.write_text(json.dumps(numbers))
        np.testing.assert_array_equal(FastTextModel(model).probabilities(TEXTS), right, err_msg=str(place))
        assert path.read_text() == content, place
    for text in ("", "[]", "{}", "null", "[" * 100_000, '{"sha256": 1}'):
        path.write_text(text)
        np.testing.assert_array_equal(FastTextModel(model).probabilities(TEXTS), right)


def test_tables_are_read_again_after_a_start_of_the_machine(
    models: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(model_cache, "file_sha256", lambda path: (read.append(path.name), file_sha256(path))[1])
    for boot, expected in (("1", 3), ("1", 0), ("2", 2), (None, 2), (None, 2)):
        monkeypatch.setattr(model_cache, "_boot_id", lambda boot=boot: boot)
        FastTextModel(models / "softmax.bin").load()
        assert len(read) == expected, "the model once, slots.npy and rows.npy once for each start"
        read.clear()
