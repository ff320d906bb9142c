"""The same bytes with any executor and in any order of the work; the same rows for any cut of the input."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.inputs.jsonl import pieces
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Outcome, Stage, Task
from colophon.shards.arrow_files import read_table
from tests.pipeline.executors.kinds import EXECUTORS, started_executor
from tests.pipeline.project import colophon, document, execute, hashes, manifest, quarantine, run

NUMBERS = (1, 2, 4)


class InAnyOrder(InlineExecutor):
    """Works on tasks in an order of its own, and hands outcomes back in another."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def run(self, stage: Stage, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Every outcome once."""
        shuffled = self._random.sample(list(tasks), len(tasks))
        outcomes = list(super().run(stage, shuffled))
        yield from self._random.sample(outcomes, len(outcomes))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_work_changes_nothing(finished: Path, seed: int) -> None:
    made = execute("output.path=other", executor=InAnyOrder(seed)).manifest
    differing = {"recipe", "checksum"}  # the output's path is in both
    assert made.model_dump_json(exclude=differing) == manifest().model_dump_json(exclude=differing)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", EXECUTORS)
@pytest.mark.parametrize(
    "number", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_the_number_of_workers_changes_nothing(finished: Path, kind: str, number: int) -> None:
    with started_executor(kind, RaySection(num_workers=number), num_cpus=max(NUMBERS)) as executor:
        # Actors of a cluster work in another directory.
        there = (f"output.path={Path('other').absolute()}", f"tokenizer.path={Path('small.tiktoken').absolute()}")
        made = execute(*there, executor=executor).manifest
    assert hashes(made) == hashes(manifest())


def rows_of(stage: str, output: str) -> pa.Table:
    """All files of a stage, one after the other in the order of the input."""
    paths = [Path(output, record.path) for record in manifest(output).outputs[stage].records]
    read = read_table if stage == "tokens" else pq.read_table
    return pa.concat_tables(read(path) for path in paths).combine_chunks()


@pytest.mark.parametrize("partition_bytes", [1, 20_000, 10**9])
def test_how_the_input_is_cut_changes_no_row(finished: Path, partition_bytes: int) -> None:
    made = execute(f"input.partition_bytes={partition_bytes}", "output.path=other").manifest
    assert len(made.partitions) != len(manifest().partitions)
    for stage in ("tokens", "annotations/url", "annotations/crawl", "annotations/edu_score"):
        assert rows_of(stage, "other").equals(rows_of(stage, "out"))


def test_how_json_lines_are_cut_changes_no_row_and_no_line_number(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "MIN_PIECE_BYTES", 1)
    documents = [document(number) for number in range(60)]
    lines = [json.dumps({**row, "id": None}) if n % 7 else "nonsense" for n, row in enumerate(documents)]
    Path("lines.jsonl").write_text("\n".join(["", *lines]))
    bad, kept = list(range(0, 60, 7)), [row for n, row in enumerate(documents) if n % 7]

    def with_size(size: int) -> tuple[str, ...]:
        return ("--set", "input.paths=lines.jsonl", "--set", f"input.partition_bytes={size}")

    assert run(*with_size(1_000_000)).code == 3
    whole = {stage: rows_of(stage, "out") for stage in ("tokens", "annotations/url")}
    assert [(entry.line, entry.count) for entry in quarantine()] == [(2, len(bad))]
    assert run(*with_size(1500)).code == 3
    assert len(manifest().partitions) > 5
    for stage, rows in whole.items():
        assert rows_of(stage, "out").equals(rows)
    found = [example.line for entry in quarantine() for example in entry.examples or [entry]]
    assert found == [n + 2 for n in bad]
    checked = colophon("verify", "recipe.toml", "--inputs", "--deep", "--executor", "inline", *with_size(1500))
    assert (checked.code, checked.err) == (0, "")
    shown = colophon("inspect", "recipe.toml", "--document", "50", "--json", *with_size(1500))
    assert json.loads(shown.out)["document"]["text"] == kept[50]["text"]
    assert run(*with_size(1400), "--strict").code == 1
