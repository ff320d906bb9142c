"""Hundreds of damaged files and unusual documents: no crash, no silent loss, and complete good files beside them.

Every example is a whole run. The law: each document of a damaged file is in the output or in the quarantine, and where
the format has checksums, the output equals the input.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from colophon.shards.arrow_files import list_values, read_table
from colophon.shards.records import QuarantineEntry
from tests.pipeline.project import (
    colophon,
    document,
    generated_id,
    hashes,
    line_places,
    manifest,
    resolved_recipe,
    run,
    write_documents,
    write_tokenizer,
)

RECIPE = """
[input]
paths = ["good.parquet", "data/*"]
partition_bytes = 700

[output]
path = "out"

[annotators.url]

[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"

[pack]
sequence_length = 32

[layouts.prepend-url]
position = "prepend"
template = "{url}"
max_metadata_tokens = 8
"""
NUM_GOOD, NUM_ROWS = 6, 40
MANY = 12
"""Damaged files per run: each adds a tenth of the time of a run without any."""
COLUMNS = ("text", "id", "url")
CHECKED = ("checked.parquet", "lines.jsonl.gz", "lines.jsonl.zst")
"""Formats in which a checksum covers the documents."""
Bytes = Callable[[bytes], bytes]


def few(examples: int) -> settings:
    """This many examples in the profile `ci`, in proportion more in others."""
    return settings(
        max_examples=max(1, examples * settings.default.max_examples // 100),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking an example would take hundreds of runs
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with one good file as the working directory, shared by the examples of a test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "colophon.pipeline.executors.worker.release_memory", lambda: None
    )  # takes half of the time of such a small run
    Path("recipe.toml").write_text(RECIPE)
    write_tokenizer(Path("small.tiktoken"))
    write_documents(Path("good.parquet"), range(NUM_GOOD))


@dataclass(frozen=True)
class FileResult:
    """The output of one input file."""

    documents: int
    content: dict[str, str]
    """sha256 of each partition's annotations and tokens."""
    quarantined: list[QuarantineEntry]


def results_of(files: dict[str, bytes]) -> dict[str, FileResult]:
    """Run over the good file and these, and check the laws that hold for any files."""
    for directory in ("out", "data"):
        shutil.rmtree(directory, ignore_errors=True)
    Path("data").mkdir()
    for name, content in files.items():
        Path("data", name).write_bytes(content)
    called = run()
    assert called.err == "", "a run that completes prints nothing on stderr"
    quarantined = quarantine()
    assert called.code == (3 if quarantined else 0)
    made = manifest()
    assert made.quarantine == quarantined
    assert {entry.source for entry in quarantined} <= {f"data/{name}" for name in files}
    assert all(entry.reason and "\n" not in entry.reason for entry in quarantined)
    sources = {partition.name: partition.source for partition in made.partitions}
    documents = dict.fromkeys(["good.parquet", *(f"data/{name}" for name in files)], 0)
    for record in made.outputs["tokens"].records:
        documents[sources[record.partition]] += record.rows
    assert documents["good.parquet"] == NUM_GOOD
    found = hashes(made)
    return {
        name: FileResult(
            documents=documents[f"data/{name}"],
            content={
                f"{stage} {partition}": sha256
                for (stage, partition), sha256 in found.items()
                if sources[partition] == f"data/{name}" and not stage.startswith("packed/")
            },
            quarantined=[entry for entry in quarantined if entry.source == f"data/{name}"],
        )
        for name in files
    }


def quarantine() -> list[QuarantineEntry]:
    """The entries of `quarantine.jsonl`, split at `\\n` only: keys of documents may contain other line ends."""
    path = Path("out/quarantine.jsonl")
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [QuarantineEntry.model_validate_json(line) for line in lines]


def rows() -> list[dict[str, Any]]:
    """Documents without nulls, which CSV cannot hold."""
    found = [document(100 + number) for number in range(NUM_ROWS)]
    texts = [(row["text"] or "nothing").replace("\0", "").replace("\r\n", "") for row in found]
    return [{"text": text, "id": f"id-{i}", "url": f"https://e.org/{i}?ü"} for i, text in enumerate(texts)]


def parquet(**options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows(), pa.schema([(name, pa.string()) for name in COLUMNS]))
    pq.write_table(table, sink, row_group_size=13, **options)
    return bytes(sink.getvalue())


def json_lines() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows()).encode()


