"""`colophon verify` finds any flipped byte; `--deep` finds wrong files that agree with their records."""

from __future__ import annotations

import io
import json
import os
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.reports.summary import counted
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.pass_record import settings_path
from colophon.pipeline.verification.verification import Verification
from colophon.shards.arrow_files import read_table, write_table
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.common.state_files import is_as_written, with_checksum
from tests.pipeline.project import LAYOUTS, manifest, resolved_recipe, run, snapshot, write_json_lines
from tests.pipeline.verification.helpers import EDITED, edit_manifest, findings, record_as_it_is, record_of, verify

_ROUNDS = 3


def flipped(data: bytes, source: random.Random) -> bytes:
    """The bytes with one of them replaced by a different one."""
    place = source.randrange(len(data))
    return data[:place] + bytes([data[place] ^ source.randrange(1, 256)]) + data[place + 1 :]


def found_in(resolved: ResolvedRecipe) -> set[str]:
    """The paths that a verification names."""
    return {finding.path for finding in Verification(resolved).findings()}


def test_a_thousand_flipped_bytes_are_found(finished: Path) -> None:
    """In any file of the output, one in each file at a time; a flip that changes no JSON value has no meaning.

    A segment of records with a flipped byte is a line that names it.
    """
    source, resolved = random.Random(0), resolved_recipe()
    data = [record.path for output in manifest().outputs.values() for record in output.records]
    states = [*map(settings_path, manifest().by_output), "report/summary.json", "report/run.json"]
    assert len(data) > 90
    num_flips = 0
    for _ in range(2 * _ROUNDS):
        files = [*states, *data]
        kept = {path: Path("out", path).read_bytes() for path in files}
        for path, content in kept.items():
            Path("out", path).write_bytes(flipped(content, source))
        expected = {path for path in files if path not in states or is_changed(kept[path], path)}
        assert expected <= found_in(resolved)
        for path, content in kept.items():
            Path("out", path).write_bytes(content)
        num_flips += len(files)
    for table in (*Path("out/records").glob("segment-*"), *Path("out/manifest").rglob("*.parquet")):
        content = table.read_bytes()
        for _ in range(10):
            table.write_bytes(flipped(content, source))
            with pytest.raises(DamagedFileError, match=re.escape(f"{table}: damaged: its bytes differ")):
                found_in(resolved)
        table.write_bytes(content)
    whole = Path("out/manifest.json").read_text()
    assert is_as_written(whole)
    for _ in range(500):
        assert not is_as_written(flipped(whole.encode(), source).decode("utf-8", "replace"))
    assert num_flips + 500 > 1000


def is_changed(before: bytes, path: str) -> bool:
    """Whether a JSON file has a different value now, or none."""
    try:
        return bool(json.loads(before) != json.loads(Path("out", path).read_bytes()))
    except ValueError:
        return True


def test_a_manifest_with_a_flipped_byte_is_one_line(finished: Path) -> None:
    path, source = Path("out/manifest.json"), random.Random(0)
    whole = path.read_bytes()
    for _ in range(5):
        path.write_bytes(flipped(whole, source))
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
    "an annotation changed": (another_score, "annotations/edu_score", "row 0 has "),
    "annotations nulled": (null_annotations, "annotations/crawl", "are not those that computing again gives"),
    "a column more": (other_columns, "annotations/crawl", "its columns are not id, crawl_"),
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


