"""Measures what `group_by` costs a training: processor time of updates and validations with it and without, in turn.

    python -m benchmarks.group_by measure     writes benchmarks/results/group_by.json; half a minute of one core
    python -m benchmarks.group_by table       Markdown, to stdout

Two trainings in one process take turns, update by update, each with its own model, data and metrics file: a slow period
of the machine affects both alike. The cost depends on the number of tokens and not on the model, so it is measured with
a tiny one, beside which it is large, and stated as a share of the updates of the smallest preset, too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy import stats

from benchmarks.machine import in_words, machine
from benchmarks.trainer.job import TrainingJob, write_job
from colophon.shards.manifest import OutputManifest, read_manifest
from colophon.shards.records import Record
from colophon.trainer.data.document_numbers import DocumentNumbers
from colophon.trainer.data.packed_layout import PackedLayout
from colophon.trainer.parallel import World
from colophon.trainer.run import Run
from colophon.trainer.start import start
from colophon.trainer.updates import Updates
from colophon.trainer.validation import validate

RESULTS = Path(__file__).parent / "results" / "group_by.json"
COLUMNS = ("topic", "quality")
"""24 labels, of which four share a group, and a number, which has fifths."""
TINY = {"num_layers": 1, "hidden_size": 16, "ffn_size": 16, "num_heads": 2, "num_kv_heads": 1}
_SETTINGS: dict[str, Any] = {"without": (), "with": COLUMNS}
_PARTS = ("update", "validation")
_TRIMMED = 0.1
"""Share of the turns that the mean excludes at each end: those in which the machine did something else."""


def measure(job: TrainingJob, reference: TrainingJob) -> dict[str, Any]:
    """The processor time of updates and validations, and what `group_by` adds; `work` of the jobs gets the shards.

    Args:
        job: takes turns with itself.
        reference: has as many tokens; its updates are only timed.
    """
    for one in (job, reference):
        write_job(one)
    write_annotations(job.output)
    times = _seconds(job, _SETTINGS)
    of_reference = _seconds(reference, {"without": ()})
    return {
        "machine": machine(),
        "torch": str(torch.__version__),
        "job": {key: value for key, value in vars(job).items() if key != "work"},
        "reference": reference.preset,
        "parts": {
            part: _compared(each["without"], each["with"], reference=of_reference[part]["without"])
            for part, each in times.items()
        },
    }


def _seconds(job: TrainingJob, settings: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[float]]]:
    """Processor time of each update and validation, by part and setting of `group_by`."""
    seconds: dict[str, dict[str, list[float]]] = {part: {name: [] for name in settings} for part in _PARTS}
    with ExitStack() as stack:
        runs = {name: stack.enter_context(_started(job, name, columns)) for name, columns in settings.items()}
        for step in range(1, job.steps + 1):
            names = sorted(runs, reverse=bool(step % 2))  # each is first in every second turn
            for number, part in enumerate(_PARTS):
                for name in names:
                    begun = time.process_time()
                    runs[name][number]()
                    if step > job.warmup_steps:
                        seconds[part][name].append(time.process_time() - begun)
    return seconds


@contextmanager
def _started(job: TrainingJob, name: str, columns: Sequence[str]) -> Iterator[tuple[Callable[[], object], ...]]:
    """Start a training, and yield functions that make its next update and a validation, as `train` calls them."""
    config = job.config(document_masking=True, group_by=columns, validation_rows=job.batch_size)
    world = World(device=torch.device("cpu"))
    run = Run.open(config, output=job.output, directory=job.output, name=name, report=lambda line: None, world=world)
    state = start(run, resume=False, overwrite=True)
    with (
        run.metrics_log(resumed_at=0) as metrics,
        closing(Updates(run, state=state, rows_at_once=job.micro_batch_size, metrics=metrics)) as updates,
    ):
        yield updates.queue_next, lambda: validate(run, step=updates.settled().step, metrics=metrics)


def _compared(without: Sequence[float], grouped: Sequence[float], *, reference: Sequence[float]) -> dict[str, Any]:
    """The seconds that `group_by` adds, trimmed means with their 95 % interval, beside those of whole updates."""
    added = np.subtract(grouped, without)
    low, high = stats.mstats.trimmed_mean_ci(added, limits=(_TRIMMED, _TRIMMED), alpha=0.05)
    means = {"added": added, "seconds": without, "reference_seconds": reference}
    found = {name: float(stats.trim_mean(values, _TRIMMED)) for name, values in means.items()}
    rounded = {name: round(value, 6) for name, value in {**found, "low": float(low), "high": float(high)}.items()}
    return {"turns": len(added), **rounded}


def write_annotations(output: Path) -> None:
    """Annotate the documents of a job with a label and a number, as the pipeline writes them."""
    random = np.random.default_rng(0)
    num_documents = DocumentNumbers([PackedLayout.open(output, "plain")]).num_documents
    topics = [f"topic {number}" for number in random.zipf(1.5, num_documents) % 24]
    path = output / "annotations" / "known" / "0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"topic": topics, "quality": random.random(num_documents)}), path)
    record = Record(
        output="annotations/known",
        partition="0",
        path=str(path.relative_to(output)),
        rows=num_documents,
        bytes=path.stat().st_size,
        sha256="0" * 64,
        fingerprint="0" * 64,
    )
    manifest = read_manifest(output)
    outputs = {**manifest.outputs, record.output: OutputManifest(settings={"annotator": {}}, records=[record])}
    (output / "manifest.json").write_text(manifest.model_copy(update={"outputs": outputs}).model_dump_json())


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    job = results["job"]
    lines = [
        f"Two columns, {job['batch_size']} x {job['sequence_length']} tokens; processor time of one thread on "
        f"{in_words(results['machine'])}, shared with other work.",
        "",
        f"| | turns | `group_by` adds, with the 95 % interval | of a tiny model | of `{results['reference']}` |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for part, one in results["parts"].items():
        added, low, high = (f"{1000 * one[name]:.2f}" for name in ("added", "low", "high"))
        shares = (
            f"{one['added'] / one[name]:.1%} of {1000 * one[name]:.0f} ms" for name in ("seconds", "reference_seconds")
        )
        lines.append(f"| {part} | {one['turns']} | {added} ms ({low} to {high}) | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.group_by", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["measure", "table"])
    parser.add_argument("--steps", type=int, default=200, help="turns (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    options = parser.parse_args(arguments)
    if options.command == "measure":
        torch.set_num_threads(1)  # the processor time of threads that wait would count
        with tempfile.TemporaryDirectory(prefix="colophon-bench-") as work:
            tiny = a_job(TINY, num_ids=512, steps=options.steps, work=f"{work}/tiny")
            results = measure(tiny, a_job("1m", num_ids=8192, steps=8, work=f"{work}/reference"))
        options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(json.loads(options.results.read_text(encoding="utf-8"))))
    return 0


def a_job(preset: Any, *, num_ids: int, steps: int, work: str) -> TrainingJob:
    """A training on a CPU; `preset` may be a table, as in a recipe."""
    return TrainingJob(
        preset=preset,
        num_ids=num_ids,
        sequence_length=512,
        batch_size=2,
        micro_batch_size=2,
        steps=steps,
        warmup_steps=3,
        device="cpu",
        dtype="float32",
        work=work,
    )


if __name__ == "__main__":
    sys.exit(main())
