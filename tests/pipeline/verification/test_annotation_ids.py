"""Annotation files have the ids of their documents; files of older versions, without them, are read as before."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

import colophon as face
from colophon.shards.arrow_files import read_table
from colophon.shards.common.errors import ShardError
from tests.pipeline.project import colophon, execute, manifest, resolved_recipe, run
from tests.pipeline.verification.helpers import findings, record_as_it_is, record_of, verify


def test_every_annotation_file_has_the_ids_of_the_tokens(finished: Path) -> None:
    outputs = manifest().outputs
    for name in ("url", "crawl", "edu_score"):
        for tokens, record in zip(outputs["tokens"].records, outputs[f"annotations/{name}"].records, strict=True):
            table = pq.read_table(Path("out", record.path))
            assert table.column_names[0] == "id"
            assert table.column("id").to_pylist() == read_table(Path("out", tokens.path)).column("id").to_pylist()
            assert "id" in record.content
            assert "id_null" not in record.counts


def test_annotations_without_tokens_have_ids_too(project: Path) -> None:
    assert execute(stages=("annotate",)).exit_code == 0
    paths = [Path("out", record.path) for record in manifest().outputs["annotations/crawl"].records]
    ids = pl.read_parquet(paths)["id"]
    assert ids.null_count() == 0
    assert ids.n_unique() == len(ids) == 200
    frame = face.open("out").annotations().collect()
    assert frame["id"].to_list() == ids.to_list()
    assert frame.columns.count("id") == 1
    with pytest.raises(ShardError, match="has no tokens: run `colophon run` first"):
        face.open("out").tokens()


def older(output: str) -> None:
    """Make the second file of an annotator one of an older version."""
    record = record_of(output)
    path = Path("out", record.path)
    pq.write_table(pq.read_table(path).drop_columns(["id"]), path, write_page_checksum=True)
    record_as_it_is(record, content={name: digest for name, digest in record.content.items() if name != "id"})


def test_files_of_older_versions_are_read_beside_new_ones(finished: Path) -> None:
    before = face.open("out").annotations().collect()
    inspected = colophon("inspect", "recipe.toml", "--document", "20").out
    for output in ("annotations/url", "annotations/crawl"):
        older(output)
    after = face.open("out").annotations().collect()
    assert after.equals(before)
    assert after.columns.count("id") == 1
    verified = verify("--deep", "--inputs")
    assert (verified.code, verified.err) == (0, "")
    assert colophon("inspect", "recipe.toml", "--document", "20").out == inspected
    again = run()
    assert (again.code, "is up to date" in again.out or "nothing to do" in again.out) == (0, True), again.out
    assert colophon("export", "recipe.toml", "--to", "exported").code == 0


def test_wrong_ids_are_found(finished: Path) -> None:
    record = record_of("annotations/crawl")
    path = Path("out", record.path)
    table = pq.read_table(path)
    ids = table.column("id").to_pylist()
    changed = table.set_column(0, table.schema.field("id"), [[*ids[1:], ids[0]]])
    pq.write_table(changed, path, write_page_checksum=True)
    record_as_it_is(record)
    assert any("its id are not those that computing again gives" in line for line in findings("--deep"))


def test_a_different_column_of_ids_makes_annotations_stale_and_the_usual_one_changes_no_settings(project: Path) -> None:
    usual, mapped = resolved_recipe(), resolved_recipe('input.columns={ id = "url" }')
    crawl = "annotations/crawl"
    assert "id" not in usual.settings.by_output[crawl]["columns"]  # as in earlier versions
    assert mapped.settings.by_output[crawl]["columns"]["id"] == "url"


def test_an_annotator_cannot_write_ids(project: Path) -> None:
    recipe = Path("recipe.toml")
    recipe.write_text(recipe.read_text() + '\n[annotators.meta]\ntype = "columns"\ncolumns = ["id"]\n')
    called = run("--dry-run", "--no-probe")
    assert called.code == 2
    assert "annotators.meta writes a column 'id'; every annotation file has the documents' ids" in called.line


@pytest.mark.parametrize("command", [("report",), ("verify",)])
def test_other_commands_read_the_files(finished: Path, command: tuple[str, ...]) -> None:
    called = colophon(*command, "recipe.toml")
    assert called.code == 0, called.err