def comma_separated() -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows())
    return file.getvalue().encode()


def arrow() -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows(), pa.schema([(name, pa.string()) for name in COLUMNS]))
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=13)
    return bytes(sink.getvalue())


@cache
def sound(name: str) -> bytes:
    """An undamaged file of `NUM_ROWS` documents in the format of its name."""
    return {
        "checked.parquet": lambda: parquet(compression="zstd", write_page_checksum=True),
        "unchecked.parquet": lambda: parquet(compression="none", use_dictionary=False),
        "lines.jsonl": json_lines,
        "lines.jsonl.gz": lambda: gzip.compress(json_lines(), mtime=0),
        "lines.jsonl.zst": lambda: zstandard.ZstdCompressor(write_checksum=True).compress(json_lines()),
        "rows.csv": comma_separated,
        "rows.arrow": arrow,
    }[name]()


FORMATS = ("checked.parquet", "unchecked.parquet", "lines.jsonl", "lines.jsonl.gz", "lines.jsonl.zst", "rows.arrow")


@st.composite
def damages(draw: st.DrawFn, size: int) -> Bytes:
    """A damage to a file of `size` bytes."""
    kind = draw(st.sampled_from(["flip", "flip", "flip", "flips", "cut", "zeros", "insert", "repeat", "append"]))
    # Heads and tails of files have the most structure.
    place = st.one_of(
        st.integers(0, size - 1), st.integers(0, min(64, size - 1)), st.integers(max(0, size - 64), size - 1)
    )
    at = draw(place)
    if kind in ("flip", "flips"):
        places = [at] if kind == "flip" else [at, *draw(st.lists(place, min_size=1, max_size=8))]
        masks = [draw(st.integers(1, 255)) for _ in places]
        return lambda content: flipped(content, dict(zip(places, masks, strict=True)))
    if kind == "cut":
        return lambda content: content[:at]
    count = draw(st.integers(1, 40))
    if kind == "zeros":
        return lambda content: content[:at] + bytes(len(content[at : at + count])) + content[at + count :]
    if kind == "repeat":
        return lambda content: content[: at + count] + content[at:]
    extra = draw(st.binary(min_size=1, max_size=16))
    return lambda content: content + extra if kind == "append" else content[:at] + extra + content[at:]


def flipped(content: bytes, masks: dict[int, int]) -> bytes:
    damaged = bytearray(content)
    for at, mask in masks.items():
        damaged[at] ^= mask
    return bytes(damaged)


def assert_nothing_lost(name: str, result: FileResult, content: bytes) -> None:
    """Check that the documents of the input are those of the output and the quarantine."""
    if name == "lines.jsonl":
        whole_file = [entry for entry in result.quarantined if entry.line is None]
        lines = sum(bool(line.strip()) for line in content.split(b"\n"))
        assert whole_file or result.documents + sum(entry.rows or 0 for entry in result.quarantined) == lines
        assert all(entry.rows == entry.count for entry in result.quarantined if entry.line is not None)
    elif name.endswith(".parquet"):
        whole_file = [entry for entry in result.quarantined if entry.partition is None]
        assert whole_file or result.documents + sum(entry.rows or 0 for entry in result.quarantined) == NUM_ROWS
    elif name.endswith((".gz", ".zst")):
        whole_file = [entry for entry in result.quarantined if entry.line is None]
        assert whole_file or result.documents + sum(entry.count for entry in result.quarantined) >= NUM_ROWS
    else:
        assert result.quarantined or result.documents == NUM_ROWS


@pytest.mark.parametrize("name", FORMATS)
def test_a_sound_file_is_read_completely(name: str) -> None:
    result = results_of({name: sound(name)})[name]
    assert (result.documents, result.quarantined) == (NUM_ROWS, [])


@pytest.mark.parametrize("name", FORMATS)
@few(3)
@given(data=st.data())
def test_a_damaged_file_loses_nothing_silently(name: str, data: st.DataObject) -> None:
    found = data.draw(st.lists(damages(len(sound(name))), min_size=1, max_size=MANY))
    files = {f"{i}-{name}": damage(sound(name)) for i, damage in enumerate(found)}
    for file, result in results_of(files).items():
        assert_nothing_lost(name, result, files[file])


