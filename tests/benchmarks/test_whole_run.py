"""All contestants and sections, on little text with small models, and their outputs compared."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import __main__ as command_line
from benchmarks import show
from benchmarks.contestants import COLOPHON, COLOPHON_ON_RAY, Contestant, contestants, dolma_environment, write_recipe
from benchmarks.job import Job
from benchmarks.outputs import OutputDiffersError, compare, expected_of
from benchmarks.running import CommandError
from benchmarks.timed import done
from benchmarks.whole_job import run_whole_job
from benchmarks.workload import ROOT, SMALL, Workload, WorkloadError, find_input, labelled, make_workload

pytestmark = pytest.mark.xdist_group("benchmarks")

_SENTENCE = "the reader of a page adds water, salt and three größere 東京 eggs; court's law 🙂 code() was_run x = 7"
_WORDS = _SENTENCE.split()
_SITES = ("https://food.example.org", "https://law.example.org", "https://code.example.org")


def write_input(directory: Path, *, files: int = 2, documents: int = 60) -> Path:
    """Parquet files of texts whose words and lengths depend on their site, which is their topic."""
    directory.mkdir()
    source = random.Random(7)
    for file in range(files):
        numbers = range(file * documents, (file + 1) * documents)
        texts = []
        for i in numbers:
            words = source.choices(_WORDS[5 * (i % 3) :], k=source.randrange(3, 200))
            # Dolma tokenizes a text without the white space at its ends; texts of FineWeb have none there.
            texts.append("".join(word + source.choice(["  ", " ", "\n", " "]) for word in words).strip())
        table = {
            "id": [f"<urn:{i}>" for i in numbers],
            "text": texts,
            "url": [f"{_SITES[i % 3]}/{i}" for i in numbers],
            "topic": [None if i % 11 == 0 else ("Food", "Law & Order", "Code")[i % 3] for i in numbers],
        }
        pq.write_table(pa.table(table), directory / f"part-{file}.parquet", row_group_size=25)
    return directory


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def workload(work: Path) -> Workload:
    """The job on the small input, with models that are trained here."""
    name, files = find_input([str(write_input(work / "input"))], work=work, log=print)
    return make_workload(name, files, work=work, workers=2, sizes=SMALL, log=print)


@pytest.fixture(scope="module")
def reference(workload: Workload, work: Path) -> pa.Table:
    """The output of the hand-written script: the fastText library and tiktoken."""
    with done(contestants(work=work)["hand_written"], workload.job, work=work) as finished:
        return finished.output()


def in_process(contestant: Contestant) -> Contestant:
    """Colophon in one process: workers take most of the time of a small run."""

    def command(job: Job) -> Sequence[str]:
        recipe = write_recipe(job, partition_bytes=20_000)
        return [sys.executable, "-m", "colophon", "run", str(recipe), "--executor", "inline"]

    return replace(contestant, command=command)


@pytest.mark.parametrize(
    "name",
    [
        COLOPHON,
        pytest.param(COLOPHON_ON_RAY, marks=[pytest.mark.ray, pytest.mark.slow]),
        pytest.param("datatrove", marks=pytest.mark.slow),
        pytest.param("ray_data", marks=pytest.mark.slow),
        pytest.param("dolma", marks=pytest.mark.slow),
    ],
)
def test_every_contestant_writes_the_same(name: str, workload: Workload, work: Path, reference: pa.Table) -> None:
    dolma = dolma_environment(ROOT / "out" / "bench") / "bin" / "python"
    contestant = contestants(work=work, dolma_python=str(dolma))[name]
    if reason := contestant.missing():
        pytest.skip(reason)
    with done(contestant, workload.job, work=work, memory=True) as finished:
        found = finished.output()
        output = Path(finished.job.output)
        assert any(output.iterdir())
        if sys.platform == "linux":
            assert finished.measured.peak is not None
            assert finished.measured.peak.pss_bytes > 50e6
    assert not output.exists()
    agreement = compare(reference, found, expected=expected_of(workload.job), strips=contestant.strips)
    assert agreement.documents == workload.documents == 120
    assert agreement.tokens > 1000


def test_the_scores_of_the_reference_differ_between_documents(reference: pa.Table, workload: Workload) -> None:
    """The small models give different scores to different texts; otherwise equal scores would prove nothing."""
    assert len(set(reference["quality"].to_pylist())) > 100
    assert set(reference["topic"].to_pylist()) <= set(workload.job.topic.labels)


def test_a_different_output_ends_the_run(workload: Workload, work: Path) -> None:
    def read(job: Job) -> pa.Table:
        table = script.read(job)
        scores = [score + 1e-4 for score in table["quality"].to_pylist()]
        return table.set_column(table.schema.get_field_index("quality"), "quality", pa.chunked_array([scores]))

    script = contestants(work=work)["hand_written"]
    broken = replace(script, name="broken", read=read)
    with pytest.raises(OutputDiffersError, match="quality differs"):
        run_whole_job({"hand_written": script, "broken": broken}, workload, rounds=1, work=work, log=print)


def test_an_excluded_contestant_is_named_with_the_reason(workload: Workload, work: Path) -> None:
    script = contestants(work=work)["hand_written"]
    lines: list[str] = []
    result = run_whole_job(
        {
            "hand_written": script,
            "absent": replace(script, name="absent", modules=("no_such_module",)),
            "failing": replace(script, name="failing", command=lambda job: [sys.executable, "-c", "1 / 0"]),
        },
        workload,
        rounds=1,
        work=work,
        log=lines.append,
    )
    assert list(result["contestants"]) == ["hand_written"]
    assert result["left_out"]["absent"].startswith("not installed: no_such_module (pip install")
    assert "ZeroDivisionError" in result["left_out"]["failing"]
    assert result["ratios"] == {}
    assert lines[0].startswith("expected: about")


def test_dolma_needs_its_own_environment(work: Path) -> None:
    assert "install-dolma" in str(contestants(work=work)["dolma"].missing())


def test_a_failure_after_the_first_run_is_an_error(workload: Workload, work: Path) -> None:
    script = contestants(work=work)["hand_written"]
    calls: list[Job] = []

    def command(job: Job) -> Sequence[str]:
        calls.append(job)
        return script.command(job) if len(calls) == 1 else [sys.executable, "-c", "1 / 0"]

    with pytest.raises(CommandError, match="ZeroDivisionError"):
        run_whole_job(
            {"hand_written": replace(script, command=command)}, workload, rounds=1, work=work, log=lambda line: None
        )


@pytest.mark.slow
def test_all_sections_from_the_command_line(
    workload: Workload, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = contestants(work=work)
    ours = {COLOPHON: in_process(known[COLOPHON]), "hand_written": known["hand_written"]}
    monkeypatch.setattr(command_line, "contestants", lambda **_: ours)
    monkeypatch.setattr(command_line, "QUICK_SIZES", (0.01, 0.1))
    results = tmp_path / "results"
    arguments = ["--quick", "--rounds", "1", "--input", str(work / "input"), "--work", str(work)]
    assert command_line.main([*arguments, "--results", str(results)]) == 0
    whole, parts, scaling = (
        json.loads((results / name).read_text()) for name in (show.WHOLE_JOB, show.PARTS, show.SCALING)
    )
    check_whole_job(whole)
    check_parts(parts)
    check_scaling(scaling)
    check_no_places(results, work)
    printed = capsys.readouterr().out
    assert "| Colophon, local processes |" in printed
    assert "Projected limit of 2 workers" in printed
    assert (results / show.CHART).is_file() == ("no chart" not in printed)


def check_whole_job(found: dict[str, Any]) -> None:
    assert set(found["contestants"]) == {COLOPHON, "hand_written"}
    assert set(found["ratios"]) == {"hand_written"}
    walls = {name: contestant["wall_seconds"]["median"] for name, contestant in found["contestants"].items()}
    assert found["ratios"]["hand_written"] == pytest.approx(walls["hand_written"] / walls[COLOPHON], rel=1e-4)
    assert {contestant["agreement"]["documents"] for contestant in found["contestants"].values()} == {60}
    assert found["input"]["documents"] == 60
    assert found["machine"]["cores"]


def check_parts(found: dict[str, Any]) -> None:
    assert all(speed["median"] > 0 for speed in found["megabytes_per_second"].values())
    assert set(found["pack_million_tokens_per_second"]) == {"plain", "prepend", "append", "meta_tokens"}
    assert set(found["ratios"]) == {"kernel_to_library", "annotate_to_library", "tokenize_to_tiktoken"}
    shares = dict(found["shares"])
    shares.pop("loading_seconds")
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert 0 < found["projected_limit"]["with_start"] < 1


def check_scaling(found: dict[str, Any]) -> None:
    assert set(found["workers"]) == {"1", "2", "times_faster"}
    assert len(found["sizes"]["runs"]) == 2
    assert found["sizes"]["line"]["start_seconds"]


def check_no_places(results: Path, work: Path) -> None:
    for file in results.glob("*.json"):
        assert str(work) not in file.read_text()
        assert str(Path.home()) not in file.read_text()


def test_labels_come_from_columns_or_from_hosts(tmp_path: Path) -> None:
    file = str(next(write_input(tmp_path / "input", files=1).glob("*.parquet")))
    topics = labelled("topic", [file], num_topics=3)[1].to_pylist()
    assert set(topics) == {"Food", "Code", "other"} or set(topics) == {"Law & Order", "Code", "other"}
    assert set(labelled("quality", [file], num_topics=3)[1].to_pylist()) == {"high", "low"}
    assert labelled("quality", [file], num_topics=3)[1].to_pylist().count("low") == 20


def test_ids_must_be_unique(tmp_path: Path) -> None:
    path = tmp_path / "input.parquet"
    pq.write_table(pa.table({"id": ["a", "a"], "text": ["x", "y"], "url": ["u", "v"]}), path)
    with pytest.raises(WorkloadError, match="share ids"):
        make_workload("w", [path], work=tmp_path, workers=1, sizes=SMALL, log=print)


def test_a_wrong_command_line_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["whole-job", "--input", str(tmp_path), "--work", str(tmp_path)]) == 1
    assert "no Parquet file" in capsys.readouterr().err
