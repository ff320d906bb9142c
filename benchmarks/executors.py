"""Measures the cost of the executors: `python -m benchmarks.executors [--rounds N] [--output FILE]`.

Measures the bookkeeping of a task at 2 and 1,000 workers that answer at once, the seconds until each executor has its
first worker, and a small recipe on each executor, interleaved by rounds.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import machine
from colophon.pipeline.executors.pool import Event, Finished, Pool, Started
from colophon.pipeline.executors.scheduler import Scheduler
from colophon.pipeline.executors.worker import Reply, greeting
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Outcome, Stage, Task, TaskResult, Worker

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "executors.json"
NUM_WORKERS = 2
EXECUTORS = ("inline", "local", "ray")
RECIPE = """
[input]
paths = ["data.parquet"]
partition_bytes = 1000000
[annotators.url]
[annotators.crawl]
[tokenizer]
path = "bytes.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 1024
[layouts.plain]
position = "plain"
[layouts.prepend-url]
position = "prepend"
template = "{url}"
"""


class InstantPool(Pool):
    """Workers without processes, which answer when they are asked."""

    name = "instant"

    def __init__(self, size: int) -> None:
        """Take no time."""
        self._size = size
        self._events: deque[Event] = deque()
        self._num_started = 0

    def capacity(self, *, without: Collection[str] = ()) -> int:
        """Always the same."""
        return self._size

    def open(self, stage: Stage) -> None:
        """Do nothing."""

    def start(self, *, avoid: Collection[str] = ()) -> int:
        """Report a worker."""
        self._num_started += 1
        self._events.append(Started(self._num_started, greeting()))
        return self._num_started

    def send(self, worker: int, task: Task) -> None:
        """Report the task's outcome."""
        result = TaskResult(records=(), documents=1, text_bytes=1)
        self._events.append(Finished(worker, Reply(Outcome(task=task, result=result), None, 0)))

    def kill(self, worker: int) -> None:
        """Do nothing."""

    def wait(self, timeout: float) -> list[Event]:
        """Return one event."""
        return [self._events.popleft()] if self._events else []

    def close(self) -> None:
        """Do nothing."""


class NoStage(Stage):
    """A stage that is never started."""

    name = "none"

    def start(self) -> Worker:
        """Fail."""
        raise NotImplementedError


def bookkeeping_seconds(num_workers: int, *, num_tasks: int = 20_000) -> float:
    """Return the scheduler's seconds per task, without the start of the workers."""
    tasks = [_task(str(number), size=1 + number % 997) for number in range(num_tasks)]
    scheduler = Scheduler(InstantPool(num_workers), RaySection(partition_timeout_seconds=3600))
    list(scheduler.run(NoStage(), tasks[: 2 * num_workers]))
    began = time.perf_counter()
    list(scheduler.run(NoStage(), tasks))
    return (time.perf_counter() - began) / num_tasks


def run_recipe(directory: Path, executor: str, output: str) -> dict[str, float]:
    """Run the recipe in a new process; return its seconds and those until its first worker was ready."""
    settings = [f'output.path="{output}"', f"ray.num_workers={NUM_WORKERS}"]
    command = [sys.executable, "-m", "colophon", "run", "recipe.toml", "--executor", executor]
    command += [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    began = time.monotonic()
    subprocess.run(command, cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    report = json.loads((directory / output / "report" / "run.json").read_text(encoding="utf-8"))
    passes = sum(measured["seconds"] for measured in report["passes"].values())
    return {"seconds": seconds, "passes_seconds": passes, "start_seconds": report["start"]["seconds"]}


def measure(*, rounds: int) -> dict[str, Any]:
    """Return the content of `executors.json`."""
    runs: dict[str, list[dict[str, float]]] = {executor: [] for executor in EXECUTORS}
    with tempfile.TemporaryDirectory(prefix="executors-") as name:
        directory = Path(name)
        write_input(directory)
        for number in range(rounds + 1):  # the first round fills the caches of files and is not counted
            for executor in EXECUTORS:
                run = run_recipe(directory, executor, f"{executor}-{number}")
                print(f"round {number}, {executor}: {run['seconds']:.1f} s", flush=True)
                if number:
                    runs[executor].append(run)
    return {
        "machine": machine(),
        "num_workers": NUM_WORKERS,
        "rounds": rounds,
        "bookkeeping_seconds_per_task": {str(n): median(bookkeeping_seconds(n) for _ in range(5)) for n in (2, 1000)},
        "median_seconds": {
            executor: {key: median(run[key] for run in measured) for key in measured[0]}
            for executor, measured in runs.items()
        },
        "ray_over_local": {
            key: median(ray[key] / local[key] for ray, local in zip(runs["ray"], runs["local"], strict=True))
            for key in ("seconds", "passes_seconds", "start_seconds")
        },
    }


def write_input(directory: Path, *, num_documents: int = 6000) -> None:
    """Write documents of 4 kB, a vocabulary of the 256 bytes, and the recipe."""
    numbers = range(num_documents)
    table = pa.table(
        {
            "text": [f"Document {i}. " + "The reader and the value of another column. " * (i % 180) for i in numbers],
            "id": [f"<{i}>" for i in numbers],
            "url": [f"https://site{i % 7}.example.org/page/{i}" for i in numbers],
            "dump": [f"CC-MAIN-20{13 + i % 10}-05" for i in numbers],
        }
    )
    pq.write_table(table, directory / "data.parquet", row_group_size=250)
    lines = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    (directory / "bytes.tiktoken").write_text("".join(lines), encoding="utf-8")
    (directory / "recipe.toml").write_text(RECIPE + '[output]\npath = "out"\n', encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Return a JSON value with its numbers to 3 significant digits."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _task(name: str, *, size: int) -> Task:
    partition = Partition(
        name=name,
        source=name,
        url=name,
        format="jsonl",
        row_groups=None,
        first_row=0,
        rows=1,
        bytes=size,
        identity=name,
    )
    return Task(partition=partition, outputs={})


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    text = json.dumps(_rounded(measure(rounds=options.rounds)), indent=1) + "\n"
    options.output.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
