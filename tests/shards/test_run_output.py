"""A run opened for reading, as a notebook does it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import colophon
from colophon.shards.common.errors import ShardError
from tests.pipeline.small_run import run_recipe, write_small_run


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    run_recipe(write_small_run(root / "project"), output=root / "out")
    return root / "out"


def test_annotations_are_joined_with_ids_in_the_order_of_the_input(output: Path) -> None:
    run = colophon.open(output)
    frame = run.annotations().collect()
    documents = pa.concat_tables(pq.read_table(f) for f in sorted(output.parent.glob("project/data/*.parquet")))
    assert frame["id"].to_list() == documents["id"].to_pylist()
    assert frame["url_host"].to_list() == [url.split("/")[2] for url in documents["url"].to_pylist()]
    assert set(frame.columns) >= {"id", "url", "url_host", "crawl_year"}


def test_frames_are_lazy(output: Path) -> None:
    annotations = colophon.open(str(output)).annotations()
    assert isinstance(annotations, pl.LazyFrame)
    found = annotations.filter(pl.col("url_host") == "site3.example.org").select(pl.len()).collect().item()
    assert found == sum(number % 7 == 3 for number in range(180))


def test_tokens_are_those_of_the_texts(output: Path) -> None:
    """The vocabulary is the 256 bytes: ids are the text's UTF-8."""
    frame = colophon.open(output).tokens().collect()
    documents = pa.concat_tables(pq.read_table(f) for f in sorted(output.parent.glob("project/data/*.parquet")))
    assert [bytes(ids) for ids in frame["input_ids"]] == [text.encode() for text in documents["text"].to_pylist()]


def test_packed_sequences_have_roles_and_weights(output: Path) -> None:
    run = colophon.open(output)
    dataset = run.packed("prepend-url")
    rows = dataset.rows(np.arange(len(dataset)))
    assert rows.input_ids.shape == (len(dataset), 161)
    text_tokens = run.tokens().select(pl.col("input_ids").list.len().sum()).collect().item()
    assert rows.loss_weights(dataset.role_weights).sum() > text_tokens  # each text token, and eos of each document
    with pytest.raises(ShardError, match=r"no layout 'prepnd'; available: append-host, meta-tokens, plain"):
        run.packed("prepnd")


def test_the_manifest_names_the_files(output: Path) -> None:
    manifest = colophon.open(output).manifest
    assert set(manifest.layouts) == {"plain", "prepend-url", "append-host", "meta-tokens"}
    assert set(manifest.annotators) == {"url", "crawl"}


def test_what_cannot_be_opened_is_named(output: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="is not the output of a finished run"):
        colophon.open(tmp_path)


def test_a_file_that_is_cut_is_named(output: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(output, tmp_path / "copy")
    damaged = sorted(copy.glob("annotations/url/*.parquet"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(ShardError, match=damaged.name):
        colophon.open(copy).annotations()


def test_an_annotator_without_one_partition_is_named(output: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(output, tmp_path / "copy")
    manifest = colophon.open(copy).manifest
    crawl = manifest.outputs["annotations/crawl"]
    fewer = crawl.model_copy(update={"records": crawl.records[1:]})
    changed = manifest.model_copy(update={"outputs": {**manifest.outputs, "annotations/crawl": fewer}})
    (copy / "manifest.json").write_text(changed.model_dump_json())
    with pytest.raises(ShardError, match=f"crawl and tokens differ in partition {crawl.records[0].partition}"):
        colophon.open(copy).annotations()


def test_reading_needs_neither_ray_nor_torch(output: Path) -> None:
    code = f"""
import sys, colophon
assert not {{"pyarrow", "polars", "pydantic", "typer"}} & set(sys.modules), "importing colophon imports no library"
run = colophon.open({str(output)!r})
run.annotations().collect(), run.tokens().collect(), run.packed("plain").rows([0])
assert not {{"ray", "torch"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_are_listed_and_an_unknown_one_is_answered_with_them() -> None:
    assert set(dir(colophon)) >= {"open", "run", "load_recipe", "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'opne'; available: "):
        _ = colophon.opne  # type: ignore[attr-defined]
