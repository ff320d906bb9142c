"""`colophon verify` finds every damage, and nothing in a sound run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from colophon.pipeline.verification.committed_files import file_findings
from colophon.shards.arrow_files import read_table, write_table
from tests.pipeline.commit_records import drop_records, edit_records
from tests.pipeline.project import RECIPE, manifest, resolved_recipe, run
from tests.pipeline.verification.helpers import findings, record_as_it_is, record_of, verify

OUTPUTS = ("annotations/url", "tokens", "packed/plain", "packed/append-quality")


def test_a_sound_run_has_no_findings(finished: Path) -> None:
    called = verify()
    assert (called.code, called.err) == (0, "")
    files = sum(len(output.records) for output in manifest().outputs.values())
    rows = sum(record.rows for output in manifest().outputs.values() for record in output.records)
    assert called.out == f"{files} files, {rows:,} rows: all match their records, all laws of the layouts hold\n"


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flip a bit": (
        lambda path: path.write_bytes(
            path.read_bytes()[:-9] + bytes([path.read_bytes()[-9] ^ 1]) + path.read_bytes()[-8:]
        ),
        "its bytes differ from those that were committed (sha256)",
    ),
    "flip the first bit": (
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
        "its bytes differ from those that were committed (sha256)",
    ),
    "truncate": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, its record states"),
    "append": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "bytes, its record states"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes, its record states"),
    "delete": (lambda path: path.unlink(), "is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named_with_what_is_wrong(finished: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    outputs = manifest().outputs
    damaged = [outputs[output].records[number] for number, output in enumerate(OUTPUTS)]
    for record in damaged:
        change(Path("out", record.path))
    found = dict(line.split(": ", 1) for line in findings())
    for record in damaged:
        assert message in found.pop(record.path)
    # A file packed from a damaged one is reported as one that cannot be checked. Nothing else is reported.
    below = {record.partition for record in damaged if not record.output.startswith("packed/")}
    assert all(path.startswith("packed/") and Path(path).stem in below for path in found)


@pytest.mark.parametrize("damage", ["delete", "edit"])
def test_a_commit_record_that_differs_from_the_manifest_is_found(finished: Path, damage: str) -> None:
    record = record_of("packed/plain")
    if damage == "delete":
        drop_records(record.output, record.partition)
    else:
        names = (record.output, record.partition)
        edit_records(lambda r: (r["output"], r["partition"]) == names and r.update(fingerprint="another"))
    (line,) = findings()
    problem = "in records/ differs from the manifest" if damage == "edit" else "is missing in records/"
    assert line == f"{record.path}: its commit record {problem}"


def test_swapped_files_of_two_layouts_are_found(finished: Path) -> None:
    one, other = record_of("packed/plain"), record_of("packed/meta-tokens")
    data = [Path("out", record.path).read_bytes() for record in (one, other)]
    Path("out", one.path).write_bytes(data[1])
    Path("out", other.path).write_bytes(data[0])
    assert {line.split(":")[0] for line in findings()} == {one.path, other.path}


def test_a_file_of_another_layout_is_found_though_its_records_match(finished: Path) -> None:
    plain, other = record_of("packed/plain"), record_of("packed/meta-tokens")
    Path("out", plain.path).write_bytes(Path("out", other.path).read_bytes())
    record_as_it_is(plain, rows=other.rows)
    report, line = findings()
    assert report.startswith("report/summary.json: differs from the manifest and its files: layouts.plain.sequences: ")
    assert line == f"{plain.path}: holds the layout 'meta-tokens'"


def _flip_last_id(table: pa.Table) -> pa.Table:
    ids = table.column("input_ids").combine_chunks()
    ids = ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids
    flat = ids.flatten().to_numpy().copy()
    flat[1] ^= 1
    changed = pa.FixedSizeListArray.from_arrays(pa.array(flat), ids.type.list_size)
    return table.set_column(0, table.schema.field("input_ids"), changed)


def test_a_token_that_differs_is_found_though_its_records_match(finished: Path) -> None:
    record = record_of("packed/plain")
    path = Path("out", record.path)
    changed = _flip_last_id(read_table(path))
    path.unlink()  # the table is mapped
    write_table(path, changed)
    record_as_it_is(record)
    assert findings() == [f"{record.path}: text tokens differ from the token file: missing, repeated or out of order"]


def test_metadata_of_another_document_is_found_though_its_records_match(finished: Path) -> None:
    # The files are packed with another template, and all that names it is edited away.
    assert run("--set", 'layouts.prepend-url.template="{url_host}"', "--set", "output.path=other").code == 0
    for record in manifest("other").outputs["packed/prepend-url"].records:
        Path("out", record.path).write_bytes(Path("other", record.path).read_bytes())
        original = next(r for r in manifest().outputs["packed/prepend-url"].records if r.partition == record.partition)
        record_as_it_is(original, rows=record.rows)
    found = [line for line in findings() if not line.startswith("report/")]
    assert {line.split(": ")[0] for line in found} == {r.path for r in manifest().outputs["packed/prepend-url"].records}
    assert all("metadata" in line for line in found)


def test_files_of_another_recipe_are_a_usage_error(finished: Path) -> None:
    called = verify("--set", "layouts.prepend-url.dropout=0.5")
    assert called.code == 2
    assert called.line.startswith("out/packed/prepend-url was written with other settings: layout.dropout: 0.1 -> 0.5 ")


METADATA_EDITS: dict[str, tuple[Callable[[Any], object], str]] = {
    "tokenizer": (lambda info: info["tokenizer"].update(sha256="0" * 64), "its metadata: tokenizer.sha256: "),
    "name": (lambda info: info["tokenizer"].update(name="other"), "its metadata: tokenizer.name: "),
    "a special id": (lambda info: info["tokenizer"]["special"].update(eos=1), "tokenizer.special.eos: "),
    "settings": (lambda info: info.update(fingerprint="0" * 64), "its metadata: fingerprint: "),
    "template": (lambda info: info["layout"].update(template="{url_host}"), "its metadata: layout.template: "),
    "weights": (lambda info: info["role_weights"].update(metadata=1.0), "labels of role metadata have loss weight 1"),
    "counts": (lambda info: info["num_tokens"].update(text=1), "tokens of role text; the schema metadata has 1"),
    "input": (lambda info: info.update(sources=["data/other.parquet"]), "its metadata names the input data/other"),
    "no input": (lambda info: info.update(sources=[]), "its metadata names the input , the manifest data/"),
}


def test_metadata_of_a_packed_file_that_is_edited_is_found_though_its_records_match(finished: Path) -> None:
    record, resolved = record_of("packed/prepend-url"), resolved_recipe()
    path = Path("out", record.path)
    data = path.read_bytes()
    table = pa.ipc.open_file(data).read_all()
    for name, (edit, message) in METADATA_EDITS.items():
        info = json.loads(table.schema.metadata[b"colophon"])
        edit(info)
        write_table(path, table.replace_schema_metadata({b"colophon": json.dumps(info).encode()}))
        record_as_it_is(record)
        found = [
            finding.message
            for _, of_file in file_findings(resolved, manifest(), resolved.store.ledger())
            for finding in of_file
        ]
        assert any(message in line for line in found), (name, found)


def test_a_layout_removed_from_the_recipe_is_still_checked(finished: Path) -> None:
    Path("recipe.toml").write_text(RECIPE.replace('[layouts.plain]\nposition = "plain"\n', ""))
    called = verify()
    assert called.code == 0, called.err
    path = Path("out", record_of("packed/plain").path)
    path.write_bytes(path.read_bytes()[:-1])
    assert len(findings()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "out has no manifest.json: run `colophon run` first"), ("{", "out/manifest.json: damaged: ")],
)
def test_a_run_without_a_readable_manifest_is_a_usage_error(finished: Path, text: str | None, message: str) -> None:
    Path("out/manifest.json").unlink()
    if text is not None:
        Path("out/manifest.json").write_text(text)
    called = verify()
    assert called.code == 2
    assert called.line.startswith(message)
