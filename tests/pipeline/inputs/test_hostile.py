"""Broken and unusual files of real documents: good ones are read, bad ones quarantined, and nothing crashes."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from colophon.pipeline.errors import printable
from colophon.pipeline.reports.inspection import document_at, sequence_at, show_document, show_sequence
from colophon.shards.arrow_files import list_values, read_table
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from tests.pipeline.project import (
    RECIPE,
    ROWS_OF_FILES,
    Called,
    colophon,
    generated_id,
    hashes,
    manifest,
    quarantine,
    resolved_recipe,
    run,
)

pytestmark = pytest.mark.shared

SOUND = {
    # name: documents; the file is read without errors
    "bad_metadata.parquet": 30,
    "column_order_reversed.parquet": 40,
    "duplicate_ids.parquet": 200,
    "huge_document.parquet": 2,
    "nested dir ü/deep/name with space & é.parquet": 10,
    "nulls.parquet": 60,
    "odd_text.parquet": 45,
    "snappy_dict.parquet": 200,
    "tiny_row_groups.parquet": 200,
    "uncompressed.parquet": 200,
    "weird_urls.parquet": 87,
    "zero_rows.parquet": 0,
}
UNUSABLE = {
    # name: the error for the whole file, before anything is written
    ".hidden.parquet": "Parquet file size is 4 bytes",
    "csv_renamed.parquet": "Parquet magic bytes not found in footer",
    "invalid_utf8.parquet": "no column 'dump'; columns: text, id, url",
    "missing_text.parquet": "no column 'text'; columns: id, dump, url, ",
    "missing_url.parquet": "no column 'url'; columns: text, id, dump, ",
    "truncated.parquet": "Parquet magic bytes not found in footer",
    "upper_case_columns.parquet": "no column 'url'; columns: TEXT, ID, ",
    "wrong_types.parquet": "no column 'dump'; columns: text, id, url, ",
    "zero_bytes.parquet": "Parquet file size is 0 bytes",
}
UNREADABLE = {
    # name: stage, excluded rows if the footer states them, and the error for the partition
    "corrupt_page.parquet": ("annotate, tokenize", 300, "CRC checksum verification failed"),
    "corrupt_page_header.parquet": ("annotate, tokenize", 300, "Couldn't deserialize thrift"),
    "cut.jsonl.gz": ("annotate, tokenize", None, "Compressed file ended before the end-of-stream marker was reached"),
}
BAD_LINES = {4: 1, 10: 2, 14: 1, 16: 1, 18: 1}
"""Lines that have one entry each, and how many are like it: 12 is a list as 10 is null. Line 8 is blank."""
GOOD = "data/part-0.parquet"


@pytest.fixture(autouse=True)
def hostile(project: Path, shared_data: Path) -> None:
    """The hostile files as `hostile/` in a project whose recipe needs text, url and dump."""
    Path("hostile").symlink_to(shared_data / "hostile")
    text = RECIPE.replace("[annotators.edu_score]\n", "").replace("{quality_fine} {crawl_year}", "{crawl_year}")
    text = text.replace("partition_bytes = 7000", "").replace("sequence_length = 64", "sequence_length = 256")
    Path("recipe.toml").write_text(text)


def settings(*paths: str) -> tuple[str, str]:
    return "--set", "input.paths=[{}]".format(", ".join(f'"{path}"' for path in paths))


def sound(*paths: str, code: int = 0) -> Called:
    """Run and verify."""
    called = run(*settings(*paths))
    assert (called.code, called.err) == (code, "")
    verified = colophon("verify", "recipe.toml", *settings(*paths))
    assert (verified.code, verified.err) == (0, "")
    return called


def documents() -> dict[str, int]:
    """The number of documents in the output, by source."""
    source = {partition.name: partition.source for partition in manifest().partitions}
    found: dict[str, int] = {}
    for record in manifest().outputs["tokens"].records:
        found[source[record.partition]] = found.get(source[record.partition], 0) + record.rows
    return found


def counts() -> dict[str, int]:
    (record,) = manifest().outputs["tokens"].records
    return record.counts


@pytest.mark.parametrize(("name", "rows"), SOUND.items(), ids=list(SOUND))
def test_an_unusual_file_is_read_completely(name: str, rows: int) -> None:
    sound(f"hostile/{name}", GOOD)
    assert documents() == {GOOD: ROWS_OF_FILES[0], **({f"hostile/{name}": rows} if rows else {})}
    assert not Path("out/quarantine.jsonl").exists()


@pytest.mark.parametrize(("name", "reason"), UNUSABLE.items(), ids=list(UNUSABLE))
def test_an_unusable_file_alone_is_a_usage_error_and_writes_nothing(name: str, reason: str) -> None:
    called = run(*settings(f"hostile/{name}"))
    assert called.code == 2
    assert called.line.startswith(f"recipe.toml: no input file can be read; the first, hostile/{name}: {reason}")
    assert not Path("out").exists()


def test_an_unusable_file_is_quarantined_and_the_others_are_read() -> None:
    good = run(*settings(GOOD), "--set", "output.path=alone")
    assert good.code == 0
    sound(*(f"hostile/{name}" for name in UNUSABLE), GOOD, code=3)
    assert documents() == {GOOD: ROWS_OF_FILES[0]}
    found = {entry.source: entry for entry in quarantine()}
    assert list(found) == [f"hostile/{name}" for name in UNUSABLE]
    for name, reason in UNUSABLE.items():
        entry = found[f"hostile/{name}"]
        assert entry.stage == "input"
        assert entry.reason.startswith(reason)
    assert hashes(manifest()) == hashes(manifest("alone"))


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_file_is_quarantined_and_the_others_are_read(name: str) -> None:
    stage, rows, reason = UNREADABLE[name]
    sound(f"hostile/{name}", GOOD, code=3)
    assert documents() == {GOOD: ROWS_OF_FILES[0]}
    (entry,) = quarantine()
    assert (entry.source, entry.stage, entry.rows) == (f"hostile/{name}", stage, rows)
    assert reason in entry.reason
    assert run(*settings(f"hostile/{name}"), "--set", "output.path=alone").code == 3
    assert manifest("alone").partitions == []


def test_bad_lines_are_quarantined_and_the_others_are_documents() -> None:
    sound("hostile/bad_lines.jsonl", GOOD, code=3)
    assert documents() == {"hostile/bad_lines.jsonl": 13, GOOD: ROWS_OF_FILES[0]}
    assert [(entry.source, entry.line, entry.count) for entry in quarantine()] == [
        ("hostile/bad_lines.jsonl", line, count) for line, count in BAD_LINES.items()
    ]


def test_a_file_of_unknown_format_is_a_usage_error_by_name_and_skipped_in_a_search() -> None:
    Path("stray.md").write_text("not a shard")
    called = run(*settings("stray.md"))
    assert called.code == 2
    assert "stray.md: unknown suffix; available: .parquet, " in called.line
    assert run(*settings("*.md")).code == 2


def test_the_whole_directory_at_once() -> None:
    sound("hostile/*.parquet", "hostile/*.jsonl", "hostile/*.gz", "hostile/nested*/**/*", GOOD, code=3)
    expected = {f"hostile/{name}": rows for name, rows in SOUND.items() if rows}
    expected |= {GOOD: ROWS_OF_FILES[0], "hostile/bad_lines.jsonl": 13}
    assert documents() == expected
    named = {Path(entry.source).name for entry in quarantine() if entry.line is None}
    assert named == {*UNUSABLE, *UNREADABLE} - {".hidden.parquet"}  # a search skips it
    assert run(*settings("hostile/*.parquet", GOOD), "--strict", "--set", "output.path=strict").code == 1


def test_null_texts_urls_and_ids_keep_their_rows() -> None:
    sound("hostile/nulls.parquet")
    table = pq.read_table("hostile/nulls.parquet")
    assert counts()["texts_null"] == table.column("text").null_count > 0
    (record,) = manifest().outputs["annotations/url"].records
    urls = pq.read_table(f"out/{record.path}").column("url")
    assert urls.to_pylist() == table.column("url").to_pylist()
    (tokens,) = manifest().outputs["tokens"].records
    ids = read_table(Path("out", tokens.path)).column("id").to_pylist()
    expected = table.column("id").to_pylist()
    assert ids == [name or generated_id("hostile/nulls.parquet", row) for row, name in enumerate(expected)]


def test_columns_in_a_different_order_give_the_same_content() -> None:
    names = ["text", "id", "dump", "url"]
    reversed_order = pq.read_table("hostile/column_order_reversed.parquet")
    pq.write_table(reversed_order.select(names), "in_order.parquet")
    contents = []
    for path in ("hostile/column_order_reversed.parquet", "in_order.parquet"):
        sound(path)
        # Packed files name their source, so they differ.
        kept = {stage: sha for (stage, _), sha in hashes(manifest()).items() if not stage.startswith("packed/")}
        contents.append(kept)
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"annotations/url", "annotations/crawl", "tokens"}


def test_a_document_of_five_million_characters_is_read_completely() -> None:
    sound("hostile/huge_document.parquet")
    text = pq.read_table("hostile/huge_document.parquet").column("text").to_pylist()
    (tokens,) = manifest().outputs["tokens"].records
    offsets, ids = list_values(read_table(Path("out", tokens.path)).column("input_ids"))
    assert max(map(len, text)) == 5_000_000
    tokenizer = resolved_recipe().tokenizer
    assert tokenizer.decode(ids[offsets[0] : offsets[1]]) == text[0]
    dataset = PackedDataset.open(Path("out"), "plain")
    assert counts()["tokens"] == len(ids)
    assert sum(int(file.info.num_tokens["text"]) for file in dataset.files) == len(ids)


def test_strings_of_special_tokens_are_ordinary_text() -> None:
    sound("hostile/odd_text.parquet")
    tokenizer = resolved_recipe().tokenizer
    texts = pq.read_table("hostile/odd_text.parquet").column("text").to_pylist()
    (tokens,) = manifest().outputs["tokens"].records
    offsets, ids = list_values(read_table(Path("out", tokens.path)).column("input_ids"))
    assert ids.max() < tokenizer.num_base_ids
    for row, text in enumerate(texts):
        assert tokenizer.decode(ids[offsets[row] : offsets[row + 1]]) == text
    dataset = PackedDataset.open(Path("out"), "prepend-url")
    rows = dataset.rows(range(len(dataset)))
    special = rows.input_ids >= tokenizer.num_base_ids
    ordinary = (rows.roles == Role.TEXT) | (rows.roles == Role.METADATA)
    assert (special != ordinary).all()


def test_bytes_that_are_not_utf8_are_replaced_and_counted() -> None:
    text = Path("recipe.toml").read_text().replace("[annotators.crawl]\n", "").replace("{crawl_year}", "{url_host}")
    Path("recipe.toml").write_text(text)
    called = sound("hostile/invalid_utf8.parquet")
    rows = pq.read_metadata("hostile/invalid_utf8.parquet").num_rows
    assert documents() == {"hostile/invalid_utf8.parquet": rows}
    assert counts()["texts_repaired"] > 0
    assert f"{counts()['texts_repaired']} with bytes that are not UTF-8" in called.out


def test_a_binary_text_is_refused_by_column_and_type() -> None:
    text = Path("recipe.toml").read_text().replace("[annotators.crawl]\n", "").replace("{crawl_year}", "{url_host}")
    Path("recipe.toml").write_text(text)
    called = run(*settings("hostile/wrong_types.parquet"))
    assert called.code == 2
    assert called.line.endswith("hostile/wrong_types.parquet: column 'text' is binary, not string")


def test_invalid_scores_become_null() -> None:
    Path("recipe.toml").write_text(
        Path("recipe.toml").read_text().replace("[annotators.crawl]", "[annotators.crawl]\n[annotators.edu_score]")
    )
    sound("hostile/bad_metadata.parquet")
    (record,) = manifest().outputs["annotations/edu_score"].records
    qualities = pq.read_table(f"out/{record.path}").column("quality_coarse").to_pylist()
    assert all(quality is None or 0 <= quality <= 5 for quality in qualities)
    assert None in qualities


def test_every_unusual_document_and_sequence_can_be_shown() -> None:
    import io

    from rich.console import Console

    paths = ("hostile/odd_text.parquet", "hostile/weird_urls.parquet")
    sound(*paths)
    resolved = resolved_recipe(settings(*paths)[1])
    file = io.StringIO()
    console = Console(file=file, markup=False, emoji=False, width=160)
    for row in range(45 + 87):
        show_document(document_at(resolved, manifest(), row=row), console=console, characters=2000)
    for row in range(0, 200, 9):
        show_sequence(sequence_at(resolved, layout="prepend-url", row=row), console=console)
    assert printable(file.getvalue()) == file.getvalue()


def test_an_export_has_every_unusual_document() -> None:
    paths = ("hostile/odd_text.parquet", "hostile/weird_urls.parquet", "hostile/nulls.parquet")
    sound(*paths)
    assert colophon("export", "recipe.toml", "--to", "exported", *settings(*paths)).code == 0
    for partition in manifest().partitions:
        exported = pq.read_table(f"exported/{partition.name}.parquet")
        original = pq.read_table(partition.source)
        assert exported.column("text").to_pylist() == original.column("text").to_pylist()
        assert exported.column("url").to_pylist() == original.column("url").to_pylist()
