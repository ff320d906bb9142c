"""Measures the annotators of a recipe one by one on its first documents, and prints the table of docs/annotators.md.

python -m benchmarks.annotators annotate-everything

A round runs every annotator on the same documents in turn, in this process, and counts CPU time; reading, writing and
tokenizing are not counted. Other work on the machine slows all of them, so each has a ratio to the same reference in
the same round too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import INPUT_IDS
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.calibration import calibrated
from colophon.pipeline.runs.resolve import ResolvedRecipe, resolve
from colophon.pipeline.stages.annotation import annotate_batch

REFERENCE = "quality"
"""The annotator that ratios refer to: fastText in the recipe `annotate-everything`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.annotators",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="recipe file, or the name of a bundled recipe")
    parser.add_argument("--documents", type=int, default=1500, help="documents to annotate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reference", default=REFERENCE, help="name of the annotator that ratios refer to")
    options = parser.parse_args(arguments)
    resolved = calibrated(resolve(load_recipe(options.recipe), where=options.recipe), write=True, log=_log)
    found = measure(resolved, documents=options.documents, rounds=options.rounds, reference=options.reference)
    sys.stdout.write(table(found, reference=options.reference))
    return 0


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def measure(
    resolved: ResolvedRecipe, *, documents: int, rounds: int, reference: str
) -> dict[str, list[tuple[float, float]]]:
    """By annotator and round: MB of text a second of CPU time, and the seconds for a MB of the reference over its own.

    Args:
        resolved: the calibrated recipe.
        documents: how many of the first documents are annotated.
        rounds: how often each runs.
        reference: the name of an annotator.
    """
    columns = first_columns(resolved, documents)
    megabytes = (pc.sum(pc.binary_length(columns["text"])).as_py() or 0) / 1e6
    calls: dict[str, Callable[[], pa.RecordBatch]] = {}
    for annotator in resolved.annotators:
        annotator.load()
        call = partial(annotate_batch, annotator, columns, num_rows=len(columns["text"]))
        output = call()  # compiles, and gives the columns that others read
        columns = dict(zip(output.schema.names, output.columns, strict=True)) | columns
        calls[annotator.name] = call
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        speeds = {name: megabytes / max(_seconds(call), 1e-9) for name, call in calls.items()}
        for name, speed in speeds.items():
            found[name].append((speed, speed / speeds[reference]))
    return found


def first_columns(resolved: ResolvedRecipe, documents: int) -> dict[str, pa.Array]:
    """The columns that the annotators read of the input, for its first documents, and the ids of their texts."""
    batches: list[pa.RecordBatch] = []
    for batch in _batches(resolved):
        batches.append(batch)
        if sum(each.num_rows for each in batches) >= documents:
            break
    whole = pa.Table.from_batches(batches).slice(0, documents).combine_chunks()
    columns = {name: whole[name].combine_chunks() for name in whole.column_names}
    if resolved.reads_ids:
        columns[INPUT_IDS] = resolved.tokenizer.encode_batch(columns["text"])
    return columns


def _batches(resolved: ResolvedRecipe) -> Iterator[pa.RecordBatch]:
    sources = resolved.columns
    needs = sources.annotation_file_needs
    if all(need.name != "text" for need in needs):
        needs = (*needs, sources.need("text"))
    for partition in resolved.inputs.partitions:
        yield from PartitionReader(partition, needs, stage="benchmark")


def _seconds(call: Callable[[], pa.RecordBatch]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def table(found: Mapping[str, Sequence[tuple[float, float]]], *, reference: str) -> str:
    """Markdown: medians over the rounds, with the lowest and the highest ratio; the fastest first."""
    lines = [f"| annotator | MB/s | times the speed of `{reference}` |", "| --- | ---: | ---: |"]
    medians = {name: float(np.median([speed for speed, _ in rounds])) for name, rounds in found.items()}
    for name in sorted(medians, key=lambda name: -medians[name]):
        ratios = [ratio for _, ratio in found[name]]
        shown = f"{_short(float(np.median(ratios)))} ({_short(min(ratios))}–{_short(max(ratios))})"
        lines.append(f"| `{name}` | {_short(medians[name])} | {shown} |")
    return "\n".join(lines) + "\n"


def _short(number: float) -> str:
    """Two significant digits: `7,300`, `46`, `7.6`, `0.41`."""
    if number >= 100:
        return f"{float(f'{number:.2g}'):,.0f}"
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"


if __name__ == "__main__":
    sys.exit(main())
