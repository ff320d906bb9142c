"""How much memory of its own one worker takes, measured by running it.

    python -m tests.pipeline.executors.memory RECIPE [--stages TITLE ...] [--set KEY=VALUE ...]

Runs a recipe's stages in this process, one after the other, and prints the peak of each: all anonymous memory, the
interpreter, libraries and vocabularies included. Pages of mapped files are not counted: models that all workers share,
tokens and packed rows, which the system can write out and drop; their own peak is printed beside it. Linux only. For
instance

    python -m tests.pipeline.executors.memory web --set input.paths=huge.parquet --set output.path=/tmp/measured
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from colophon.pipeline.executors.environment import WORKER_ENVIRONMENT
from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.executors.worker import release_memory
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.calibration import calibrated
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe, resolve
from colophon.shards.outputs import STAGES

_EVERY_SECONDS = 0.005


class Memory(NamedTuple):
    """Resident bytes of this process."""

    anonymous: int
    """Pages without a file."""
    mapped: int
    """Pages of files."""


def memory() -> Memory:
    """Return the resident memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    sizes = {name.rstrip(":"): int(rest[0]) << 10 for name, *rest in map(str.split, lines[1:])}
    return Memory(sizes["Anonymous"], sizes["Rss"] - sizes["Anonymous"])


@contextmanager
def watched() -> Iterator[Callable[[], Memory]]:
    """Yield a function that returns the peaks of `memory` in the block; unused memory is released first."""
    release_memory()
    peak = memory()
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        taken = 0.0  # it grows with what is mapped, and must not be most of what the process does
        while not ended.wait(max(_EVERY_SECONDS, 5 * taken)):
            begun = time.monotonic()
            peak = Memory(*map(max, peak, memory()))
            taken = time.monotonic() - begun

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak
    finally:
        ended.set()
        thread.join()


class PassPeak(NamedTuple):
    """The memory of a pass."""

    name: str
    peak: Memory
    text_bytes: int
    seconds: float


def pass_peaks(resolved: ResolvedRecipe, *, stages: Sequence[str] = STAGES) -> Iterator[PassPeak]:
    """Runs what is not up to date of the named stages, as one worker does, and measures each pass."""
    for names in Plan(resolved).passes(stages):
        plan = Plan(resolved)  # it reads the records of the passes before
        tasks = [task for task in plan.tasks(names, without={}) if task.outputs]
        with watched() as peak:
            begun = time.monotonic()
            # A copy, as a worker gets it: the models that it loads go with it.
            stage = pickle.loads(pickle.dumps(plan.stage(names)))
            name, outcomes = stage.name, list(InlineExecutor().run(stage, tasks))
            del stage
            text_bytes = sum(outcome.result.text_bytes for outcome in outcomes if outcome.result)
            for outcome in outcomes:
                if outcome.result is None:
                    raise RuntimeError(outcome.error)
            yield PassPeak(name, peak(), text_bytes, time.monotonic() - begun)


def one_thread_a_library() -> None:
    """As in a worker: Arrow's own threads would hold memory of their own."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def main() -> None:
    """Print a line a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if not WORKER_ENVIRONMENT.items() <= os.environ.items():  # read when the libraries are imported: start again
        command = [sys.executable, "-m", "tests.pipeline.executors.memory", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | WORKER_ENVIRONMENT)
    one_thread_a_library()
    resolved = resolve(load_recipe(options.recipe, overrides=options.set), where=options.recipe)
    resolved = calibrated(resolved, write=True, log=print)
    print(f"before the first stage: {memory().anonymous / 1e6:.0f} MB")
    for name, peak, text_bytes, seconds in pass_peaks(resolved, stages=options.stages):
        print(
            f"{name}: {peak.anonymous / 1e6:.0f} MB of its own at most, {peak.mapped / 1e6:.0f} MB of mapped files; "
            f"{text_bytes / 1e6:.0f} MB of text in {seconds:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