@pytest.mark.parametrize("name", CHECKED)
@few(4)
@given(data=st.data())
def test_a_flipped_byte_under_a_checksum_is_found(name: str, data: st.DataObject) -> None:
    """Either the file is quarantined, or its output equals that of the undamaged file."""
    flips = st.tuples(st.integers(0, covered(name) - 1), st.integers(1, 255))
    found = data.draw(st.lists(flips, min_size=1, max_size=MANY))
    files = {f"{i}-{name}": flipped(sound(name), {at: mask}) for i, (at, mask) in enumerate(found)}
    for file, result in results_of(files).items():
        assert_nothing_lost(name, result, files[file])
        assert result.quarantined or result.content == undamaged(file)


def covered(name: str) -> int:
    """The number of bytes under checksums: in Parquet, those before the footer."""
    content = sound(name)
    is_parquet = name.endswith(".parquet")
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little") if is_parquet else len(content)


@cache
def undamaged(file: str) -> dict[str, str]:
    name = file.partition("-")[2]
    files = {f"{i}-{name}": sound(name) for i in range(MANY)}
    return results_of(files)[file].content


@few(4)
@given(data=st.data())
def test_a_flipped_bit_in_a_footer_changes_no_count(data: st.DataObject) -> None:
    name = "checked.parquet"
    flips = st.tuples(st.integers(covered(name), len(sound(name)) - 1), st.integers(0, 7))
    found = data.draw(st.lists(flips, min_size=1, max_size=MANY))
    files = {f"{i}-{name}": flipped(sound(name), {at: 1 << bit}) for i, (at, bit) in enumerate(found)}
    for result in results_of(files).values():
        assert result.documents == NUM_ROWS or result.quarantined


def test_a_footer_with_fewer_rows_than_the_file() -> None:
    """One bit of the row count of a row group flips; without a check its last rows would be dropped silently."""
    content = sound("checked.parquet")
    footer = pq.ParquetFile(pa.BufferReader(content)).metadata
    assert footer.row_group(0).num_rows == 13
    found = [at for at in range(covered("checked.parquet"), len(content) - 8) if content[at] == 2 * 13]
    flips = [at for at in found if is_shorter(flipped(content, {at: 8}))]
    assert len(flips) == 3, "of the three row groups with 13 rows"
    for result in results_of({f"{at}.parquet": flipped(content, {at: 8}) for at in flips}).values():
        assert result.documents == 0
        assert [entry.reason for entry in result.quarantined] == ["its row groups have 36 rows, the footer lists 40"]


