"""Plain text files: a file is a document, with its path as id."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs import partitions
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partitions import Inputs, plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.schema import InputFormat, InputSection
from tests.pipeline.project import colophon, manifest, quarantine, redone, run, snapshot

NEEDS = (
    ColumnNeed("text", "text"),
    ColumnNeed("id", "id", required=False),
    ColumnNeed("file_path", "file_path", required=False),
)
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
}
TEXT = "Größe\r\n\tand a second line\n\n"
UNASKED = "text file (format = 'text' reads it)"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()


def planned(*paths: str, format: InputFormat | None = None, limit: int = 1000) -> Inputs:
    config = InputSection(paths=list(paths), format=format, max_document_bytes=limit)
    return plan_inputs(config, needs=NEEDS)


def read(*paths: str, format: InputFormat | None = None, limit: int = 1000) -> list[tuple[str, ...]]:
    parts = planned(*paths, format=format, limit=limit).partitions
    batches = [batch for part in parts for batch in PartitionReader(part, NEEDS, stage="test")]
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_file_is_a_document_with_its_path_as_id(suffix: str) -> None:
    path = f"data/a.TXT{suffix}"
    Path(path).write_bytes(COMPRESSIONS[suffix](TEXT.encode()))
    assert read(path) == [(TEXT, path, path)]


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", ""), (b"\n", "\n"), (b"\xef\xbb\xbfa", "a"), (b"\xef\xbb\xbf", ""), (b"a\0b", "a\0b"), (b"{\n", "{\n")],
)
def test_the_text_is_the_content_without_a_byte_order_mark(content: bytes, text: str) -> None:
    Path("data/a.txt").write_bytes(content)
    assert [row[0] for row in read("data/a.txt")] == [text]


@pytest.mark.parametrize(("size", "mark"), [(1000, b""), (1000, b"\xef\xbb\xbf")])
def test_a_text_of_the_largest_size_is_read(size: int, mark: bytes) -> None:
    Path("data/a.txt").write_bytes(mark + b"x" * size)
    assert [len(row[0]) for row in read("data/a.txt")] == [size]


@pytest.mark.parametrize(
    ("path", "format", "read_files"),
    [
        ("data", None, ["data/b.jsonl"]),
        ("data/*", None, ["data/b.jsonl"]),
        ("data/**", None, ["data/b.jsonl"]),
        ("data/a.txt", None, ["data/a.txt"]),
        ("data/a.t*", None, None),
        ("data/*.txt", None, ["data/a.txt"]),
        ("data/*.txt*", None, ["data/a.txt", "data/c.txt.gz"]),
        ("data/*.md", "text", ["data/notes.md"]),
        ("data", "text", ["data/a.txt", "data/b.jsonl", "data/c.txt.gz", "data/notes.md"]),
    ],
)
def test_text_files_are_read_where_a_path_or_the_format_asks_for_them(
    path: str, format: InputFormat | None, read_files: list[str] | None
) -> None:
    """In a search for data they are mostly licences and notes."""
    for name in ("a.txt", "b.jsonl", "notes.md"):
        Path("data", name).write_text('{"text": "a"}\n')
    Path("data/c.txt.gz").write_bytes(gzip.compress(b"c"))
    if read_files is None:
        with pytest.raises(
            UsageError, match=r"no data file in it\. Left aside: text file \(format = .text. reads it\)"
        ):
            planned(path, format=format)
        with pytest.raises(UsageError, match=r'text files too, such as paths = \["data/\*\.txt"\]$'):
            planned(path, format=format)
        return
    inputs = planned(path, format=format)
    assert [part.source for part in inputs.partitions] == read_files
    kinds = {one.kind: one.count for one in inputs.left_aside}
    assert kinds.get(UNASKED, 0) == (2 if "b.jsonl" in read_files[0] else 0)


RECIPE = """
[input]
paths = ["data/*.txt*"]
max_document_bytes = 50
[output]
path = "out"
[annotators.place]
type = "columns"
columns = ["file_path"]
[tokenizer]
name = "tekken"
[pack]
sequence_length = 256
[layouts.named]
position = "prepend"
template = "{file_path}"
"""


def test_a_run_over_text_files() -> None:
    contents = {
        "good.txt": b"a text",
        "empty.txt": b"",
        "large.txt": b"x" * 51,
        "bomb.txt.gz": gzip.compress(b"x" * 10_000_000),
        "latin.txt": "Größe".encode("latin-1"),
        "wide.txt": "Größe".encode("utf-16"),
        "cut.txt.gz": gzip.compress(b"a text")[:-9],
    }
    for name, content in contents.items():
        Path("data", name).write_bytes(content)
    Path("recipe.toml").write_text(RECIPE)
    assert run().code == 3
    assert {entry.source.removeprefix("data/"): entry.reason.split(":")[0] for entry in quarantine()} == {
        "large.txt": "the file, too large for max_document_bytes = 50. Raise input.max_document_bytes to read it",
        "bomb.txt.gz": "the file, too large for max_document_bytes = 50. Raise input.max_document_bytes to read it",
        "latin.txt": "not UTF-8",
        "wide.txt": "UTF-16, not UTF-8. Convert it",
        "cut.txt.gz": "Compressed file ended before the end-of-stream marker was reached",
    }
    records = manifest().annotators["place"].records
    rows = [row for record in records for row in pq.read_table(Path("out", record.path)).to_pylist()]
    assert rows == [{"id": path, "file_path": path} for path in ("data/empty.txt", "data/good.txt")]
    for options in ((), ("--inputs",), ("--deep", "--executor", "inline")):
        assert colophon("verify", "recipe.toml", *options).code in (0, 3)
    exported = colophon("export", "recipe.toml", "--to", "exported", "--executor", "inline")
    assert exported.code in (0, 3), exported.err
    rows = [row for path in sorted(Path("exported").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert [(row["id"], row["text"]) for row in rows] == [("data/empty.txt", ""), ("data/good.txt", "a text")]

    before = snapshot(Path("out"))
    assert run().code == 3
    assert redone(before, snapshot(Path("out"))) == set()
    run("--set", f"input.paths={Path.cwd()}/data/*.txt*")  # the ids, which are the paths, differ
    assert len([path for path in redone(before, snapshot(Path("out"))) if "tokens" in path]) == 2


def test_columns_that_a_text_file_does_not_have_are_an_error() -> None:
    Path("data/a.txt").write_text("a")
    Path("recipe.toml").write_text(
        RECIPE.replace('columns = ["file_path"]', 'columns = ["url"]').replace("{file_path}", "{url}")
    )
    assert run().line.endswith("the first, data/a.txt: no column 'url'; columns: text, id, file_path")


def test_very_many_text_files_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        Path(f"data/{number}.txt").write_text("a")
    assert planned("data/*.txt").notes == ()
    monkeypatch.setattr(partitions, "_MANY_TEXT_FILES", 3)
    (note,) = planned("data/*.txt").notes
    assert note.startswith("input: 4 text files are one partition each")


def test_init_proposes_a_recipe_for_text_files() -> None:
    Path("data/a.txt").write_text("a text of a file")
    called = colophon("init", "data/*.txt", "--to", "recipe.toml", "--json")
    assert called.code == 0, called.err
    planned = colophon("run", "recipe.toml", "--dry-run", "--no-probe")
    assert planned.code == 0, planned.err
    assert "data/a.txt" in planned.out
