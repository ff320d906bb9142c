"""Pieces of a JSONL file: the rows, ids and line numbers are those of the whole file, however it is cut."""

from __future__ import annotations

import codecs
import gzip
import json
import struct
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.jsonl import pieces
from colophon.pipeline.inputs.jsonl.pieces import cut
from colophon.pipeline.inputs.partitions import Inputs, plan_inputs
from colophon.pipeline.inputs.problems import problems_in_files
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.schema import InputSection
from colophon.shards.records import Record
from tests.pipeline.inputs.test_readers import reason_of
from tests.pipeline.servers import files_serving

NEEDS = (ColumnNeed("text", "text"), ColumnNeed("id", "id", required=False))
GOOD = [json.dumps({"text": "größe 🙂 " * n}, ensure_ascii=False) for n in (0, 1, 7)]
LINES = st.sampled_from(
    [*GOOD, '{"id": "own", "text": "a"}', "", " ", "nonsense", '{"txt": 1}', '{"text": "' + "x" * 90 + '"}']
)


@pytest.fixture(autouse=True, scope="module")
def pieces_of_any_size() -> Iterator[None]:
    with mock.patch.object(pieces, "MIN_PIECE_BYTES", 1):
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(path: str, *, size: int) -> Inputs:
    return plan_inputs(InputSection(paths=[path], partition_bytes=size), needs=NEEDS)


def read(inputs: Inputs) -> tuple[list[Any], int, set[tuple[int, str]]]:
    """The rows of all partitions, the number of lines that are no documents, and the place and reason of some."""
    rows, records = [], []
    for partition in inputs.partitions:
        reader = PartitionReader(partition, NEEDS, stage="test")
        rows += [row for batch in reader for row in batch.to_pylist()]
        counts = reader.counts([])
        records.append(_record(partition.name, counts, reader.problems))
    problems = list(problems_in_files(records))
    return rows, sum(p.count for p in problems), {(e.line or 0, e.reason) for p in problems for e in p.examples or [p]}


def _record(partition: str, counts: dict[str, int], problems: list[Any]) -> Record:
    return Record(
        output="tokens",
        partition=partition,
        path="p",
        rows=0,
        bytes=0,
        sha256="",
        fingerprint="",
        counts=counts,
        problems=problems,
    )


def seekable(frames: Sequence[bytes], sizes: Sequence[int], *, checksums: bool) -> bytes:
    """The frames with a table in zstd's seekable format."""
    entries = b"".join(
        struct.pack("<II", len(f), n) + b"\0" * 4 * checksums for f, n in zip(frames, sizes, strict=True)
    )
    table = entries + struct.pack("<IBI", len(frames), 0x80 * checksums, 0x8F92EAB1)
    return b"".join(frames) + struct.pack("<II", 0x184D2A5E, len(table)) + table


def compressed(content: bytes, cuts: Sequence[int], kind: str) -> bytes:
    """The content in frames that begin at `cuts`; `streamed` frames do not state their sizes."""
    edges = [0, *sorted({c for c in cuts if 0 < c < len(content)}), len(content)]
    parts = [content[begin:end] for begin, end in pairwise(edges)]
    if kind in ("streamed", "table of streamed"):
        objects = [zstandard.ZstdCompressor().compressobj() for _ in parts]
        frames = [one.compress(part) + one.flush() for one, part in zip(objects, parts, strict=True)]
    else:
        frames = [zstandard.ZstdCompressor(write_checksum=bool(n % 2)).compress(part) for n, part in enumerate(parts)]
    if "table" in kind:
        return seekable(frames, list(map(len, parts)), checksums=len(frames) % 2 == 0)
    skippable = struct.pack("<II", 0x184D2A53, 3) + b"abc"
    return b"".join(frame + skippable for frame in frames) if kind == "skippable" else b"".join(frames)


