"""A small project as users have it: FineWeb-style Parquet, a tokenizer file, a recipe, and the command line.

Paths in the recipe are relative. Tests that need a finished run start from a copy of one, in the directory where it
was made.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from colophon.pipeline import cli
from colophon.pipeline.executors.base import Executor
from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.calibration import calibrated
from colophon.pipeline.runs.resolve import ResolvedRecipe, resolve
from colophon.pipeline.runs.run import Run, RunResult
from colophon.shards.manifest import Manifest, read_manifest
from colophon.shards.records import QuarantineEntry

RECIPE = """
[input]
paths = ["data/*.parquet"]
partition_bytes = 7000

[output]
path = "out"

[annotators.url]
[annotators.crawl]
[annotators.edu_score]

[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"

[pack]
sequence_length = 64

[layouts.plain]
position = "plain"

[layouts.prepend-url]
position = "prepend"
template = "{url}"
max_metadata_tokens = 24

[layouts.append-quality]
position = "append"
template = "{quality_fine} {crawl_year}"
max_metadata_tokens = 8

[layouts.meta-tokens]
position = "meta_tokens"

[train.tiny]
layout = "prepend-url"
model = "1m"
steps = 1
batch_size = 1
"""

LAYOUTS = ("plain", "prepend-url", "append-quality", "meta-tokens")
ROWS_OF_FILES = (80, 70, 50)
_ROW_GROUP = 16
_MERGES = (b"th", b"the", b"in", b"er", b" a", b" the", b"an", b"on", b"\xc3\xbc", b"ing")
_TEXT = "the reader ändert nothing in größe über and another column läuft on 東京 🙂 τέλος value of it ing other"
_SPECIAL = "<|endoftext|> <|context_begin|> <s>"


@dataclass(frozen=True)
class Called:
    """The exit code and output of a call of the command line."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of an error; fails if there is any other output on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert lines[0].startswith("colophon: ")
        return lines[0].removeprefix("colophon: ")


def colophon(*arguments: str) -> Called:
    """Call the real entry point in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        mock.patch.object(sys, "argv", ["colophon", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    return Called(int(code or 0), out.getvalue(), err.getvalue())


def run(*arguments: str, recipe: str = "recipe.toml") -> Called:
    """`colophon run` in this process without Ray."""
    return colophon("run", recipe, "--executor", "inline", *arguments)


def resolved_recipe(*overrides: str, recipe: str = "recipe.toml") -> ResolvedRecipe:
    """The recipe of the working directory, resolved."""
    return resolve(load_recipe(recipe, overrides=overrides), where=recipe)


def execute(
    *overrides: str,
    executor: Executor | None = None,
    stages: Sequence[str] = ("annotate", "tokenize", "pack"),
    rebuild: bool = False,
    strict: bool = False,
) -> RunResult:
    """Run the recipe of the working directory with the executor of a test."""
    resolved = calibrated(resolved_recipe(*overrides), write=True, log=lambda line: None, rebuild=rebuild)
    return Run(
        resolved,
        stages=stages,
        executor=executor or InlineExecutor(),
        console=Console(file=io.StringIO()),
        rebuild=rebuild,
        strict=strict,
    ).execute()


def manifest(output: str = "out") -> Manifest:
    """The manifest of a run."""
    return read_manifest(Path(output))


def quarantine(output: str = "out") -> list[QuarantineEntry]:
    """The entries of `quarantine.jsonl`."""
    lines = (Path(output) / "quarantine.jsonl").read_text(encoding="utf-8").split("\n")
    return [QuarantineEntry.model_validate_json(line) for line in lines if line]


def hashes(manifest: Manifest) -> dict[tuple[str, str], str]:
    """sha256 of every committed file by output and partition: the content of a run, in any directory."""
    outputs = manifest.outputs.values()
    return {(r.output, r.partition): r.sha256 for output in outputs for r in output.records}


def snapshot(root: Path = Path()) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file under `root`: equal snapshots mean that nothing was written."""
    found = (Path(folder) / name for folder, _, names in os.walk(root) for name in names)
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def redone(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    """The data files that were written between two snapshots of an output directory."""
    return {path for path, state in after.items() if _is_data(Path(path)) and before.get(path) != state}


def data_files(output: Path) -> set[Path]:
    """The files of all outputs; the run's own tables are no outputs."""
    return {path for path in output.rglob("*") if _is_data(path.relative_to(output))}


def _is_data(path: Path) -> bool:
    return path.suffix in (".parquet", ".arrow") and not {"records", "manifest"} & {*path.parts}


def line_places(path: str | Path) -> list[int]:
    """The bytes at which the lines of a file begin."""
    lines = Path(path).read_bytes().split(b"\n")
    return [0, *accumulate(len(line) + 1 for line in lines[:-1])]


def generated_id(path: str | Path, row: int) -> str:
    """The id of a row without one; of JSON lines `row` is one of `line_places`."""
    place = os.path.realpath(path)
    return f"{Path(place).name.split('.')[0]}-{sha256(os.fsencode(place)).hexdigest()[:32]}/{row}"


def directories(paths: set[str], *, output: str = "out") -> set[str]:
    """The directories of output files, relative to the output."""
    return {str(Path(path).parent.relative_to(output)) for path in paths}


def document(number: int) -> dict[str, Any]:
    """The document with this number; some have no text, URL, id, dump or score."""
    source = random.Random(number)
    text: str | None = " ".join(source.choices(_TEXT.split(), k=source.randrange(1, 40)))
    if number % 23 == 5:
        text = None
    elif number % 19 == 3:
        text = ""
    elif number % 17 == 2:
        text = f"{text}\x00 {_SPECIAL}\r\n"
    return {
        "text": text,
        "id": None if number % 29 == 4 else f"<urn:uuid:{number:08}>",
        "dump": "elsewhere" if number % 31 == 7 else f"CC-MAIN-{2013 + number % 12}-{number % 50:02}",
        "url": None if number % 13 == 6 else f"https://host{number % 9}.example.org/p/{number}?q=ü",
        "language": "en",
        "score": None if number % 11 == 8 else source.uniform(-0.5, 5.5),
    }


SCHEMA = pa.schema(
    [*((name, pa.string()) for name in ("text", "id", "dump", "url", "language")), ("score", pa.float64())]
)


def write_documents(path: Path, numbers: Sequence[int], *, row_group_size: int = _ROW_GROUP) -> None:
    """Write a Parquet file of numbered documents, with checksums."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([document(number) for number in numbers], SCHEMA)
    pq.write_table(table, path, row_group_size=row_group_size, write_page_checksum=True, compression="zstd")


def write_project(root: Path) -> None:
    """Write input, tokenizer file and recipe."""
    first = 0
    for file, rows in enumerate(ROWS_OF_FILES):
        write_documents(root / f"data/part-{file}.parquet", range(first, first + rows))
        first += rows
    write_tokenizer(root / "small.tiktoken")
    (root / "recipe.toml").write_text(RECIPE, encoding="utf-8")


def write_tokenizer(path: Path) -> None:
    """Write a vocabulary of the 256 bytes and some merges, in tiktoken's format."""
    tokens = [*(bytes([byte]) for byte in range(256)), *_MERGES]
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens))
    path.write_text("".join(lines))


def write_json_lines(path: Path, rows: Sequence[Any]) -> None:
    """Write one JSON value a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
