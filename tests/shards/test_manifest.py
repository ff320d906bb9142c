"""The manifest: round trips, the files of a layout, and one line for every error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from colophon.shards.common.errors import DamagedFileError, ShardError
from colophon.shards.common.state_files import checksum_of, is_as_written
from colophon.shards.manifest import (
    MANIFEST_NAME,
    Manifest,
    OutputManifest,
    parse_manifest,
    read_manifest,
    written_files,
)
from colophon.shards.reader import PackedDataset
from colophon.shards.record_table import RecordTable
from colophon.shards.records import PartitionInfo, QuarantineEntry, Record
from tests.shards.cases import Case, documents_of, make_layout

CASE = Case(layout=make_layout("plain"), documents=documents_of([20, 21], [30]), sequence_length=4)


def record(path: str, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "output": "packed/plain",
        "partition": "p0",
        "path": path,
        "rows": 1,
        "bytes": 1,
        "sha256": "0" * 64,
        "fingerprint": "f" * 64,
    }
    return Record(**{**values, **changes})


def manifest_of(**layouts: list[Record]) -> Manifest:
    stages = {f"packed/{name}": OutputManifest(settings={}, records=records) for name, records in layouts.items()}
    return Manifest(
        colophon_version="0.1.0",
        recipe={"output": {"path": "out"}},
        partitions=[PartitionInfo(name="p0", source="data/a.parquet", rows=2)],
        outputs={"tokens": OutputManifest(settings={}, records=[]), **stages},
        quarantine=[QuarantineEntry(source="data/b.parquet", stage="annotate", reason="not a Parquet file")],
    )


def save(output: Path, manifest: Manifest) -> Manifest:
    (output / MANIFEST_NAME).write_text(manifest.model_dump_json())
    return manifest


def packed_record(output: Path, name: str, case: Case = CASE) -> Record:
    """Write `case` under `output` and describe it."""
    path = output / "packed" / "plain" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    file = case.write(path)
    return record(f"packed/plain/{name}", rows=len(file), bytes=path.stat().st_size)


class TestPaths:
    @pytest.mark.parametrize("path", ["/etc/passwd", "../x.arrow", "packed/../../x.arrow", "packed/..", ".."])
    def test_a_path_that_leaves_the_output_is_refused(self, path: str) -> None:
        with pytest.raises(ValidationError, match="leaves the output directory"):
            record(path)

    @pytest.mark.parametrize("path", ["packed/plain/p0.arrow", "x", "packed/a..b.arrow", "packed/...", "späß/x.arrow"])
    def test_a_path_inside_the_output_is_kept(self, path: str) -> None:
        assert record(path).path == path

    @pytest.mark.parametrize("path", ["tokens/a\0b", "tokens/" + "x" * 256, "ü" * 128])
    def test_a_path_that_no_file_has_is_refused(self, path: str) -> None:
        with pytest.raises(ValidationError, match="is not one of a file"):
            record(path)

    @pytest.mark.parametrize(
        "field",
        [
            {"output": "../tokens"},
            *({"partition": name} for name in ("../p", ".settings", "", "a\0b", "x" * 256)),
        ],
    )
    def test_a_record_with_an_output_or_partition_outside_is_refused(self, field: dict[str, str]) -> None:
        value = record("x").model_dump() | field
        with pytest.raises(ValidationError, match=r"leaves the output directory|is not a plain name"):
            Record.model_validate(value)

    def test_a_manifest_with_such_a_path_is_one_line(self, tmp_path: Path) -> None:
        content = json.loads(manifest_of(plain=[record("x")]).model_dump_json())
        content["outputs"]["packed/plain"]["records"][0]["path"] = "../../secret"
        (tmp_path / MANIFEST_NAME).write_text(json.dumps(content))
        with pytest.raises(
            ShardError, match=r"outputs\.packed/plain\.records\.0\.path: .*'../../secret' leaves"
        ) as error:
            read_manifest(tmp_path)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("field", ["rows", "bytes"])
    def test_negative_numbers_are_refused(self, field: str) -> None:
        with pytest.raises(ValidationError):
            record("x", **{field: -1})


class TestReading:
    def test_round_trip(self, tmp_path: Path) -> None:
        manifest = save(tmp_path, manifest_of(plain=[record("x", counts={"documents": 2})]))
        assert read_manifest(tmp_path) == manifest

    def test_the_keys_of_older_manifests(self, tmp_path: Path) -> None:
        manifest = manifest_of(plain=[record("x", counts={"documents": 2})])
        content = json.loads(manifest.model_dump_json())
        content["stages"] = content.pop("outputs")
        for entry in content["stages"]["packed/plain"]["records"]:
            entry["stage"] = entry.pop("output")
        (tmp_path / MANIFEST_NAME).write_text(json.dumps(content))
        assert read_manifest(tmp_path) == manifest
        assert json.loads(read_manifest(tmp_path).model_dump_json()) == json.loads(manifest.model_dump_json())

    def test_no_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(ShardError, match=r"manifest\.json does not exist: .* is not the output of a finished run"):
            read_manifest(tmp_path)

    def test_the_output_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(ShardError, match=r"manifest\.json does not exist: .*out is not the output"):
            read_manifest(tmp_path / "out")

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            (b"", "damaged: "),
            (b"{", "damaged: "),
            (b'{"format_version": 1,\n"partitions": [', "damaged: "),
            (b"\xff\xfe", "damaged: "),
            (b"[]", "damaged: expected a JSON object, got list"),
            (b"{}", "damaged: colophon_version: Field required"),
        ],
    )
    def test_broken_content_is_one_line(self, tmp_path: Path, content: bytes, line: str) -> None:
        (tmp_path / MANIFEST_NAME).write_bytes(content)
        with pytest.raises(ShardError) as error:
            read_manifest(tmp_path)
        message = str(error.value)
        assert message.startswith(f"{tmp_path / MANIFEST_NAME}: {line}")
        assert "\n" not in message

    def test_an_unknown_key_is_named(self, tmp_path: Path) -> None:
        content = {**json.loads(manifest_of().model_dump_json()), "surprise": 1}
        (tmp_path / MANIFEST_NAME).write_text(json.dumps(content))
        with pytest.raises(ShardError, match="surprise: Extra inputs are not permitted"):
            read_manifest(tmp_path)

    def test_a_different_format_version(self, tmp_path: Path) -> None:
        save(tmp_path, manifest_of().model_copy(update={"format_version": 7}))
        with pytest.raises(
            ShardError, match=r"format version 7; this Colophon reads version 1\. Use the version of Colophon that"
        ):
            read_manifest(tmp_path)


class TestTables:
    """The manifest as runs write it: `manifest.json` and tables."""

    @staticmethod
    def written(output: Path) -> Manifest:
        records = {
            "plain": [record("x", counts={"documents": 2}, content={"text": "0"})],
            "other": [record("y", output="packed/other")],
        }
        manifest = manifest_of(**records)
        text, tables = written_files(manifest)
        for path, content in tables.items():
            (output / path).parent.mkdir(parents=True, exist_ok=True)
            (output / path).write_bytes(content)
        (output / MANIFEST_NAME).write_text(text)
        return manifest.model_copy(update={"checksum": checksum_of(text)})

    def test_round_trip(self, tmp_path: Path) -> None:
        manifest = self.written(tmp_path)
        assert read_manifest(tmp_path) == manifest
        assert json.loads(read_manifest(tmp_path).model_dump_json()) == json.loads(manifest.model_dump_json())
        assert is_as_written((tmp_path / MANIFEST_NAME).read_text())

    def test_a_reader_of_one_layout_reads_its_table_alone(self, tmp_path: Path) -> None:
        self.written(tmp_path)
        read = []

        def noted(path: str) -> bytes:
            read.append(path)
            return (tmp_path / path).read_bytes()

        manifest = parse_manifest((tmp_path / MANIFEST_NAME).read_bytes(), where="out", read=noted)
        assert (sorted(manifest.layouts), read) == (["other", "plain"], [])
        assert [r.path for r in manifest.layouts["plain"].records] == ["x"]
        assert [re.sub("-[0-9a-f]{32}", "", path) for path in read] == ["manifest/packed/plain.parquet"]
        assert manifest.partitions[0].name == "p0"
        assert len(read) == 2

    @pytest.mark.parametrize("is_missing", [False, True])
    def test_a_damaged_table_is_one_line_at_its_first_use(self, tmp_path: Path, is_missing: bool) -> None:
        self.written(tmp_path)
        (table,) = tmp_path.glob("manifest/packed/plain-*")
        content = table.read_bytes()
        table.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
        if is_missing:
            table.unlink()
        manifest = read_manifest(tmp_path)
        assert [r.path for r in manifest.layouts["other"].records] == ["y"]
        with pytest.raises(DamagedFileError) as error:
            list(manifest.layouts["plain"].records)
        line = str(error.value)
        assert line.startswith(f"{table} is missing: " if is_missing else f"{table}: damaged: its bytes differ")
        assert "`colophon run` writes it" in line
        assert "\n" not in line

    def test_rows_are_sequences(self) -> None:
        records = [record(name, partition=f"p{name}") for name in "abcd"]
        table = RecordTable.of("packed/plain", records)
        assert (len(table), table[0], table[-1], table[1:3]) == (4, records[0], records[-1], records[1:3])
        assert list(table) == records == table
        assert table != records[1:]
        assert table.get("pb") == records[1]
        assert table.get("x") is None
        assert table.places(pa.array(["pd", "x", "pa"])).tolist() == [3, -1, 0]
        with pytest.raises(IndexError):
            table[4]


class TestPackedFiles:
    def test_files_in_the_order_of_partitions(self, tmp_path: Path) -> None:
        records = [packed_record(tmp_path, name) for name in ("b.arrow", "a.arrow")]
        manifest = manifest_of(plain=records)
        assert manifest.packed_files(tmp_path, "plain") == [tmp_path / r.path for r in records]

    def test_files_without_rows_are_skipped(self, tmp_path: Path) -> None:
        empty = packed_record(tmp_path, "a.arrow", CASE.where(documents=()))
        full = packed_record(tmp_path, "b.arrow")
        assert empty.rows == 0
        assert manifest_of(plain=[empty, full]).packed_files(tmp_path, "plain") == [tmp_path / full.path]

    def test_an_unknown_layout_lists_the_choices(self, tmp_path: Path) -> None:
        manifest = manifest_of(plain=[], **{"prepend-url": []})
        with pytest.raises(ShardError, match=r"has no layout 'prepend'; available: plain, prepend-url. Did you "):
            manifest.packed_files(tmp_path, "prepend")

    def test_a_run_without_layouts(self, tmp_path: Path) -> None:
        with pytest.raises(ShardError, match=r"has no layout 'plain'; available: none$"):
            manifest_of().packed_files(tmp_path, "plain")

    def test_a_file_of_a_different_size_is_named(self, tmp_path: Path) -> None:
        good = packed_record(tmp_path, "a.arrow")
        with (tmp_path / good.path).open("ab") as file:
            file.write(b"more")
        found = good.bytes + 4
        with pytest.raises(ShardError, match=rf"a\.arrow has {found} bytes; its record states {good.bytes} bytes"):
            manifest_of(plain=[good]).packed_files(tmp_path, "plain")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ShardError, match=r"gone\.arrow is missing; its record states 1 bytes"):
            manifest_of(plain=[record("packed/plain/gone.arrow")]).packed_files(tmp_path, "plain")

    def test_a_file_without_a_record_is_never_read(self, tmp_path: Path) -> None:
        good = packed_record(tmp_path, "a.arrow")
        packed_record(tmp_path, "unrecorded.arrow")
        save(tmp_path, manifest_of(plain=[good]))
        dataset = PackedDataset.open(tmp_path, "plain")
        assert [file.path.name for file in dataset.files] == ["a.arrow"]
        assert len(dataset) == good.rows

    def test_opening_a_layout_that_does_not_exist(self, tmp_path: Path) -> None:
        save(tmp_path, manifest_of(plain=[]))
        with pytest.raises(ShardError, match="no layout 'append'; available: plain"):
            PackedDataset.open(tmp_path, "append")
        with pytest.raises(ShardError, match="no packed files to read"):
            PackedDataset.open(tmp_path, "plain")