def test_a_footer_with_a_negative_number_of_rows() -> None:
    """Two counts that agree and are wrong: such a file has no row, and would be complete without a word."""
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(sound("checked.parquet"))).slice(0, 13), sink, compression="none")
    content = sink.getvalue().to_pybytes()
    places = [at for at in range(len(content) // 2, len(content) - 8) if content[at] == 2 * 13]
    pairs = [flipped(content, {a: 3, b: 3}) for a, b in combinations(places, 2)]
    negative = [pair for pair in pairs if is_negative(pair)]
    assert len(negative) == 1
    (result,) = results_of({"negative.parquet": negative[0]}).values()
    assert result.documents == 0
    assert [entry.reason for entry in result.quarantined] == ["its footer lists a row group of -13 rows"]


def is_negative(content: bytes) -> bool:
    """Whether pyarrow reads the footer and finds -13 rows in it and in its row group."""
    try:
        footer = pq.read_metadata(pa.BufferReader(content))
    except (pa.ArrowException, OSError):
        return False
    return bool(footer.num_rows == footer.row_group(0).num_rows == -13)


def is_shorter(content: bytes) -> bool:
    """Whether pyarrow reads the footer and finds fewer rows in its row groups."""
    try:
        footer = pq.ParquetFile(pa.BufferReader(content)).metadata
    except (pa.ArrowException, OSError):
        return False
    return sum(footer.row_group(i).num_rows for i in range(footer.num_row_groups)) == NUM_ROWS - 4


@few(3)
@given(data=st.data())
def test_damaged_files_do_not_affect_each_other(data: st.DataObject) -> None:
    files = {name: data.draw(damages(len(sound(name))))(sound(name)) for name in FORMATS}
    for name, result in results_of(files).items():
        assert_nothing_lost(name, result, files[name])


SPECIAL = ["<|endoftext|>", "<|context_begin|>", "<|context_end|>", "<s>", "</s>", "[INST]", "<|im_start|>system"]
URLS = [
    "https://münchen.example/straße?q=ü#ß",
    "http://[2001:db8::1]:8080/x",
    "http://[::ffff:192.0.2.1%25eth0]/",
    "data:text/html;base64,PGI+",
    "javascript:alert(1)",
    "mailto:a@b.example",
    "https://user:pass@host.example:99999/%zz%",
    "http://host.example:0/",
    "http://host.example:port/",
    "http://0x7f.1/",
    "http://a..b.example/",
    "//no.scheme/x",
    "http://",
    "http://\x00host/\x01",
    "https://xn--/",
    "https://xn--a.example/",
    "https://" + "a" * 64 + ".example/",
    "https://host.example/" + "%f0%9f%92%a9" * 833,
    "http://[v1.fe80::a+en1]/",
    "http://[::1",
    "http://e.org/{url}{0}",
]
texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from([*SPECIAL, " ", "\0", "\r\n", "\u2028", "\ufeff", "ß", "🙂", "a"]), max_size=8).map(
        "".join
    ),
    st.integers(1, 30_000).map(lambda count: "long " * count),
)
urls = st.one_of(st.none(), st.sampled_from(URLS), st.text(max_size=20).map("http://{}".format), st.text(max_size=20))
surrogates = st.text(st.characters(categories=["Cs", "Ll"]), min_size=1, max_size=4)
integers = st.integers() | st.integers(2**63 - 1, 2**64 + 9)
others = st.recursive(
    st.none() | st.booleans() | integers | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
json_documents = st.fixed_dictionaries(
    {"text": st.one_of(texts, texts, texts, st.none(), surrogates, others)},
    optional={
        "id": st.one_of(st.sampled_from(["same", "same", "other", "", "0"]), others),
        "url": st.one_of(urls, urls, surrogates, others),
        "dump": st.one_of(st.sampled_from(["CC-MAIN-2024-10", "CC-MAIN-9999-99", "CC-MAIN--"]), others),
        "score": st.one_of(st.floats(), others),
        "extra": others,
    },
)


@few(9)
@given(st.lists(st.one_of(json_documents, json_documents, json_documents, others), min_size=1, max_size=8))
@example([{"text": "a"}, {"text": "x" * 1_000_000, "url": "https://e.org/" + "u" * 10_000}])
@example([{"text": "\ud800"}, {"text": "b", "url": "\udfff"}, {"text": None, "id": None}, {"txt": 1}, [], None])
@example([{"text": "a", "id": 2**64 + n, "url": ["u"], "score": math.nan} for n in range(3)])
def test_any_documents_as_json_lines(documents: list[Any]) -> None:
    all_annotators = "[annotators.url]\n[annotators.crawl]\n[annotators.edu_score]"
    Path("recipe.toml").write_text(RECIPE.replace("[annotators.url]", all_annotators))
    lines = [json.dumps(row) for row in documents]
    result = results_of({"rows.jsonl": "".join(line + "\n" for line in lines).encode()})["rows.jsonl"]
    # An escape may be half a character; Python and orjson join two neighbouring halves.
    read = [json.loads(line) for line in lines]
    expected = [row for row in read if is_document(row)]
    bad = {n for n, row in enumerate(read, 1) if not is_document(row)}
    if not expected:
        assert [entry.line for entry in result.quarantined] == [None]
        return
    assert {entry.line for entry in result.quarantined} <= bad
    assert sum(entry.count for entry in result.quarantined) == len(bad)
    assert result.documents == len(expected)
    tokens, annotations = outputs("data/rows.jsonl")
    assert decoded(tokens) == [row["text"] or "" for row in expected]
    assert tokens.column("id").to_pylist() == [
        generated_id("data/rows.jsonl", place) if (found := id_of(row.get("id"))) is None else found
        for place, row in zip(line_places("data/rows.jsonl"), read, strict=False)
        if is_document(row)
    ]
    assert annotations.column("url").to_pylist() == [string_or_null(row.get("url")) for row in expected]
    verified = colophon("verify", "recipe.toml")
    assert (verified.code, verified.err) == (0, "")


def is_document(row: Any) -> bool:
    has_text = isinstance(row, dict) and "text" in row
    return has_text and (row["text"] is None or string_or_null(row["text"]) is not None)


def string_or_null(value: Any) -> str | None:
    """A string that UTF-8 can hold; null for any other value."""
    return value if isinstance(value, str) and value == value.encode(errors="replace").decode() else None


def id_of(value: Any) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return json.dumps(value) if is_number else string_or_null(value)


def outputs(source: str) -> tuple[pa.Table, pa.Table]:
    """Tokens and URL annotations of a file, in order."""
    made = manifest()
    wanted = [partition.name for partition in made.partitions if partition.source == source]
    paths = {stage: {r.partition: Path("out", r.path) for r in made.outputs[stage].records} for stage in made.outputs}
    tokens = [read_table(paths["tokens"][name]) for name in wanted]
    annotations = [pq.read_table(paths["annotations/url"][name]) for name in wanted]
    return pa.concat_tables(tokens), pa.concat_tables(annotations)


def decoded(tokens: pa.Table) -> list[str]:
    tokenizer = resolved_recipe().tokenizer
    offsets, ids = list_values(tokens.column("input_ids"))
    assert not len(ids) or ids.max() < tokenizer.num_base_ids, "a text never becomes a special token"
    return [tokenizer.decode(ids[a:b]) for a, b in pairwise(offsets)]


STRINGS = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
WRONG = (pa.int64(), pa.bool_(), pa.binary(), pa.list_(pa.string()), pa.null(), pa.timestamp("us"), pa.float32())
NO_STRINGS = (pa.binary(), pa.list_(pa.string()))


@few(9)
@given(
    st.lists(st.tuples(texts | st.none(), st.sampled_from(["same", "other", None]), urls), max_size=8),
    *[st.sampled_from(STRINGS)] * 3,
)
@example([("x" * 3_000_000, "huge", "https://e.org/" + "u" * 10_000), ("y", "small", None)], *STRINGS[:3])
def test_any_documents_as_parquet(
    documents: list[tuple[str | None, str | None, str | None]], text: pa.DataType, id_: pa.DataType, url: pa.DataType
) -> None:
    columns = list(zip(*documents, strict=True)) or [(), (), ()]
    arrays = [pa.array(values, pa.string()).cast(kind) for values, kind in zip(columns, (text, id_, url), strict=True)]
    result = results_of({"rows.parquet": parquet_of(arrays)})["rows.parquet"]
    assert (result.documents, result.quarantined) == (len(documents), [])
    if not documents:
        return
    tokens, annotations = outputs("data/rows.parquet")
    assert decoded(tokens) == [row[0] or "" for row in documents]
    assert tokens.column("id").to_pylist() == [
        generated_id("data/rows.parquet", n) if row[1] is None else row[1] for n, row in enumerate(documents)
    ]
    assert annotations.column("url").to_pylist() == [row[2] for row in documents]


@few(6)
@given(*[st.sampled_from((*STRINGS, *WRONG))] * 3, st.booleans())
def test_wrong_types_are_quarantined_or_read_completely(
    text: pa.DataType, id_: pa.DataType, url: pa.DataType, with_nulls: bool
) -> None:
    arrays = [column_of(kind, with_nulls=with_nulls) for kind in (text, id_, url)]
    result = results_of({"rows.parquet": parquet_of(arrays)})["rows.parquet"]
    assert result.documents + sum(entry.rows or 3 for entry in result.quarantined) == 3
    assert bool(result.quarantined) == (text in WRONG or not {url, id_}.isdisjoint(NO_STRINGS))


def column_of(kind: pa.DataType, *, with_nulls: bool) -> pa.Array:
    """Three values of a type."""
    if pa.types.is_null(kind):
        return pa.nulls(3)
    if pa.types.is_list(kind):
        return pa.array([["a"], [], None if with_nulls else ["b"]], kind)
    if kind in STRINGS or pa.types.is_binary(kind):
        return pa.array(["a", "b", None if with_nulls else "c"]).cast(kind)
    return pa.array([1, 0, None if with_nulls else 1]).cast(kind)


def parquet_of(columns: Sequence[pa.Array]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True))), sink, row_group_size=3, write_page_checksum=True)
    return bytes(sink.getvalue())
