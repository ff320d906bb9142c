"""Every file of a run's state, damaged in every way: one line with its path and what to do, or it is written again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.pipeline.project import Called, colophon, quarantine, run

QUALITY = """
[annotators.quality]
type = "fasttext"
model = "quality.bin"
score = { probability_of = "high" }
bins = { quantiles = 3, sample = 1000 }

[pack]"""


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def content(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": content(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a list": content(b"[1, 2]"),
    "an empty object": content(b"{}"),
    "not UTF-8": content(b'{"a": "\xff\xfe"}'),
    "100,000 levels of an object": content(b'{"settings":' * 100_000),
    "not a number": content(b'{"settings": NaN, "calibration": {"edges": [NaN]}, "config": NaN}'),
    "a long number": content(b'{"settings": ' + b"9" * 10_000 + b"}"),
    "other types": content(b'{"settings": {}, "calibration": 5, "config": [], "masked_ids": {}}'),
    "a directory": as_directory,
    "a pipe": as_pipe,
}
RUN = ("run", "recipe.toml", "--executor", "inline")
# Without `shuffled`, for which one held-out document is too few: which ones are held out depends on the place.
EVALUATE = ("evaluate", "recipe.toml", "--name", "tiny", "--documents", "5", "--conditions", "none,true")
FILES: dict[str, Sequence[Sequence[str]]] = {
    "manifest.json": [("status", "recipe.toml"), ("verify", "recipe.toml"), EVALUATE],
    "calibration/quality.json": [RUN, ("status", "recipe.toml"), ("verify", "recipe.toml"), (*RUN, "--rebuild")],
    "records/tokens/.settings.json": [RUN, (*RUN, "--dry-run"), ("status", "recipe.toml")],
    "records/annotations/quality/.settings.json": [RUN],
    ".lock": [("status", "recipe.toml")],
    "quarantine.jsonl": [("status", "recipe.toml")],
    "report/summary.json": [("status", "recipe.toml")],
    "training/tiny/config.json": [EVALUATE],
    "training/tiny/checkpoints/step-00000001/state.json": [EVALUATE, ("train", "recipe.toml", "--resume")],
    "training/tiny/metrics.jsonl": [("plot", "recipe.toml")],
}
"""File to the commands that read it."""


@pytest.fixture(scope="module")
def trained(templates: Path, tmp_path_factory: pytest.TempPathFactory, quality_model: Path) -> Iterator[Path]:
    """A finished run with calibrated bins and a trained model, as working directory."""
    root = tmp_path_factory.mktemp("trained") / "project"
    shutil.copytree(templates / "fresh", root)
    shutil.copy(quality_model, root / "quality.bin")
    recipe = root / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("\n[pack]", QUALITY, 1))
    here = Path.cwd()
    os.chdir(root)
    called = [run(), colophon("train", "recipe.toml")]
    assert [each.code for each in called] == [0, 0], called
    yield root
    os.chdir(here)


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_state_file_is_one_line_or_written_again(trained: Path, file: str) -> None:
    path = Path("out") / file
    kept = path.read_bytes() if path.exists() else b"{}"
    problems = []
    for damage, apply in DAMAGES.items():
        for arguments in FILES[file]:
            path.write_bytes(kept)
            apply(path)
            called = colophon(*arguments)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if called.code and not is_named(called, file):
                problems.append((damage, arguments[0], called.code, called.err))
    path.write_bytes(kept)
    assert problems == []


@pytest.mark.parametrize("damage", ["truncated", "a pipe"])
@pytest.mark.parametrize(
    ("pattern", "commands"),
    [
        ("records/segment-*", [RUN, ("status", "recipe.toml")]),
        ("manifest/tokens-*", [("verify", "recipe.toml"), EVALUATE]),
        ("manifest/partitions-*", [("verify", "recipe.toml")]),
    ],
)
def test_a_damaged_table_is_one_line(
    trained: Path, pattern: str, commands: Sequence[Sequence[str]], damage: str
) -> None:
    path = next(Path("out").glob(pattern))
    kept = path.read_bytes()
    try:
        DAMAGES[damage](path)
        for arguments in commands:
            called = colophon(*arguments)
            assert is_named(called, str(path.relative_to("out"))), called
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(kept)


def is_named(called: Called, file: str) -> bool:
    """Whether an error is one line with the path (of a checkpoint: its directory) and what to do."""
    if "was written with other settings" in called.err:  # valid JSON: the output's directory is named
        file = ""
    place = file.removesuffix("/state.json")
    if file.endswith("metrics.jsonl"):  # lines that are damaged are left out; there is nothing to do
        return called.code == 2 and "--debug" not in called.err
    remedies = (
        "elete it",
        "emove it",
        "writes it again",
        "Train the model again",
        "`colophon run`",
        "--rebuild replaces",
    )
    is_line = called.err.count("\n") == 1 and "--debug" not in called.err
    return called.code == 2 and is_line and place in called.err and any(map(called.err.__contains__, remedies))


def test_the_remedy_works(trained: Path) -> None:
    path = Path("out/calibration/quality.json")
    path.write_text("{")
    assert run().code == 2
    path.unlink()
    assert run().code == 0
    Path("out/records/tokens/.settings.json").write_text("{")
    assert run().code == 0


@pytest.mark.parametrize("name", ["step-abc", "step-", "step-00000001 (copy)", ".step-9.tmp"])
def test_directories_of_odd_names_are_no_checkpoints(trained: Path, name: str) -> None:
    odd = Path("out/training/tiny/checkpoints") / name
    odd.mkdir()
    called = colophon(*EVALUATE)
    odd.rmdir()
    assert (called.code, called.err) == (0, "")


NEW_LAYOUT = ("--set", 'layouts.new={position="append",template="{url}",max_metadata_tokens=24}')


@pytest.mark.parametrize("pattern", ["tokens/*.arrow", "annotations/url/*.parquet"])
def test_a_damaged_file_that_is_packed_is_named_and_written_again(finished: Path, pattern: str) -> None:
    path = sorted(Path("out").glob(pattern))[0]
    path.write_bytes(bytes(path.stat().st_size))  # what a power cut can leave; a plan trusts the size
    assert run(*NEW_LAYOUT).code == 3
    (entry,) = quarantine()
    assert entry.reason.startswith(f"{Path.cwd() / path}: damaged: ")
    assert entry.reason.endswith(". Delete it; the same command writes it again")
    path.unlink()
    assert run(*NEW_LAYOUT).code == 0
    assert colophon("verify", "recipe.toml", *NEW_LAYOUT).code == 0


def test_a_damaged_file_that_is_summarized_is_one_line(finished: Path) -> None:
    path = sorted(Path("out").glob("annotations/url/*.parquet"))[1]
    path.write_bytes(bytes(path.stat().st_size))
    Path("out/report/summary.json").unlink()
    called = run()
    assert called.code == 2
    assert called.line.startswith(f"{path}: damaged: ")
    assert called.line.endswith(". Delete it; the same command writes it again")
    path.unlink()
    assert run().code == 0