@given(
    content=st.builds(
        lambda lines, end, last, mark: codecs.BOM_UTF8 * mark + (end.join(lines) + end * last).encode(),
        st.lists(LINES, min_size=1, max_size=30).map(lambda lines: ['{"text": "first"}', *lines]),
        st.sampled_from(["\n", "\r\n"]),
        st.booleans(),
        st.booleans(),
    ),
    kind=st.sampled_from(["plain", "frames", "skippable", "table", "table of streamed", "streamed"]),
    cuts=st.lists(st.integers(1, 1500), max_size=12),
    size=st.integers(20, 700),
)
@example(content="\n".join(GOOD * 3).encode(), kind="plain", cuts=[], size=1)
@example(content="\r\n".join(GOOD * 3).encode(), kind="frames", cuts=list(range(200)), size=1)
@settings(max_examples=60)
def test_any_cut_gives_the_rows_and_problems_of_the_whole_file(
    content: bytes, kind: str, cuts: list[int], size: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/a.jsonl" if kind == "plain" else f"{folder}/a.jsonl.zst"
        Path(path).write_bytes(content if kind == "plain" else compressed(content, cuts, kind))
        whole, cut_up = planned(path, size=1 << 30), planned(path, size=size)
        assert len(whole.partitions) == 1
        (expected, found) = read(whole), read(cut_up)
        assert found[:2] == expected[:2]
        assert found[2] >= expected[2]
        assert len({partition.name for partition in cut_up.partitions}) == len(cut_up.partitions)
        if kind == "plain":
            assert len(cut_up.partitions) == -(-len(content) // size)
            assert [p.bytes for p in cut_up.partitions[:-1]] == [size] * (len(cut_up.partitions) - 1)
        if kind == "streamed":
            assert cut_up == whole


def test_ids_are_the_bytes_of_the_lines(here: Path) -> None:
    Path("a.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}\n')
    inputs = planned("a.jsonl", size=10)
    (file,) = {partition.file_name for partition in inputs.partitions}
    assert [row["id"] for row in read(inputs)[0]] == [f"{file}/0", f"{file}/15"]
    assert [partition.name for partition in inputs.partitions] == [f"{file}-0000{n}" for n in range(3)]


@pytest.mark.parametrize("suffix", ["", ".zst"])
def test_an_array_over_lines_is_refused_as_a_whole(here: Path, suffix: str) -> None:
    """A piece from its middle would have lines that are documents."""
    content = b'[\n{"text": "a"},\n' + b'{"text": "b"}\n' * 100
    Path(f"a.jsonl{suffix}").write_bytes(compressed(content, range(0, 1400, 14), "frames") if suffix else content)
    Path("b.jsonl").write_text('{"text": "good"}\n')
    inputs = plan_inputs(InputSection(paths=[f"a.jsonl{suffix}", "b.jsonl"], partition_bytes=200), needs=NEEDS)
    assert [partition.source for partition in inputs.partitions] == ["b.jsonl"]
    assert [entry.reason for entry in inputs.quarantine] == [
        "one JSON array, not an object on each line. Convert it: jq -c '.[]'"
    ]


def test_sizes_that_a_table_states_wrongly_are_found(here: Path) -> None:
    parts = [b'{"text": "a"}\n' * 20, b'{"text": "b"}\n' * 20]
    frames = [zstandard.ZstdCompressor(write_content_size=False).compress(part) for part in parts]
    for sizes in ((280, 281), (281, 280), (266, 280)):
        Path("a.jsonl.zst").write_bytes(seekable(frames, sizes, checksums=True))
        first, second = planned("a.jsonl.zst", size=280).partitions
        wrong = first if sizes[0] != 280 else second
        reason = reason_of(PartitionReader(wrong, NEEDS, stage="test"))
        assert reason.endswith(f"do not unpack to {max(sizes) if 266 not in sizes else 266} bytes")


def test_damage_at_the_end_of_a_piece_is_its_alone(here: Path) -> None:
    """The first line of the next frame is read by the piece before it."""
    parts = [(b'{"text": "%d"}\n' % n) * 100_000 for n in range(4)]
    frames = [bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(part)) for part in parts]
    frames[2][-1] ^= 1
    Path("a.jsonl.zst").write_bytes(b"".join(frames))
    partitions = planned("a.jsonl.zst", size=1).partitions
    readers = [PartitionReader(partition, NEEDS[:1], stage="test", has_content=False) for partition in partitions]
    assert "checksum" in reason_of(readers.pop(2))
    assert [sum(batch.num_rows for batch in reader) for reader in readers] == [100_001, 100_000, 99_999]


@pytest.mark.parametrize("content", [b"", b"\x28\xb5\x2f\xfd", b"no frame at all", zstandard.compress(b"a" * 400)[:-3]])
def test_a_file_that_is_not_what_its_headers_state_is_not_cut(here: Path, content: bytes) -> None:
    Path("a.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "a"}\n' * 9) + content + b"\0" * 9)
    size = Path("a.jsonl.zst").stat().st_size
    assert cut("a.jsonl.zst", size, piece_bytes=1) == ()


@pytest.mark.parametrize("sends_parts", [True, False])
def test_files_of_a_web_server_are_cut_if_it_sends_parts(here: Path, sends_parts: bool) -> None:
    content = b"".join(b'{"text": "%d"}\n' % n for n in range(100))
    parts = [content[begin : begin + 300] for begin in range(0, len(content), 300)]
    frames = list(map(zstandard.compress, parts))
    files = {
        "a.jsonl": content,
        "b.jsonl.zst": seekable(frames, list(map(len, parts)), checksums=False),
        "c.jsonl.zst": b"".join(frames),
    }
    with files_serving(files, sends_parts=sends_parts) as address:
        for name in files:
            inputs = planned(f"{address}/{name}", size=300)
            assert (len(inputs.partitions) > 1) == (sends_parts and name != "c.jsonl.zst")
            assert [row["text"] for row in read(inputs)[0]] == list(map(str, range(100)))


def test_large_files_that_are_not_cut_are_named(here: Path) -> None:
    content = b"".join(b'{"text": "%d"}\n' % n for n in range(100))
    Path("a.jsonl.gz").write_bytes(gzip.compress(content))
    Path("b.jsonl.zst").write_bytes(zstandard.compress(content))
    assert [line.partition(", the")[0] for line in planned("*", size=100).notes] == [
        "input: JSONL files larger than partition_bytes that are not cut: 2"
    ]
    assert planned("*", size=1000).notes == ()
