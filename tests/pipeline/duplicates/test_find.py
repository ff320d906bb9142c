"""`colophon duplicates`: from a recipe to the columns of the run, whatever cuts the input or computes the keys."""

from __future__ import annotations

import json
import os
import signal
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
from colophon.shards.common.errors import ColophonError, DamagedFileError
from colophon.shards.manifest import read_manifest
from tests.pipeline.executors.nodes import two_nodes
from tests.pipeline.project import colophon, redone, snapshot
from tests.pipeline.runs.test_faults import INLINE, TWO_WORKERS, call, ended, fault, start, wait_for

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


def annotate(*settings: str, notes: list[str] | None = None) -> list[tuple[Any, Any, Any]]:
    """The columns of all documents in input order, of a run; its notes are appended to `notes`."""
    recipe = load_recipe("recipe.toml", overrides=settings)
    result = run_recipe(recipe, stages=("annotate",), executor="inline", rebuild=True)
    ([] if notes is None else notes).extend(result.notes)
    outputs = read_manifest(Path(recipe.output.path)).outputs
    records = outputs["annotations/duplicates"].records if outputs else []
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


def test_damaged_keys_are_named_and_computed_again(project: Path) -> None:
    find()
    table = Path("duplicates.parquet").read_bytes()
    path = sorted(Path("out/duplicates/duplicates/annotations").rglob("*.parquet"))[0]
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DamagedFileError, match=r"parquet: damaged: .*[.] Delete it; the same command writes it again"):
        find()
    path.unlink()
    find()
    assert Path("duplicates.parquet").read_bytes() == table


def test_a_file_that_is_new_or_changed_since_has_nulls_and_is_noted(project: Path) -> None:
    Path("data/empty.jsonl").write_text("")
    notes: list[str] = []
    find()
    annotate(notes=notes)
    assert notes == []
    pq.write_table(pa.table({"text": [text_of(3)], "url": [""]}), "data/c.parquet")
    Path("data/b.jsonl").write_text(Path("data/b.jsonl").read_text().replace("the", "The", 1))
    rows = annotate(notes=notes)
    assert rows[:11] == [*((n, 2, True) for n in range(10)), (None, 1, True)]
    assert rows[40:] == [(None, None, None)] * 41
    assert len(notes) == 1
    assert notes[0].startswith(f"annotators.duplicates: {project}/duplicates.parquet is out of date: it has nothing on")
    assert "nothing on 2 of 4 files, which are new, have changed or could not be read. " in notes[0]
    find()
    assert annotate(notes=notes)[80:] == [(3, 3, False)]
    assert len(notes) == 1


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
    for number in range(6):
        Path(f"data/z{number}.parquet").write_bytes(b"PAR1")
    called = colophon("duplicates", "recipe.toml", "--executor", "inline")
    *quarantined, more, last = called.out.splitlines()[1:]
    assert called.code == 3
    assert [line.split(": ")[:2] for line in quarantined] == [["quarantined", f"data/z{n}.parquet"] for n in range(5)]
    assert more == "... and 1 more in out/duplicates/duplicates/quarantine.jsonl"
    assert last.startswith("duplicates: 20 of 80 documents are in 10 clusters; 10 are not kept. 6 files or partitions ")


def test_input_without_rows_has_an_empty_table(project: Path) -> None:
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in ("text", "url")}), "only.parquet")
    settings = ('input.paths=["only.parquet"]', "layouts={}")
    found = find(*settings)
    assert (found.documents, found.clusters, found.quarantined) == (0, 0, 0)
    assert pq.read_table("duplicates.parquet").num_rows == 0
    assert annotate(*settings) == []


def test_a_table_stays_where_no_document_can_be_read(project: Path) -> None:
    find()
    before = Path("duplicates.parquet").read_bytes()
    with pytest.raises(
        ColophonError, match=r"annotators\.duplicates: no document can be read: see .*quarantine\.jsonl"
    ):
        find("annotators.duplicates.keep=highest", "annotators.duplicates.score=url", rebuild=True)
    assert Path("duplicates.parquet").read_bytes() == before


def test_a_column_of_an_annotator_of_a_wrong_type_ends_the_command_before_work(project: Path) -> None:
    find()
    table = Path("duplicates.parquet").read_bytes()
    message = r"^recipe: annotators\.duplicates: column 'quality_fine' has type int8; text .* is needed$"
    with pytest.raises(UsageError, match=message):
        find("annotators.edu_score={}", "annotators.duplicates.within=quality_fine", rebuild=True)
    assert Path("duplicates.parquet").read_bytes() == table


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data", "data is a directory; the table is a file"),
        ("recipe.toml/x", "recipe.toml: File exists"),
        ("data/table", "data/table is inside of .*, which input.paths searches: its files would become input. .*"),
    ],
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


