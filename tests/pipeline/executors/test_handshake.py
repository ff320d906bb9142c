"""A worker's machine is compared with the driver's: code, files, modules, and the directories that both must see."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from colophon.annotators.fasttext import model_cache
from colophon.pipeline.executors.handshake import (
    Checked,
    Probe,
    Requirements,
    check_machine,
    differences,
    full_greeting,
    required_file,
)
from colophon.shards.common.digests import file_sha256


def test_the_same_installation_has_no_differences() -> None:
    here = full_greeting()
    assert len(here.code) == 64
    assert dict(here.libraries)["pyarrow"] != "none"
    assert differences(here, full_greeting("10.0.0.3")) == []


def test_a_machine_like_the_drivers_lacks_nothing(tmp_path: Path) -> None:
    model = tmp_path / "q.bin"
    model.write_bytes(b"model")
    module = sys.modules[__name__]
    modules = ((module.__name__, file_sha256(Path(str(module.__file__)))),)
    wanted = Requirements(files=(required_file(str(model)),), modules=modules, inputs=(str(model),))
    assert check_machine(wanted, probe="") == Checked(())


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "{} is missing"),
        (b"a longer model", "{} has 14 bytes, the driver's 5"),
        (b"other", "{} differs from the driver's (sha256)"),
    ],
)
def test_a_file_that_is_missing_or_different_is_named(tmp_path: Path, content: bytes | None, line: str) -> None:
    model = tmp_path / "q.bin"
    model.write_bytes(b"model")
    wanted = Requirements(files=(required_file(str(model)),))
    model.unlink()
    if content is not None:
        model.write_bytes(content)
    assert check_machine(wanted, probe="") == Checked((line.format(model),))


def test_what_else_a_machine_lacks_is_named(tmp_path: Path) -> None:
    wanted = Requirements(modules=((__name__, "0"), ("no_such_module", "0")), inputs=(f"{tmp_path}/a.parquet",))
    assert check_machine(wanted, probe="").lacking == (
        f"the module {__name__} differs from the driver's",
        "the module no_such_module is missing",
        f"the input {tmp_path}/a.parquet is missing",
    )


def test_a_model_is_hashed_once_for_all_workers_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "q.bin"
    model.write_bytes(b"model")
    wanted = Requirements(files=(required_file(str(model)),))
    monkeypatch.setattr(model_cache, "file_sha256", lambda path: pytest.fail("hashed a second time"))
    for _ in range(3):
        assert check_machine(wanted, probe="") == Checked(())


def test_a_shared_directory_is_probed_in_both_directions_and_left_clean(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    probe = Probe()
    probe.write((str(shared),))
    checked = check_machine(Requirements(directories=(str(shared),)), probe=probe.name)
    assert len(checked.written) == 1
    assert probe.unshared(checked) is None
    for directory in (own, shared / "missing"):
        assert check_machine(Requirements(directories=(str(directory),)), probe=probe.name).unshared == str(directory)
    probe.remove()
    assert list(shared.iterdir()) == []
    gone = check_machine(Requirements(directories=(str(shared),)), probe=probe.name)
    assert probe.unshared(gone) == str(shared)
