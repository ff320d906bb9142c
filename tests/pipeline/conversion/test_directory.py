"""A conversion is complete or absent: after errors, kills and full disks; nothing of somebody else's is replaced."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colophon.pipeline.conversion import conversion as conversions
from colophon.pipeline.conversion.conversion import Conversion
from colophon.pipeline.conversion.files import OutputFile
from colophon.pipeline.errors import StoreError, UsageError
from tests.pipeline.project import colophon


def converted(run: Path, directory: Path, *, to: str = "npy", layout: str = "plain", overwrite: bool = False) -> Any:
    return Conversion(run, layout=layout, to=to).write(directory, overwrite=overwrite)


def content(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def failing(blocks: Any) -> Any:
    def some(*arguments: Any) -> Iterator[Any]:
        yield next(blocks(*arguments))
        raise KeyboardInterrupt

    return some


@pytest.mark.parametrize("exists", [False, True])
def test_an_interrupted_conversion_leaves_what_was_there(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    target = tmp_path / "converted"
    if exists:
        converted(packed, target)
    before = content(tmp_path)
    monkeypatch.setattr(conversions, "blocks", failing(conversions.blocks))
    with pytest.raises(KeyboardInterrupt):
        converted(packed, target, to="mds", overwrite=exists)
    assert content(tmp_path) == before
    assert target.exists() == exists


def test_leftovers_of_killed_processes_are_removed_and_those_of_running_ones_stay(packed: Path, tmp_path: Path) -> None:
    killed, running, other = (tmp_path / f".{name}.{n * 12}.tmp" for name, n in (("c", "a"), ("c", "b"), ("d", "a")))
    for directory in (killed, running, other):
        directory.mkdir()
        (directory / "ids.bin").write_bytes(b"half")
    handle = os.open(running, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        converted(packed, tmp_path / "c")
    finally:
        os.close(handle)
    assert {path.name for path in tmp_path.iterdir()} == {"c", running.name, other.name}


def test_a_disk_that_loses_bytes_is_found(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = OutputFile.close

    def lose_a_byte(file: OutputFile) -> None:
        close(file)
        if file.path.name.endswith(".ds"):
            file.path.write_bytes(b"\0" + file.path.read_bytes()[1:])

    monkeypatch.setattr(OutputFile, "close", lose_a_byte)
    with pytest.raises(StoreError, match=r"part-00000.ds: the disk returned other bytes than were written"):
        converted(packed, tmp_path / "converted", to="nanotron")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OutputFile, "write", full)
    called = colophon("convert", str(packed), "--layout", "plain", "--to", "mds", "--output", str(tmp_path / "c"))
    assert called.code == 1
    assert "No space left on device" in called.err
    assert called.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_conversion_is_replaced_on_request_alone(packed: Path, tmp_path: Path) -> None:
    target = tmp_path / "converted"
    converted(packed, target)
    before = content(target)
    with pytest.raises(UsageError, match=r"conversion of layout 'plain' to npy already. --overwrite replaces it"):
        converted(packed, target, to="mds")
    assert content(target) == before
    converted(packed, target, to="mds", overwrite=True)
    assert json.loads((target / "conversion.json").read_text())["format"] == "mds"
    assert [path.name for path in tmp_path.iterdir()] == ["converted"]
    assert not (target / "ids").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["mine.txt", "data/mine.txt"])
def test_files_of_others_are_never_replaced(packed: Path, tmp_path: Path, name: str, overwrite: bool) -> None:
    (tmp_path / "c" / name).parent.mkdir(parents=True)
    (tmp_path / "c" / name).write_text("mine")
    with pytest.raises(UsageError, match="has files that are not of a conversion"):
        converted(packed, tmp_path / "c", overwrite=overwrite)
    assert (tmp_path / "c" / name).read_text() == "mine"


def test_a_file_beside_those_of_a_conversion_stops_its_replacement(packed: Path, tmp_path: Path) -> None:
    converted(packed, tmp_path / "c")
    (tmp_path / "c" / "notes.md").write_text("mine")
    with pytest.raises(UsageError, match=r"has files besides those of its conversion: notes.md. Move them"):
        converted(packed, tmp_path / "c", overwrite=True)


def test_a_conversion_stays_out_of_the_run(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is in the run's output"):
        converted(packed, packed / "packed" / "npy")
    assert not (packed / "packed" / "npy").exists()


def test_the_command(packed: Path, tmp_path: Path) -> None:
    options = ("--layout", "prepend", "--to", "megatron", "--output", str(tmp_path / "c"))
    called = colophon("convert", str(packed), *options)
    assert (called.code, called.err) == (0, "")
    assert "in 6 files for megatron-core; all read back" in called.out
    assert "not in this format: GPTDataset reads ids alone" in called.out
    to_npy = ("--layout", "prepend", "--to", "npy", "--output", str(tmp_path / "npy"))
    assert "(it would not hold them; the rows as written have none)" in colophon("convert", str(packed), *to_npy).out
    as_json = colophon("convert", str(packed), *options, "--overwrite", "--json")
    assert json.loads(as_json.out)["rows"] == json.loads((tmp_path / "c" / "conversion.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("run", "layout", "message"),
    [
        ("run", "plane", "has no layout 'plane'; available: append, masked, meta_tokens, plain, prepend. Did you mean"),
        ("missing", "plain", "is not the output of a finished run"),
        ("run/manifest.json", "plain", "is a file. Give the output directory of a run"),
    ],
)
def test_wrong_arguments_are_one_line(packed: Path, tmp_path: Path, run: str, layout: str, message: str) -> None:
    called = colophon(
        "convert", str(packed.parent / run), "--layout", layout, "--to", "mds", "--output", str(tmp_path / "c")
    )
    assert called.code == 2
    assert message in called.err
    assert called.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
