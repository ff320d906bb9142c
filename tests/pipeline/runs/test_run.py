"""Runs: which files are redone, which inputs are quarantined, and that bytes depend on neither order nor workers."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from colophon.pipeline.errors import NodeError, UsageError
from colophon.pipeline.executors.base import Executor
from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.executors.worker import attempt
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.stages.tasks import Outcome, Stage, Task
from colophon.pipeline.storage.pass_record import pending_path
from colophon.shards.common.errors import ColophonError, ExitCode
from colophon.shards.outputs import STAGES
from tests.pipeline.commit_records import committed_records, drop_records
from tests.pipeline.project import (
    LAYOUTS,
    RECIPE,
    ROWS_OF_FILES,
    colophon,
    data_files,
    directories,
    execute,
    hashes,
    manifest,
    quarantine,
    redone,
    resolved_recipe,
    run,
    snapshot,
    write_documents,
)

PACKED = {f"packed/{layout}" for layout in LAYOUTS}
ALL = {"annotations/url", "annotations/crawl", "annotations/edu_score", "tokens", *PACKED}


class NoExecutor(Executor):
    """Fails if it gets a task."""

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        assert not tasks, f"{stage.name}: {[task.partition.name for task in tasks]}"
        return iter(())


class ShufflingExecutor(Executor):
    """Runs tasks in random order, each in its own worker, as many processes would."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        for task in self._random.sample(tasks, len(tasks)):
            yield attempt(stage.start(), task)


class DyingExecutor(Executor):
    """Runs some tasks and dies, the last time in the middle of one."""

    def __init__(self, tasks: int) -> None:
        self._left = tasks

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        for outcome in InlineExecutor().run(stage, tasks):
            if not self._left:
                raise RuntimeError("killed")
            self._left -= 1
            yield outcome


