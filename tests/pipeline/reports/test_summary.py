"""The summary agrees with the files; printing it is safe whatever documents hold."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from colophon.pipeline.errors import printable
from colophon.pipeline.reports.summary import print_summary, summarize, write_report
from colophon.pipeline.runs.progress import Meter, duration, watch
from colophon.pipeline.stages.tasks import Outcome, Task, TaskResult
from colophon.shards.arrow_files import read_table
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import ROLE_NAMES, Role
from colophon.shards.tokenizer.losses import LOSS_COUNTS
from tests.pipeline.project import (
    LAYOUTS,
    RECIPE,
    ROWS_OF_FILES,
    document,
    execute,
    manifest,
    resolved_recipe,
    run,
    snapshot,
    write_documents,
)


@pytest.fixture
def summary(finished: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Path("out/report/summary.json").read_text())
    return value


def test_documents_and_tokens_are_those_of_the_files(summary: dict[str, Any]) -> None:
    documents = [document(number) for number in range(sum(ROWS_OF_FILES))]
    tables = [read_table(Path("out", record.path)) for record in manifest().outputs["tokens"].records]
    counts = [len(ids) for table in tables for ids in table.column("input_ids").to_pylist()]
    assert summary["documents"] == {
        "files": 3,
        "partitions": len(tables),
        "documents": len(documents),
        "text_bytes": sum(len((row["text"] or "").encode()) for row in documents),
        "tokens": sum(counts),
        "documents_empty": sum(not row["text"] for row in documents),
        "texts_null": sum(row["text"] is None for row in documents),
        "texts_repaired": 0,
        **dict.fromkeys(LOSS_COUNTS, 0),
        "other_records": 0,
        "values_of_wrong_type": 0,
        "values_too_long": 0,
        "excluded": 0,
    }
    assert counts.count(0) == summary["documents"]["documents_empty"]
    assert summary["quarantined"] == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_of_a_layout_are_those_of_its_files(summary: dict[str, Any], layout: str) -> None:
    dataset = PackedDataset.open(Path("out"), layout)
    rows = dataset.rows(range(len(dataset)))
    tokens = Counter(ROLE_NAMES[role] for role in rows.roles.reshape(-1).tolist())
    counts = summary["layouts"][layout]
    assert counts["sequences"] == len(dataset)
    assert counts["tokens"] == {role: tokens[role] for role in ROLE_NAMES}
    assert counts["utilisation"] == pytest.approx(1 - tokens["pad"] / rows.input_ids.size, abs=1e-6)
    assert counts["text_share"] == pytest.approx(tokens["text"] / rows.input_ids.size, abs=1e-6)
    assert 0.9 < counts["utilisation"] < 1
    segments: Counter[tuple[int, int]] = Counter()
    for file_number, file in enumerate(dataset.files):
        _, _, roles, documents = file.all_runs()
        segments.update((file_number, int(number)) for number in documents[roles == Role.BOS])
    assert counts["documents_cut"] == sum(number > 1 for number in segments.values())
    assert counts["segments"] == sum(segments.values())


def test_annotation_columns_are_described_by_their_values(summary: dict[str, Any]) -> None:
    described = {row["column"]: row for row in summary["annotations"]}
    documents = [document(number) for number in range(sum(ROWS_OF_FILES))]
    years = [str(row["dump"])[8:12] for row in documents if row["dump"] != "elsewhere"]
    assert described["crawl_year"]["known"] == len(years) / len(documents)
    assert described["crawl_year"]["distinct"] == len(set(years))
    top, number = Counter(years).most_common(1)[0]
    assert described["crawl_year"]["frequent"][0]["share"] == pytest.approx(number / len(years), abs=1e-6)
    assert described["url"]["known"] == sum(row["url"] is not None for row in documents) / len(documents)
    assert described["url_prefix"]["frequent"] == [{"value": "https://", "share": 1.0}]
    assert set(described) == set(resolved_recipe().columns.annotator_of)
    assert top in years


def test_the_table_shows_the_numbers_of_the_summary(finished: Path) -> None:
    out = run().out
    summary = json.loads(Path("out/report/summary.json").read_text())
    assert f"{summary['documents']['documents']:,} documents of 3 files" in out
    assert f"({summary['documents']['documents_empty']} empty, {summary['documents']['texts_null']} null)" in out
    for name, layout in summary["layouts"].items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"{name}  ")]
        cells = re.split(" {2,}", line)
        tokens = layout["tokens"]
        assert cells == [
            name,
            f"{layout['sequences']:,}",
            f"{tokens['text']:,}",
            f"{tokens['metadata'] + tokens['meta_token']:,}",
            f"{tokens['bos'] + tokens['eos'] + tokens['wrapper']:,}",
            f"{tokens['pad']:,}",
            f"{layout['utilisation']:.2%}",
            f"{layout.get('documents_cut', 0):,}",
            f"{layout.get('metadata_cut', 0):,}",
            f"{layout.get('documents_dropped', 0):,}",
        ]


def test_an_empty_run_is_summarised(project: Path) -> None:
    write_documents(Path("none.parquet"), range(0))
    result = execute("input.paths=none.parquet")
    summary = summarize(result, store=resolved_recipe().store)
    console = Console(file=io.StringIO(), markup=False)
    print_summary(summary, result.manifest, console=console)
    write_report(summary, result, store=resolved_recipe().store)
    assert summary["documents"]["documents"] == 0
    assert summary["layouts"] == {}


HOSTILE_URLS = [
    "https://h.example/[/red]",
    "https://h.example/[bold]x",
    "https://h.example/:smile:",
    "x://\x1b[31m/\x07",
]


def test_text_of_documents_is_neither_markup_nor_escape_sequence(project: Path) -> None:
    rows = [{**document(0), "url": url, "id": f"[/red] {url}"} for url in HOSTILE_URLS for _ in range(3)]
    rows += [{**document(0), "url": HOSTILE_URLS[-1]}]
    pq.write_table(pa.Table.from_pylist(rows), "[bold]hostile.parquet")
    Path("data/[bold]broken.parquet").write_bytes(b"")
    called = run("--set", 'input.paths=["[bold]hostile.parquet", "data/[bold]broken.parquet"]')
    assert (called.code, called.err) == (3, "")
    assert "https://h.example/[/red]" in called.out
    assert "https://h.example/:smile:" in called.out
    assert r"x://\x1b[31m/\x07" in called.out
    assert "quarantined: data/[bold]broken.parquet: " in called.out
    assert "\x1b" not in called.out
    assert "\x07" not in called.out


def test_control_characters_are_escaped() -> None:
    assert printable("a\x1b[31mb\x00ü\n\t\u202e") == r"a\x1b[31mb\x00ü" + "\n\t" + r"\u202e"


@pytest.mark.parametrize("output", ["out [1]", "o*t", "out ü"])
def test_output_directories_may_have_any_name(project: Path, output: str) -> None:
    called = run("--set", f'output.path="{output}"')
    assert (called.code, called.err) == (0, "")
    assert "crawl_year" in called.out


# report/run.json


def report_of_run() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Path("out/report/run.json").read_text())
    return value


def test_a_run_reports_its_time_by_step(finished: Path, summary: dict[str, Any]) -> None:
    report = report_of_run()
    steps = {"annotate, tokenize": ("read", "annotate", "tokenize", "write"), "pack": ("read", "pack", "write")}
    assert list(report["passes"]) == list(steps)
    assert report["start"]["seconds"] > report["start"]["connect_seconds"] >= 0
    for name, timing in report["passes"].items():
        assert timing["partitions"] > 0 and timing["documents"] == sum(ROWS_OF_FILES)
        running = {step: seconds for step, seconds in timing["worker_seconds"].items() if step != "load"}
        assert {step for step, seconds in running.items() if seconds} == set(steps[name])
        whole = sum(running.values())
        assert timing["share"] == pytest.approx({step: n / whole for step, n in running.items()}, abs=0.01)
        assert summary["passes"][name] == timing


def test_the_table_shows_the_share_of_each_step(finished: Path, summary: dict[str, Any]) -> None:
    file = io.StringIO()
    print_summary(summary, manifest(), console=Console(file=file, width=200))
    for name, timing in summary["passes"].items():
        (line,) = [line for line in file.getvalue().splitlines() if line.startswith(f"{name}  ")]
        cells = re.split(" {2,}", line)
        assert cells[-6:] == [
            f"{timing['worker_seconds']['load']:.1f} s",
            *(f"{n:.0%}" if n else "-" for n in timing["share"].values()),
        ]


def test_a_run_with_nothing_to_do_leaves_the_report_of_the_last_one(finished: Path) -> None:
    before = snapshot(Path("out/report"))
    called = run()
    assert called.code == 0
    assert snapshot(Path("out/report")) == before
    assert "nothing to do: all files are up to date" in called.out
    assert "this run (start" not in called.out


def test_the_report_of_a_run_has_the_passes_with_work(finished: Path) -> None:
    before = report_of_run()["passes"]
    called = run("--set", "layouts.prepend-url.dropout=0.5", "--rebuild")
    assert called.code == 0, called.err
    assert list(before) == ["annotate, tokenize", "pack"]
    assert list(report_of_run()["passes"]) == ["pack"]
    assert "nothing to do" not in called.out


def test_a_report_that_is_damaged_or_gone_is_written_again(finished: Path) -> None:
    Path("out/report/summary.json").write_text("[")
    Path("out/report/run.json").unlink()
    assert run().code == 0
    summary = json.loads(Path("out/report/summary.json").read_text())
    assert summary["passes"] == {}
    assert summary["documents"]["documents"] == sum(ROWS_OF_FILES)
    assert report_of_run()["passes"] == {}


def test_notes_are_shown_once_a_run_and_reported(project: Path) -> None:
    called = run()
    assert called.code == 0, called.err
    (note,) = report_of_run()["notes"]
    assert note.startswith("tokenizer small: ")
    assert called.out.count(note) == 1
    assert called.out.index(note) < called.out.rindex("annotate, tokenize: ")


# progress


def outcome(rows: int, *, error: str | None = None) -> Outcome:
    (partition, *_) = resolved_recipe().inputs.partitions
    task = Task(partition=partition, outputs={})
    if error is not None:
        return Outcome(task=task, error=error)
    return Outcome(task=task, result=TaskResult(records=(), documents=rows, text_bytes=rows * 1_000_000))


def test_progress_counts_documents_bytes_and_the_time_left(project: Path) -> None:
    one = outcome(30)
    seconds = iter([0.0, *[10.0] * 20])
    meter = Meter("tokenize", total_bytes=4 * one.task.partition.bytes, total_tasks=4, clock=lambda: next(seconds))
    assert meter.tasks == 0
    meter.add(one)
    meter.add(outcome(0, error="broken"))
    assert meter.line() == ("tokenize: 2/4 partitions, 30 documents, 3 documents/s, 3.0 MB/s, 1 quarantined, 0:10 left")


def test_progress_yields_every_outcome_and_ends_with_a_line(project: Path) -> None:
    for terminal in (False, True):
        file = io.StringIO()
        outcomes = [outcome(1), outcome(2)]
        console = Console(file=file, force_terminal=terminal, width=150)
        yielded = list(watch(outcomes, name="pack", total_bytes=9, total_tasks=2, console=console))
        assert yielded == outcomes
        assert "pack: 2/2 partitions, 3 documents" in file.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_recipe_without_layouts_has_a_summary(project: Path) -> None:
    Path("recipe.toml").write_text(RECIPE[: RECIPE.index("[layouts.plain]")])
    called = run()
    assert (called.code, called.err) == (0, "")
    assert json.loads(Path("out/report/summary.json").read_text())["layouts"] == {}


def test_the_example_of_a_list_is_its_values(project: Path) -> None:
    with Path("recipe.toml").open("a") as recipe:
        recipe.write('[annotators.keys]\ntype = "duplicate_keys"\nmethod = "exact"\n')
    assert re.search(r" keys_keys .* such as \[\d+", run().out)