def test_shards_and_the_command_after_them_write_the_table_of_one_command(project: Path) -> None:
    find()
    expected = Path("duplicates.parquet").read_bytes()
    Path("duplicates.parquet").unlink()
    command = ("duplicates", "recipe.toml", "--set", "output.path=shards", "--executor", "inline")
    [of_json] = json.loads(colophon(*command, "--shard", "2/2", "--json").out)["duplicates"]
    assert (of_json["name"], of_json["shard"], of_json["partitions"]) == ("duplicates", "2/2", 4)
    called = colophon(*command, "--shard", "1/2")
    then = "colophon duplicates recipe.toml --set output.path=shards"
    line = f"shard 1/2: 3 partitions are complete. When all shards are: {then}"
    assert (called.code, called.out.splitlines()[-1]) == (0, line)
    assert not Path("duplicates.parquet").exists()
    before = snapshot(Path("shards"))
    assert colophon(*command).code == 0
    assert redone(before, snapshot(Path("shards"))) == set()
    assert Path("duplicates.parquet").read_bytes() == expected


def assert_resumed(project: Path, before: dict[str, tuple[int, int]], expected: bytes) -> None:
    """The command writes the table of an undisturbed run, redoes no key file, and leaves nothing of a killed one."""
    for left in project.glob(".duplicates*"):
        os.utime(left, (0, 0))  # a directory of less than a minute is kept: its owner may be about to lock it
    find()
    assert Path("duplicates.parquet").read_bytes() == expected
    assert list(project.glob(".duplicates*")) == []
    done = {path for path in before if "/annotations/" in path and path.endswith(".parquet")}
    assert len(done) > 1
    assert redone(before, snapshot(Path("out"))).isdisjoint(done)


@pytest.fixture
def expected(project: Path) -> bytes:
    """The table of an undisturbed command, which is removed; and an empty directory `marks`."""
    find("output.path=whole")
    (project / "marks").mkdir()
    table = Path("duplicates.parquet").read_bytes()
    Path("duplicates.parquet").unlink()
    return table


@pytest.mark.parametrize(
    ("step", "stage", "at"), [("mid-write", "annotate", 4), ("mid-write", "pairs", 3), ("before rename", "table", 1)]
)
def test_a_killed_command_is_resumed(project: Path, expected: bytes, step: str, stage: str, at: int) -> None:
    environment = fault(project / "marks", step, "kill", stage=stage, at=at)
    assert call("duplicates", "recipe.toml", *INLINE, env=environment)[0] == -signal.SIGKILL
    assert not Path("duplicates.parquet").exists()
    assert_resumed(project, snapshot(Path("out")), expected)


@pytest.mark.slow
def test_killed_workers_and_a_killed_command_with_workers(project: Path, expected: bytes) -> None:
    local = ("duplicates", "recipe.toml", "--executor", "local", *TWO_WORKERS)
    killed = fault(project / "marks", "mid-write", "kill", stage="annotate", at=3)
    assert call(*local, "--set", "output.path=survived", env=killed)[0] == 0
    assert Path("duplicates.parquet").read_bytes() == expected
    Path("duplicates.parquet").unlink()
    (project / "hang").mkdir()
    process = start(*local, env=fault(project / "hang", "mid-write", "hang", stage="annotate", at=4, times=2))
    wait_for((project / "hang/5").exists, process)
    wait_for(lambda: len(list(Path("out").rglob("annotations/**/*.parquet"))) > 2, process)
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    assert_resumed(project, snapshot(Path("out")), expected)


def test_the_command(project: Path) -> None:
    called = colophon("duplicates", "recipe.toml", "--executor", "inline")
    line = "duplicates: 20 of 80 documents are in 10 clusters; 10 are not kept. duplicates.parquet"
    assert (called.code, called.out.splitlines()[-1]) == (0, line)
    called = colophon("duplicates", "recipe.toml", "--executor", "inline", "--json")
    assert json.loads(called.out)["duplicates"][0]["not_kept"] == 10
    assert colophon("annotate", "recipe.toml", "--executor", "inline").code == 0
    assert colophon("export", "recipe.toml", "--to", "exported").code == 0
    (schema, *_) = {pq.read_schema(file) for file in Path("exported").iterdir()}
    assert not {"document_file", "document_place"} & {*schema.names}, "they are for annotators alone"
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
