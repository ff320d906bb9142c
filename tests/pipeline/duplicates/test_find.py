"""`colophon duplicates`: from a recipe to the columns of the run, whatever cuts the input or computes the keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.duplicates.find import FoundDuplicates, find_duplicates
from colophon.pipeline.duplicates.keys import keys_recipe
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.recipe_run import run_recipe
from colophon.shards.manifest import read_manifest
from tests.pipeline.executors.nodes import two_nodes
from tests.pipeline.project import colophon

TEXT = "the quick brown fox jumps over the lazy dog while seven wizards watch from a hill and say nothing at all"
RECIPE = """
[input]
paths = ["data/*"]
partition_bytes = 3000
[output]
path = "out"
[annotators.url]
[annotators.duplicates]
path = "duplicates.parquet"
method = "exact"
[layouts.once]
position = "plain"
where = { duplicates_kept = true }
"""


def text_of(number: int) -> str:
    """A text of its own, without an n-gram that a text of a different number has."""
    return " ".join(f"{word}{number}" for word in TEXT.split())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Parquet and a JSON-lines file of 40 documents each, of which 10 are copies; all have the same id."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    first = [{"text": text_of(n), "id": "same", "url": f"https://a.org/{n}", "score": float(n)} for n in range(40)]
    again = [
        {"text": f"{text_of(n).upper()}!" + "!" * (n % 2), "id": "same", "url": "", "score": 9.0} for n in range(10)
    ]
    other = [{"text": text_of(100 + n), "id": "same", "url": "", "score": 0.0} for n in range(30)]
    pq.write_table(pa.Table.from_pylist(first), "data/a.parquet", row_group_size=7)
    Path("data/b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*other, *again]))
    Path("recipe.toml").write_text(RECIPE)
    return tmp_path


def find(*settings: str, **options: Any) -> FoundDuplicates:
    return find_duplicates(load_recipe("recipe.toml", overrides=settings), "duplicates", executor="inline", **options)


def annotate(*settings: str) -> list[tuple[Any, Any, Any]]:
    """The columns of all documents in input order, of a run."""
    recipe = load_recipe("recipe.toml", overrides=settings)
    run_recipe(recipe, stages=("annotate",), executor="inline")
    records = read_manifest(Path(recipe.output.path)).outputs["annotations/duplicates"].records
    rows = [row for record in records for row in pq.read_table(Path(recipe.output.path, record.path)).to_pylist()]
    return [tuple(row[f"duplicates_{name}"] for name in ("cluster", "size", "kept")) for row in rows]


def test_copies_are_marked_although_all_ids_are_equal(project: Path) -> None:
    found = find()
    assert (found.documents, found.clusters, found.clustered, found.not_kept) == (80, 10, 20, 10)
    alone = (None, 1, True)
    expected = [*((n, 2, True) for n in range(10)), *[alone] * 60, *((n, 2, False) for n in range(10))]
    assert annotate() == expected
    assert annotate("input.partition_bytes=900", "output.path=other") == expected


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ((), "first"),
        (("annotators.duplicates.keep=longest",), "last"),
        (("annotators.duplicates.keep=highest", "annotators.duplicates.score=score"), "last but the tenth"),
    ],
)
@pytest.mark.parametrize("method", ["exact", "minhash"])
def test_the_rule_decides_which_one_is_kept(project: Path, method: str, settings: tuple[str, ...], kept: str) -> None:
    find(f"annotators.duplicates.method={method}", *settings)
    rows = pq.read_table("duplicates.parquet").to_pylist()
    firsts = [row["kept"] for row in rows[:10]]
    assert [row["kept"] for row in rows[10:]] == [not first for first in firsts]
    assert firsts == [kept == "first" or (kept != "last" and n >= 9) for n in range(10)]


def test_the_table_is_the_same_for_any_cut_and_any_ranges(project: Path) -> None:
    tables = []
    for cut, range_bytes in ((3000, 1 << 20), (500, 64), (10**9, 1)):
        settings = f"input.partition_bytes={cut}", f"output.path=out-{cut}", 'annotators.duplicates.method="minhash"'
        find(*settings, range_bytes=range_bytes)
        tables.append(Path("duplicates.parquet").read_bytes())
    assert pq.read_table("duplicates.parquet").num_rows == 20
    assert len({pq.read_table(pa.BufferReader(table)).to_pandas().to_json() for table in tables}) == 1
    assert list(project.glob(".duplicates*")) == []


def test_only_documents_of_one_group_are_compared(project: Path) -> None:
    """The group is a column of an annotator, which is computed with the keys; the copies have no host."""
    settings = ('annotators.duplicates.within="url_host"',)
    assert find(*settings).clustered == 0
    keys = keys_recipe(load_recipe("recipe.toml", overrides=settings), "duplicates", where="recipe")
    assert set(keys.annotators) == {"url", "duplicates"}
    assert (keys.layouts, keys.tokenizer, keys.output.path) == ({}, None, "out/duplicates/duplicates")


def test_a_second_call_computes_no_keys_and_new_files_only_theirs(project: Path) -> None:
    find()
    table, keys = Path("duplicates.parquet").read_bytes(), Path("out/duplicates/duplicates")
    before = {path: path.stat().st_mtime_ns for path in (keys / "annotations").rglob("*.parquet")}
    assert len(before) > 6
    find()
    assert Path("duplicates.parquet").read_bytes() == table
    pq.write_table(pa.table({"text": [text_of(3), text_of(999)]}), "data/c.parquet")
    assert find().clustered == 21
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_file_that_is_new_or_changed_since_has_nulls(project: Path) -> None:
    find()
    pq.write_table(pa.table({"text": [text_of(3)], "url": [""]}), "data/c.parquet")
    Path("data/b.jsonl").write_text(Path("data/b.jsonl").read_text().replace("the", "The", 1))
    rows = annotate()
    assert rows[:11] == [*((n, 2, True) for n in range(10)), (None, 1, True)]
    assert rows[40:] == [(None, None, None)] * 41


def test_changed_settings_need_rebuild_and_other_settings_a_new_table(project: Path) -> None:
    find()
    minhash = 'annotators.duplicates.method="minhash"'
    with pytest.raises(UsageError, match=r"was written with other settings: .*--rebuild"):
        find(minhash)
    with pytest.raises(
        UsageError, match=r"recipe: annotators\.duplicates\.path: .* was made with other settings: method"
    ):
        run_recipe(load_recipe("recipe.toml", overrides=[minhash]), executor="inline")
    assert find(minhash, rebuild=True).clustered == 20


def test_input_that_cannot_be_read_is_reported(project: Path) -> None:
    Path("data/z.parquet").write_bytes(b"PAR1")
    found = find()
    assert (int(found.exit_code), found.documents, found.clustered) == (3, 80, 20)


@pytest.mark.parametrize(
    ("path", "message"),
    [("data", "data is a directory; the table is a file"), ("recipe.toml/x", "recipe.toml: File exists")],
)
def test_a_table_that_cannot_be_written_ends_the_command_before_work(project: Path, path: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"^recipe: annotators\.duplicates\.path: {project}/{message}$"):
        find(f"annotators.duplicates.path={path}")
    assert not Path("out").exists()


def test_no_annotator_writes_the_columns_of_places(project: Path) -> None:
    own = 'annotators.own={type="columns",columns=["document_place"]}'
    message = r"annotators\.own writes a column 'document_place', the name of where a document is\. Give the column"
    with pytest.raises(UsageError, match=message):
        find(own)


def test_the_command(project: Path) -> None:
    called = colophon("duplicates", "recipe.toml", "--executor", "inline")
    line = "duplicates: 20 of 80 documents are in 10 clusters; 10 are not kept. duplicates.parquet"
    assert (called.code, called.out.splitlines()[-1]) == (0, line)
    called = colophon("duplicates", "recipe.toml", "--executor", "inline", "--json")
    assert json.loads(called.out)["duplicates"][0]["not_kept"] == 10
    called = colophon("duplicates", "recipe.toml", "--name", "url")
    assert (called.code, called.line) == (
        2,
        "recipe.toml: no annotator 'url' of type 'duplicates'; available: duplicates",
    )
    Path("recipe.toml").write_text(RECIPE.partition("[annotators.duplicates]")[0])
    called = colophon("duplicates", "recipe.toml")
    assert called.code == 2
    assert called.line == "recipe.toml: no annotator of type 'duplicates'. Add one: [annotators.duplicates]"


@pytest.mark.slow
@pytest.mark.ray
def test_workers_of_two_machines_and_one_process_write_the_same_table(project: Path) -> None:
    minhash = 'annotators.duplicates.method="minhash"'
    find(minhash)
    expected = Path("duplicates.parquet").read_bytes()
    command = [sys.executable, "-m", "colophon", "duplicates", "recipe.toml", "--set", minhash]
    with two_nodes() as cluster:
        environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
        ray = [*command, "--executor", "ray", "--set", "output.path=of-ray"]
        subprocess.run(ray, env=environment, check=True, capture_output=True, timeout=600)
    assert Path("duplicates.parquet").read_bytes() == expected
    local = [*command, "--executor", "local", "--set", "output.path=of-local", "--set", "ray.num_workers=2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run(local, env=environment, check=True, capture_output=True, timeout=600)
    assert Path("duplicates.parquet").read_bytes() == expected
