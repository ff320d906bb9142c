"""Estimates: from a probe or an earlier run, said which, and near what the run then takes."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from colophon.pipeline.estimates import probe
from colophon.pipeline.estimates.estimate import Estimate, estimate, size_text
from colophon.pipeline.estimates.rates import rate_of, remember_rate
from colophon.pipeline.estimates.sample import sampled_rows
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.partitions import plan_inputs
from colophon.pipeline.recipe.schema import InputSection
from colophon.pipeline.runs.dry_run import dry_run, print_dry_run
from colophon.pipeline.runs.plan import Plan
from colophon.shards.outputs import STAGES, Output
from tests.pipeline.project import manifest, resolved_recipe, run, snapshot, write_json_lines

TEXT = ColumnNeed("text", "text")


@pytest.fixture(autouse=True)
def a_machine_without_earlier_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLOPHON_CACHE_DIR", str(tmp_path / "cache"))


def test_a_probe_gives_time_disk_and_memory_and_leaves_nothing(project: Path) -> None:
    before = snapshot()
    planned = dry_run(resolved_recipe(), stages=STAGES)
    assert snapshot() == before
    found = planned.estimate
    assert found is not None
    file = io.StringIO()
    print_dry_run(planned, console=Console(file=file))
    shown = file.getvalue()
    parts = (
        "estimate of annotate, tokenize: about ",
        "estimate of pack: about ",
        "disk: about ",
        "memory: ",
        "recipe:",
    )
    places = [shown.index(part) for part in parts]
    assert places == sorted(places)
    assert "(from a probe of 54 documents, " in shown  # of 64: 1, 1 and 8 come before
    assert [one.name for one in found.passes] == ["annotate, tokenize", "pack"]
    for one in found.passes:
        assert one.source is not None
        assert one.source.startswith("a probe of ")
        assert one.documents == 200
        assert one.seconds is not None
        assert one.seconds >= 0
    assert found.is_worker_measured
    assert found.memory_bytes == found.workers * found.worker_bytes
    assert found.free_bytes
    assert run().code == 0
    written = {name: sum(r.bytes for r in output.records) for name, output in manifest().outputs.items()}
    assert set(found.written_bytes) == set(written)
    # 200 documents in 16 files: the ends of the files, which a probe has once, are much of their sizes.
    assert found.total_bytes < 2 * sum(written.values()) < 16 * found.total_bytes


def test_a_probe_that_has_no_time_left_is_of_one_document_and_says_so(
    project: Path, quality_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_SECONDS", 0.0)
    bins = "bins = { quantiles = 4, sample = 1000 }, score = { probability_of = 'high' }"
    quality = f"annotators.quality={{ type = 'fasttext', model = '{quality_model}', {bins} }}"
    found = dry_run(resolved_recipe(quality), stages=STAGES).estimate
    assert found is not None
    assert [one.documents for one in found.passes] == [200, 200]
    for one in found.passes:
        assert one.source is not None
        assert one.source.startswith("a probe of 1 document, ")
        assert one.source.endswith(" s, too few for more than a rough figure")


def test_a_pass_that_reads_no_text_is_estimated_by_its_documents(project: Path) -> None:
    resolved = resolved_recipe()
    found = estimate(Plan(resolved), ["annotate"])
    assert 0 < found.total_bytes < 10 * sum(partition.bytes for partition in resolved.inputs.partitions)


def test_a_selection_by_answers_that_a_probe_does_not_ask_for_counts_all_documents(project: Path) -> None:
    tags = 'annotators.tags={type="llm_tags", endpoint="http://127.0.0.1:9/v1", model="small"}'
    selected = resolved_recipe(tags, 'layouts.plain.where={tags_status="answered"}')
    found = [dry_run(each, stages=STAGES).estimate for each in (resolved_recipe(tags), selected)]
    every, answered = (one.written_bytes["packed/plain"] for one in found if one is not None)
    assert answered > every / 2


def test_a_run_that_is_up_to_date_is_not_probed(finished: Path) -> None:
    found = estimate(Plan(resolved_recipe()), STAGES)
    assert found.total_bytes == 0
    assert {(one.partitions, one.source) for one in found.passes} == {(0, None)}


def test_the_rate_of_an_earlier_run_comes_first(project: Path) -> None:
    resolved = resolved_recipe("ray.num_workers=2")
    partitions = resolved.inputs.partitions
    outputs = [Output.annotations(name) for name in ("url", "crawl", "edu_score")]
    rate = rate_of(
        input_bytes=1000,
        worker_seconds=50.0,
        documents=10,
        text_bytes=900,
        written_bytes={str(output): 100 for output in outputs},
    )
    remember_rate(rate, resolved.recipe, outputs, partitions)
    (found,) = estimate(Plan(resolved), ["annotate"], may_probe=False).passes
    total = sum(partition.bytes for partition in partitions)
    assert found.source is not None
    assert found.source.startswith("a run of 1.0 kB on this machine, 20")
    assert found.seconds == pytest.approx(total * 0.05 / 2, abs=0.1)
    assert estimate(Plan(resolved), ["annotate"], may_probe=False).total_bytes == pytest.approx(total * 0.3, abs=50)
    changed = Plan(resolved_recipe("annotators.url.private_suffixes=true"))
    assert estimate(changed, ["annotate"], may_probe=False).passes[0].seconds is None


def test_a_disk_or_memory_that_is_too_small_is_said_with_what_to_do() -> None:
    found = Estimate(
        passes=(),
        written_bytes={"tokens": 5_000_000},
        free_bytes=1_000_000,
        workers=8,
        worker_bytes=400_000_000,
        is_worker_measured=True,
        model_bytes=500_000_000,
        available_bytes=1_400_000_000,
    )
    disk, memory = found.warnings
    assert disk == "disk: 5.0 MB will be written, 1.0 MB are free. Set output.path to a larger disk"
    assert memory == "memory: 8 workers need 3.7 GB, 1.4 GB are available. --set ray.num_workers=2"


def partitions_of(path: Path, size: int) -> tuple[Partition, ...]:
    return plan_inputs(InputSection(paths=[str(path)], partition_bytes=size), needs=[TEXT]).partitions


def test_the_bytes_of_sampled_rows_are_those_of_the_part_that_was_read(tmp_path: Path) -> None:
    rows = [{"text": f"{number} " + "word " * (number % 50)} for number in range(3000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=100)
    partitions = partitions_of(tmp_path / "a.parquet", 1)
    sample = sampled_rows(partitions, [TEXT])
    assert sample.documents == 400  # four of the thirty row groups, whole
    assert sample.partition_bytes == sum(p.bytes for p in partitions[::7][:4])
    write_json_lines(tmp_path / "b.jsonl", rows)
    (plain,) = partitions_of(tmp_path / "b.jsonl", 1 << 30)
    assert sampled_rows([plain], [TEXT]).partition_bytes == plain.bytes
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "b.jsonl").read_bytes()))
    (packed,) = partitions_of(tmp_path / "c.jsonl.gz", 1)
    assert sampled_rows([packed], [TEXT]).partition_bytes == packed.bytes


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 MB"), (999, "1.0 kB"), (123_456, "123 kB"), (1_500_000, "1.5 MB"), (2 * 10**15, "2000 TB")],
)
def test_sizes_as_text(size: int, text: str) -> None:
    assert size_text(size) == text


def test_without_a_probe_and_an_earlier_run_there_is_no_time(project: Path) -> None:
    called = run("--dry-run", "--no-probe")
    assert "estimate of pack: none, no earlier run on this machine" in called.out


def test_files_of_different_string_types_are_probed_alike(project: Path) -> None:
    """polars writes large_string, pyarrow string."""
    for number, kind in enumerate((pa.large_string(), pa.string(), pa.string_view())):
        file = Path(f"data/part-{number}.parquet")
        table = pq.read_table(file)
        pq.write_table(table.set_column(0, "text", table.column("text").cast(kind)), file)
        assert pq.read_schema(file).field("text").type == kind
    planned = dry_run(resolved_recipe(), stages=STAGES)
    assert planned.estimate is not None
    assert all(one.seconds is not None for one in planned.estimate.passes)
