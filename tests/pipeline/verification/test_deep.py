"""`colophon verify` finds any flipped byte; `--deep` finds wrong files that agree with their records."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.verification.verification import Verification
from colophon.shards.arrow_files import read_table, write_table
from colophon.shards.manifest import is_as_written
from tests.pipeline.project import LAYOUTS, manifest, resolved_recipe, run
from tests.pipeline.verification.helpers import EDITED, findings, record_as_it_is, record_of, verify

_ROUNDS = 4


def flipped(data: bytes, source: random.Random) -> bytes:
    """The bytes with one of them replaced by a different one."""
    place = source.randrange(len(data))
    return data[:place] + bytes([data[place] ^ source.randrange(1, 256)]) + data[place + 1 :]


def paths_found() -> set[str]:
    return {finding.path for finding in Verification(resolved_recipe()).findings()}


@pytest.mark.parametrize("seed", range(_ROUNDS))
def test_a_flipped_byte_of_any_file_is_found(finished: Path, seed: int) -> None:
    source = random.Random(seed)
    files = [record.path for output in manifest().outputs.values() for record in output.records]
    for path in files:
        Path("out", path).write_bytes(flipped(Path("out", path).read_bytes(), source))
    assert len(files) > 90
    assert set(files) <= paths_found()


@pytest.mark.parametrize("seed", range(_ROUNDS))
def test_a_flipped_byte_of_any_record_or_settings_is_found(finished: Path, seed: int) -> None:
    source = random.Random(seed)
    for path in Path("out/records").rglob("*.json"):
        path.write_bytes(flipped(path.read_bytes(), source))
    files = [record.path for output in manifest().outputs.values() for record in output.records]
    settings = [f"records/{output}/.settings.json" for output in manifest().outputs]
    assert {*files, *settings} <= paths_found()


def test_a_flipped_byte_of_the_manifest_is_found(finished: Path) -> None:
    path, source = Path("out/manifest.json"), random.Random(0)
    whole = path.read_bytes()
    assert is_as_written(whole.decode())
    for number in range(500):
        damaged = flipped(whole, source)
        assert not is_as_written(damaged.decode("utf-8", "replace"))
        if number % 50 == 0:
            path.write_bytes(damaged)
            called = verify()
            assert called.code in (1, 2)
            assert "manifest.json" in called.err
            assert "Traceback" not in called.err


def rewritten_table(record: Any, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replace an Arrow or Parquet file of the output by a changed one."""
    path = Path("out", record.path)
    if path.suffix == ".parquet":
        pq.write_table(change(pq.read_table(path)), path, write_page_checksum=True)
        return
    changed = change(pa.ipc.open_file(io.BytesIO(path.read_bytes())).read_all())
    path.unlink()  # other tables may map it
    write_table(path, changed)


def repack(*settings: str) -> Callable[[], None]:
    """Files of the plain layout and its like from a run with other settings, with this run's metadata and records."""

    def replace() -> None:
        assert run(*settings, "--set", "output.path=other").code == 0
        for mine, other in zip(
            manifest().outputs["packed/prepend-url"].records,
            manifest("other").outputs["packed/prepend-url"].records,
            strict=True,
        ):
            metadata = read_table(Path("out", mine.path)).schema.metadata
            changed = read_table(Path("other", other.path)).replace_schema_metadata(metadata)
            Path("out", mine.path).unlink()
            write_table(Path("out", mine.path), changed)
            record_as_it_is(mine, rows=other.rows)

    return replace


def swap_rows() -> None:
    """Two rows of a packed file change places: the laws hold for any order of rows of whole documents."""
    record = record_of("packed/plain")
    rewritten_table(record, lambda table: pa.concat_tables([table.slice(1, 1), table.slice(0, 1), table.slice(2)]))
    record_as_it_is(record)


def another_score() -> None:
    record = record_of("annotations/edu_score")

    def change(table: pa.Table) -> pa.Table:
        name = "quality_fine"
        column = pc.add(table.column(name), 1).cast(table.schema.field(name).type)
        return table.set_column(table.column_names.index(name), table.schema.field(name), column)

    rewritten_table(record, change)
    record_as_it_is(record)


def null_annotations() -> None:
    record = record_of("annotations/crawl")
    rewritten_table(record, lambda table: pa.table([pa.nulls(len(table), f.type) for f in table.schema], table.schema))
    record_as_it_is(record)


def other_columns() -> None:
    record = record_of("annotations/crawl")
    rewritten_table(record, lambda table: table.append_column("more", pa.nulls(len(table), pa.string())))
    record_as_it_is(record)


def counts(output: str, **changes: int) -> Callable[[], None]:
    def change() -> None:
        record = record_of(output)
        record_as_it_is(record, counts={**record.counts, **changes})

    return change


def role_weights() -> None:
    record = record_of("packed/prepend-url")
    rewritten_table(
        record,
        lambda table: table.replace_schema_metadata(
            {b"colophon": table.schema.metadata[b"colophon"].replace(b'"dropout":0.1', b'"dropout":0.2')}
        ),
    )
    record_as_it_is(record)


DEEP_EDITS: dict[str, tuple[Callable[[], None], str, str]] = {
    "packed by best_fit": (repack("--set", "pack.method=best_fit"), "packed/prepend-url", "the schema metadata has"),
    "rows swapped": (swap_rows, "packed/plain", "packing its tokens again"),
    "an annotation changed": (another_score, "packed/append-quality", ""),
    "annotations nulled": (null_annotations, "annotations/crawl", "its record counts"),
    "a column more": (other_columns, "annotations/crawl", "its columns are not those that the annotator writes"),
    "a count of tokens": (counts("tokens", tokens=1), "tokens", "its record counts tokens: 1 -> "),
    "a count of empty documents": (counts("tokens", documents_empty=99), "tokens", "its record counts"),
    "a count of segments": (counts("packed/plain", segments=1), "packed/plain", "its record counts segments: 1 -> "),
    "metadata of another layout": (role_weights, "packed/prepend-url", "its metadata: layout.dropout: 0.1 -> 0.2"),
}


@pytest.mark.parametrize("name", DEEP_EDITS)
def test_files_that_agree_with_their_records_and_are_not_the_right_ones_are_found(finished: Path, name: str) -> None:
    edit, output, message = DEEP_EDITS[name]
    edit()
    found = findings("--deep")
    assert any(line.startswith(f"{output}/") and message in line for line in found), found
    assert not any(line.startswith(EDITED) for line in found)


def test_a_sound_run_of_every_layout_has_no_deep_findings(finished: Path) -> None:
    assert {f"packed/{layout}" for layout in LAYOUTS} <= set(manifest().outputs)
    called = verify("--deep", "--inputs")
    assert (called.code, called.err) == (0, "")