def test_a_sound_run_of_every_layout_has_no_deep_findings(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = Path("scratch").absolute()
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = snapshot(Path("out"))
    assert {f"packed/{layout}" for layout in LAYOUTS} <= set(manifest().outputs)
    called = verify("--deep", "--inputs")
    assert (called.code, called.err) == (0, "")
    assert snapshot(Path("out")) == before
    assert list(scratch.iterdir()) == []


def test_partitions_are_computed_again_in_processes(finished: Path) -> None:
    another_score()
    called = verify("--deep", "--executor", "local", "--set", "ray.num_workers=1")
    assert called.code == 1
    assert "annotations/edu_score/" in called.err


def respelled(old: str, new: str) -> None:
    """The output becomes one of other texts, ids and scores, with records, settings and report that fit it."""
    data = Path("data/part-1.parquet")
    original, state = data.read_bytes(), data.stat()
    table = pq.read_table(data)
    for number, name in enumerate(table.column_names):
        if table.schema.field(name).type == pa.string():
            table = table.set_column(number, name, pc.replace_substring(table.column(name), old, new))
    pq.write_table(table, data, row_group_size=16, write_page_checksum=True, compression="zstd")
    mine = manifest()
    assert run("--set", "output.path=other").code == 0
    data.write_bytes(original)
    os.utime(data, ns=(state.st_atime_ns, state.st_mtime_ns))
    for output, content in manifest("other").outputs.items():
        for record, other in zip(mine.outputs[output].records, content.records, strict=True):
            Path("out", record.path).write_bytes(Path("other", other.path).read_bytes())
            record_as_it_is(record, rows=other.rows, counts=other.counts)
    Path("out/report/summary.json").write_bytes(Path("other/report/summary.json").read_bytes())


@pytest.mark.parametrize(
    ("old", "new", "output"),
    [("the", "eth", "tokens"), ("host1", "host2", "annotations/url")],
)
def test_files_of_other_documents_are_found_by_computing_them_again(
    finished: Path, old: str, new: str, output: str
) -> None:
    respelled(old, new)
    assert verify("--inputs").code == 0
    found = findings("--deep")
    assert {line.split("/part")[0] for line in found} == {output}
    partitions = {partition.name for partition in manifest().partitions if partition.source == "data/part-1.parquet"}
    assert {Path(line.split(": ")[0]).stem for line in found} <= partitions
    if output == "annotations/url":
        assert "row " in found[0]
        assert "host1" in found[0]


def test_rows_that_were_never_excluded_and_partitions_that_never_failed_are_found(project: Path) -> None:
    write_json_lines(Path("data/lines.jsonl"), [{"text": "one"}, {"txt": "bad"}, {"text": "two"}, []])
    settings = ["--set", 'input.paths=["data/*"]']
    assert run(*settings).code == 3
    lines = next(p.name for p in manifest().partitions if p.source == "data/lines.jsonl")
    for output in ("tokens", "annotations/url", "annotations/crawl", "annotations/edu_score"):
        record = next(record for record in manifest().outputs[output].records if record.partition == lines)
        record_as_it_is(record)  # without problems
    good = manifest().partitions[-1]
    entry = {"source": good.source, "partition": good.name, "stage": "tokenize", "reason": "died", "rows": good.rows}

    def exclude(value: Any) -> None:
        value["quarantine"] = [entry]
        value["partitions"] = value["partitions"][:-1]
        for content in value["outputs"].values():
            content["records"] = [record for record in content["records"] if record["partition"] != good.name]

    edit_manifest(exclude, is_noticed=False)
    Path("out/quarantine.jsonl").write_text(json.dumps(entry) + "\n")
    Path("out/report/summary.json").write_text(summary_text())
    assert verify("--inputs", *settings).code == 0
    found = findings("--deep", *settings)
    hidden = [line for line in found if "excludes other rows than reading the input again gives: " in line]
    assert len(hidden) == 4
    rest = [line for line in found if line not in hidden and "its record counts" not in line]
    message = f"{good.source}: its partition {good.name} was quarantined, and can be processed now. "
    assert rest == [f"{message}`colophon run` processes it"]


def summary_text() -> str:
    """The summary of the run with its times, and numbers that fit the manifest as it is now."""
    before = json.loads(Path("out/report/summary.json").read_text())
    return with_checksum(json.dumps({**before, **counted(manifest(), store=Store("out"))}, indent=1))