def corrupt(path: str, *, row_group: int) -> None:
    """Overwrite bytes of the text column in a row group; the footer stays as it was."""
    chunk = pq.read_metadata(path).row_group(row_group).column(0)
    data = bytearray(Path(path).read_bytes())
    place = (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size // 2
    data[place : place + 20] = bytes(byte ^ 0x55 for byte in data[place : place + 20])
    Path(path).write_bytes(bytes(data))


# the first run


def test_a_run_writes_every_file_of_every_partition(finished: Path) -> None:
    found = manifest()
    names = [partition.name for partition in found.partitions]
    assert len(names) > len(ROWS_OF_FILES)
    assert set(found.outputs) == ALL
    for output in found.outputs.values():
        assert [record.partition for record in output.records] == names
    data = {record.path for output in found.outputs.values() for record in output.records}
    assert {str(path.relative_to("out")) for path in data_files(Path("out"))} == data
    assert not [path for path in snapshot(Path("out")) if path.endswith(".tmp")]


def test_every_annotation_and_token_file_has_the_rows_of_its_partition(finished: Path) -> None:
    found = manifest()
    rows = {partition.name: partition.rows for partition in found.partitions}
    assert sum(filter(None, rows.values())) == sum(ROWS_OF_FILES)
    for name, output in found.outputs.items():
        if not name.startswith("packed/"):
            assert {record.partition: record.rows for record in output.records} == rows


@pytest.mark.parametrize("seed", [1, 2])
def test_the_bytes_do_not_depend_on_order_workers_or_place(finished: Path, seed: int) -> None:
    result = execute(f"output.path=out-{seed}", executor=ShufflingExecutor(seed))
    assert hashes(result.manifest) == hashes(manifest())
    assert result.manifest.outputs["tokens"].records == manifest().outputs["tokens"].records


def test_the_stages_one_by_one_write_the_same_files_as_a_run(finished: Path) -> None:
    for stage in ("annotate", "tokenize", "pack"):
        called = colophon(stage, "recipe.toml", "--executor", "inline", "--set", "output.path=by-stage")
        assert (called.code, called.err) == (0, "")
    assert hashes(manifest("by-stage")) == hashes(manifest())


def test_a_stage_without_its_upstream_names_the_command_to_run_first(project: Path) -> None:
    called = colophon("pack", "recipe.toml", "--executor", "inline")
    assert called.code == 2
    assert called.line.startswith("packed/plain: tokens of partition part-0-")
    assert called.line.endswith("run `colophon tokenize` first, or `colophon run` for all stages")
    assert colophon("tokenize", "recipe.toml", "--executor", "inline").code == 0
    called = colophon("pack", "recipe.toml", "--executor", "inline")
    assert called.code == 2
    assert "run `colophon annotate` first" in called.line


def test_annotating_needs_no_tokenizer(project: Path) -> None:
    Path("recipe.toml").write_text(RECIPE[: RECIPE.index("[tokenizer]")])
    called = colophon("annotate", "recipe.toml", "--executor", "inline")
    assert (called.code, called.err) == (0, "")
    assert set(manifest().outputs) == {"annotations/url", "annotations/crawl", "annotations/edu_score"}


def test_input_without_rows_is_an_empty_run(project: Path) -> None:
    write_documents(Path("none.parquet"), range(0))
    called = run("--set", "input.paths=none.parquet")
    assert (called.code, called.err) == (0, "")
    assert "0 documents of 0 files" in called.out
    assert manifest().outputs == {}


# redoing


def test_a_second_run_starts_nothing_and_writes_no_file(finished: Path) -> None:
    before = snapshot(Path("out"))
    result = execute(executor=NoExecutor())
    assert result.exit_code is ExitCode.COMPLETE
    assert redone(before, snapshot(Path("out"))) == set()
    assert hashes(result.manifest) == hashes(manifest())
    assert [(timing.partitions, timing.seconds) for timing in result.timings] == [(0, 0.0)] * 2


def test_a_run_over_the_output_of_an_older_version_redoes_nothing(finished: Path) -> None:
    """Each file had a record of its own, which the first run moves into a segment."""
    records = committed_records()
    for segment in Path("out/records").glob("segment-*"):
        segment.unlink()
    for record in records:
        value = record.model_dump(mode="json")
        path = Path("out/records", record.output, f"{record.partition}.json")
        path.write_text(json.dumps({"stage": value.pop("output"), **value}))
    content = json.loads(manifest().model_dump_json())
    for entry in content["outputs"].values():
        entry["records"] = [{"stage": record.pop("output"), **record} for record in entry["records"]]
    Path("out/manifest.json").write_text(json.dumps({"stages": content.pop("outputs"), **content}))
    before, expected = snapshot(Path("out")), hashes(manifest())
    result = execute(executor=NoExecutor())
    assert redone(before, snapshot(Path("out"))) == set()
    assert hashes(result.manifest) == hashes(manifest()) == expected
    assert sorted(map(str, committed_records())) == sorted(map(str, records))
    assert not [*Path("out/records").rglob("part-*.json")]
    assert colophon("verify", "recipe.toml").code == 0
    assert {"outputs"} == {"stages", "outputs"} & set(json.loads(Path("out/manifest.json").read_text()))


@pytest.mark.parametrize("output", sorted(ALL))
@pytest.mark.parametrize("damage", ["file", "record", "cut"])
def test_only_lost_files_are_redone(finished: Path, output: str, damage: str) -> None:
    before, content = snapshot(Path("out")), hashes(manifest())
    record = manifest().outputs[output].records[1]
    file = Path("out", record.path)
    if damage == "file":
        file.unlink()
    elif damage == "record":
        drop_records(output, record.partition)
    else:
        file.write_bytes(file.read_bytes()[:-1])
    result = execute()
    assert redone(before, snapshot(Path("out"))) == {f"out/{record.path}"}
    assert hashes(result.manifest) == content
    assert sum(timing.partitions for timing in result.timings) == 1


@pytest.mark.parametrize("tasks", [0, 3, 17])
def test_a_run_that_died_resumes(finished: Path, tasks: int) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        execute("output.path=again", executor=DyingExecutor(tasks))
    assert not Path("again/manifest.json").exists()
    before = snapshot(Path("again"))
    data = {*map(str, data_files(Path("again")))}
    assert data
    result = execute("output.path=again")
    assert hashes(result.manifest) == hashes(manifest())
    assert not redone(before, snapshot(Path("again"))) & data


CHANGES: dict[str, set[str]] = {
    "annotators.url.private_suffixes=true": {"annotations/url", "packed/prepend-url"},
    "layouts.prepend-url.dropout=0.5": {"packed/prepend-url"},
    "layouts.append-quality.role_weights={ metadata = 0.5 }": {"packed/append-quality"},
    "layouts.meta-tokens.num_meta_tokens=3": {"packed/meta-tokens"},
    "layouts.meta-tokens.num_meta_tokens=7": PACKED,  # the vocabulary grows
    "pack.seed=1": PACKED,
    "pack.method=best_fit": PACKED,
    "pack.sequence_length=80": PACKED,
    "tokenizer.pattern=cl100k_base": {"tokens", *PACKED},
    "input.columns.id=url": {"annotations/url", "annotations/crawl", "annotations/edu_score", "tokens", *PACKED},
    "input.columns.dump=url": {"annotations/crawl", "packed/append-quality"},
}


@pytest.mark.parametrize(("setting", "stale"), CHANGES.items(), ids=list(CHANGES))
def test_changed_settings_are_named_and_rebuilt_only_where_they_matter(
    finished: Path, setting: str, stale: set[str]
) -> None:
    before = snapshot(Path("out"))
    called = run("--set", setting)
    assert called.code == 2
    assert " was written with other settings: " in called.line
    assert called.line.startswith("out/")
    assert called.line.removeprefix("out/").split(" ")[0] in stale
    assert "--rebuild" in called.line
    assert snapshot(Path("out")) == before

    called = run("--set", setting, "--rebuild")
    assert (called.code, called.err) == (0, "")
    assert directories(redone(before, snapshot(Path("out")))) == stale
    assert hashes(execute(setting, executor=NoExecutor()).manifest) == hashes(manifest())
    verified = colophon("verify", "recipe.toml", "--set", setting)
    assert (verified.code, verified.err) == (0, "")


def test_a_difference_is_named_by_its_key_and_both_values(finished: Path) -> None:
    line = run("--set", "layouts.prepend-url.dropout=0.5").line
    assert line == (
        "out/packed/prepend-url was written with other settings: layout.dropout: 0.1 -> 0.5 "
        "(--rebuild replaces the outdated files; a different output.path keeps both)"
    )


def test_a_rebuild_that_died_resumes_without_the_flag(finished: Path) -> None:
    setting = "pack.seed=1"
    with pytest.raises(RuntimeError, match="killed"):
        execute(setting, executor=DyingExecutor(2), rebuild=True)
    old = hashes(manifest())
    resumed = hashes(execute(setting).manifest)
    assert resumed == hashes(execute(setting, "output.path=fresh").manifest) != old


@pytest.mark.parametrize(
    ("setting", "written"),
    [
        ("layouts.more={ position = 'prepend', template = '{url_host}', max_metadata_tokens = 9 }", {"packed/more"}),
        ("annotators.more={ type = 'edu_score', prefix = 'more' }", {"annotations/more"}),
        ("ray.num_workers=3", set()),
        ("train.tiny.steps=9", set()),
    ],
)
def test_new_outputs_are_written_and_the_rest_stays(finished: Path, setting: str, written: set[str]) -> None:
    before = snapshot(Path("out"))
    called = run("--set", setting)
    assert (called.code, called.err) == (0, "")
    assert directories(redone(before, snapshot(Path("out")))) == written


def test_a_layout_removed_from_the_recipe_leaves_the_manifest(finished: Path) -> None:
    text = RECIPE.replace('[layouts.meta-tokens]\nposition = "meta_tokens"\n', "")
    Path("recipe.toml").write_text(text)
    assert run().code == 0
    assert set(manifest().outputs) == ALL - {"packed/meta-tokens"}


def test_only_an_appended_file_is_processed(finished: Path) -> None:
    before, content = snapshot(Path("out")), hashes(manifest())
    write_documents(Path("data/part-1b.parquet"), range(500, 510))
    called = run()
    assert (called.code, called.err) == (0, "")
    written = redone(before, snapshot(Path("out")))
    assert directories(written) == ALL
    assert all(Path(path).name.startswith("part-1b-") for path in written)
    after = hashes(manifest())
    assert {key: after[key] for key in content} == content
    assert {partition for _, partition in after} - {partition for _, partition in content} == {
        partition.name for partition in manifest().partitions if partition.source == "data/part-1b.parquet"
    }


def test_only_a_changed_file_is_processed(finished: Path) -> None:
    before = snapshot(Path("out"))
    write_documents(Path("data/part-2.parquet"), range(300, 350))
    assert run().code == 0
    written = redone(before, snapshot(Path("out")))
    assert directories(written) == ALL
    assert all(Path(path).name.startswith("part-2-") for path in written)


def test_a_removed_file_leaves_the_manifest(finished: Path) -> None:
    Path("data/part-0.parquet").unlink()
    before = snapshot(Path("out"))
    assert run().code == 0
    assert redone(before, snapshot(Path("out"))) == set()
    assert {partition.source for partition in manifest().partitions} == {"data/part-1.parquet", "data/part-2.parquet"}


def test_other_partition_sizes_need_no_rebuild(finished: Path) -> None:
    larger = ("--set", "input.partition_bytes=1000000")
    called = run(*larger)
    assert (called.code, called.err) == (0, "")
    assert len(manifest().partitions) == len(ROWS_OF_FILES)
    assert colophon("verify", "recipe.toml", *larger).code == 0


# quarantine


def test_a_partition_that_cannot_be_annotated_is_in_no_output(project: Path) -> None:
    corrupt("data/part-1.parquet", row_group=1)
    called = run("--set", "input.columns.dump=text")  # so that annotating reads the damaged column
    assert called.code == 3
    assert called.err == ""
    (entry,) = quarantine()
    assert (entry.source, entry.stage) == ("data/part-1.parquet", "annotate, tokenize")
    assert "CRC" in entry.reason
    assert entry.rows
    found = manifest()
    assert list(found.quarantine) == [entry]
    assert entry.partition not in {partition.name for partition in found.partitions}
    assert entry.partition not in {partition for _, partition in hashes(found)}
    assert set(found.outputs) == ALL
    assert sum(p.rows or 0 for p in found.partitions) + entry.rows == sum(ROWS_OF_FILES)
    assert f"quarantined: data/part-1.parquet: {entry.reason}" in called.out


def test_a_partition_that_cannot_be_tokenized_is_not_packed(project: Path) -> None:
    corrupt("data/part-1.parquet", row_group=1)
    assert run().code == 3
    (entry,) = quarantine()
    assert entry.stage == "annotate, tokenize"
    assert {partition for output, partition in hashes(manifest()) if output.startswith("packed/")} == {
        partition.name for partition in manifest().partitions
    }


def test_a_repaired_file_is_processed(finished: Path) -> None:
    good = Path("data/part-1.parquet").read_bytes()
    corrupt("data/part-1.parquet", row_group=1)
    settings = ("--set", "output.path=other")
    assert run(*settings).code == 3
    assert run(*settings).code == 3
    Path("data/part-1.parquet").write_bytes(good)
    assert run(*settings).code == 0
    assert quarantine("other") == []
    assert hashes(manifest("other")) == hashes(manifest())


def test_bad_lines_are_listed_once_on_every_run(project: Path) -> None:
    Path("bad.jsonl").write_text('{"text": "a", "url": "u"}\nnonsense\n{"text": "b"}\n[]\n')
    Path("recipe.toml").write_text(RECIPE.replace('"data/*.parquet"', '"bad.jsonl"'))
    for _ in range(2):
        assert run().code == 3
        assert [(entry.source, entry.line, entry.rows) for entry in quarantine()] == [
            ("bad.jsonl", 2, 1),
            ("bad.jsonl", 4, 1),
        ]
    assert manifest().outputs["tokens"].records[0].rows == 2
    assert manifest().outputs["tokens"].records[0].counts["lines_bad"] == 2


@pytest.mark.parametrize("fault", ["file", "page", "line"])
def test_strict_stops_at_the_first_input_that_cannot_be_read(project: Path, fault: str) -> None:
    if fault == "file":
        Path("data/part-1.parquet").write_bytes(b"")
    elif fault == "page":
        corrupt("data/part-1.parquet", row_group=1)
    else:
        Path("data/x.jsonl").write_text('{"text": "a"}\nnonsense\n')
    called = run("--strict", "--set", 'input.paths=["data"]')
    assert called.code == 1
    where = {"file": "data/part-1.parquet", "page": "data/part-1.parquet", "line": "data/x.jsonl:2"}[fault]
    assert called.line.startswith(f"--strict: {where}: ")
    assert not Path("out/manifest.json").exists()
    if fault == "file":
        assert not Path("out").exists()


def test_an_annotator_that_cannot_use_a_column_quarantines_with_its_reason(project: Path) -> None:
    Path("recipe.toml").write_text(RECIPE.replace("[annotators.edu_score]", '[annotators.edu_score]\ncolumn = "url"'))
    called = run()
    assert called.code == 3
    assert {entry.reason for entry in quarantine()} == {"column 'url' has type string; a number is needed"}


# annotators that read annotators


def dependent(model: Path) -> list[str]:
    """Overrides: `edu` reads the score of `quality`, and is before it in the recipe."""
    score = "{ expected = { low = 0, high = 5 } }"
    return [
        "annotators.edu={ type = 'edu_score', column = 'quality_score', prefix = 'edu' }",
        f"annotators.quality={{ type = 'fasttext', model = '{model}', score = {score} }}",
        "layouts.prepend-edu={ position = 'prepend', template = '{edu_fine}', max_metadata_tokens = 4 }",
    ]


def test_an_annotator_reads_anothers_column_in_one_pass_and_in_two(project: Path, quality_model: Path) -> None:
    settings = dependent(quality_model)
    one_pass = execute(*settings).manifest
    first = next(r for r in one_pass.outputs["annotations/edu"].records if r.rows)
    written = pq.read_table(f"out/{first.path}").to_pylist()
    scores = pq.read_table(f"out/annotations/quality/{first.partition}.parquet").column("quality_score").to_pylist()
    assert any(score is not None for score in scores)
    assert [row["edu_coarse"] for row in written] == [None if s is None else round(min(max(s, 0), 5)) for s in scores]

    before = snapshot(Path("out"))
    assert hashes(execute(*settings, executor=NoExecutor()).manifest) == hashes(one_pass)
    Path("out", first.path).unlink()
    assert hashes(execute(*settings).manifest) == hashes(one_pass)
    assert redone(before, snapshot(Path("out"))) == {f"out/{first.path}"}

    two = ("output.path=two",)
    execute(settings[1], *two)
    assert hashes(execute(*settings, *two).manifest) == hashes(one_pass)


def test_a_changed_annotator_makes_those_that_read_it_stale(project: Path, quality_model: Path) -> None:
    settings = dependent(quality_model)
    execute(*settings)
    before = snapshot(Path("out"))
    execute(*settings, "annotators.quality.clip=[1, 4]", rebuild=True)
    written = directories(redone(before, snapshot(Path("out"))))
    assert written == {"annotations/quality", "annotations/edu", "packed/prepend-edu"}


def test_annotators_that_need_each_other_are_a_usage_error(project: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe.toml: annotators need each other's columns: a, b"):
        resolved_recipe(
            "annotators.a={ type = 'edu_score', column = 'b_fine', prefix = 'a' }",
            "annotators.b={ type = 'edu_score', column = 'a_fine', prefix = 'b' }",
        )


# the plan


def test_a_plan_reads_records_alone(finished: Path) -> None:
    plan = Plan(resolved_recipe())
    assert [task for stage in STAGES for task in plan.tasks([stage], without=())] == []
    record = manifest().outputs["packed/plain"].records[0]
    Path("out", record.path).unlink()
    plan = Plan(resolved_recipe())
    (task,) = plan.tasks(["pack"], without=())
    assert (task.partition.name, list(task.outputs)) == (record.partition, ["packed/plain"])
    assert task.replaces
    assert len(plan.tasks(["pack"], without={record.partition})) == 0


def test_a_full_disk_ends_the_run_with_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    called = run()
    assert called.code == 1
    place = "out/records/annotations/url/.settings.json"
    remedy = "Committed files stay; run the same command again to resume"
    assert called.line == f"{place}: No space left on device. {remedy}"


@pytest.mark.parametrize(
    ("name", "settings", "place"),
    [
        ("blocklist", "lists = { a = { path = 'a.jsonl', kind = 'hosts', column = 'host' } }", "lists"),
        ("robots", "files = 'a.jsonl', host_column = 'host'", "files"),
        ("contamination", "benchmarks = { a = { path = 'a.jsonl', columns = ['host'] } }", "benchmarks.a"),
    ],
)
def test_a_list_at_fault_is_a_fault_of_the_recipe_and_nothing_is_written(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: str, place: str
) -> None:
    monkeypatch.setenv("COLOPHON_CACHE_DIR", "cache")
    Path("a.jsonl").write_text('{"site": "a.example"}\n')
    called = run("--set", f"annotators.{name}={{ {settings} }}")
    assert (called.code, Path("out").exists()) == (2, False)
    assert re.fullmatch(rf"recipe\.toml: annotators\.{name}\.{place}: .*: no column 'host'; columns: site", called.line)


def test_a_manifest_is_json_that_names_its_version_and_recipe(finished: Path) -> None:
    value = json.loads(Path("out/manifest.json").read_text())
    assert value["format_version"] == 1
    assert value["recipe"]["pack"]["sequence_length"] == 64


class ElsewhereExecutor(Executor):
    """Its workers' files of every third task are on a disk that this process does not see."""

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        for number, outcome in enumerate(InlineExecutor().run(stage, tasks)):
            assert outcome.result is not None
            for record in outcome.result.records if number % 3 == 1 else ():
                Path("out", record.path).unlink()
                Path("out", pending_path(record.partition)).unlink(missing_ok=True)
            yield outcome


@pytest.mark.parametrize(
    ("stages", "name", "outputs"),
    [(["annotate", "tokenize", "pack"], "annotate, tokenize", 4), (["annotate"], "annotate", 3), (["pack"], "pack", 4)],
)
def test_files_that_workers_wrote_and_nobody_sees_are_an_error(
    project: Path, stages: list[str], name: str, outputs: int
) -> None:
    if stages == ["pack"]:
        execute(stages=["annotate", "tokenize"])
        Path("out/manifest.json").unlink()
    partitions = len(resolved_recipe().inputs.partitions)
    lost = (partitions + 1) // 3 * outputs
    with pytest.raises(ColophonError) as caught:
        execute(stages=stages, executor=ElsewhereExecutor())
    line = str(caught.value)
    assert line.startswith(f"{name}: {lost} of {partitions * outputs} files are missing in out, although workers wrote")
    assert re.search(r"for example (annotations|packed)/[\w-]+ of partition part-[\w-]+\. Workers write to a", line)
    assert line.endswith("set output.path to a directory that all machines share, or to an object store")
    assert caught.value.exit_code == ExitCode.FAILED
    assert not Path("out/manifest.json").exists()
    resumed = execute(stages=stages)
    assert resumed.exit_code == ExitCode.COMPLETE
    assert {len(output.records) for output in resumed.manifest.outputs.values()} == {partitions}


@pytest.mark.parametrize("spelled", ["file://{}", "file:{}", "file://localhost{}"])
def test_an_output_at_a_file_url_is_the_directory(finished: Path, spelled: str) -> None:
    """The run continues in the directory of the run that spelled it as a path: nothing is redone, nothing is new."""
    before = snapshot()
    called = run("--set", f"output.path={spelled.format(Path('out').absolute())}")
    assert (called.code, called.err) == (0, "")
    after = snapshot()
    assert redone(before, after) == set()
    assert set(before) == set(after)


@pytest.mark.parametrize("missing", ["quality.bin", "small.tiktoken"])
def test_a_file_that_a_worker_lacks_is_no_fault_of_the_input(
    project: Path, quality_model: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was planned with it; then it is gone, as on a node that does not have it."""

    class Lacking(Executor):
        def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
            Path(missing).unlink()
            return InlineExecutor().run(stage, tasks)

    shutil.copy(quality_model, "quality.bin")
    monkeypatch.setenv("COLOPHON_CACHE_DIR", str(project / "cache"))  # no tables of the same model
    with pytest.raises(NodeError, match=missing) as caught:
        execute('annotators.q={type="fasttext",model="quality.bin",score={argmax=true}}', executor=Lacking())
    assert caught.value.exit_code == ExitCode.FAILED
    assert not Path("out/quarantine.jsonl").exists()
    assert not Path("out/manifest.json").exists()
