"""Calibration: an annotator's quantile bins get their edges from a sample of the input, before it annotates.

The edges are fitted once, on a sample spread over the input, and stored under `calibration/`. From then on they are
part of the annotator's settings: files that are appended later are binned by the same edges. Changed settings are
fitted again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

from colophon.annotators.base import Annotator, AnnotatorError
from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.inputs.columns import BATCH_ROWS, ColumnNeed
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.runs.resolve import ResolvedRecipe, changed_settings
from colophon.shards.common.differences import differences
from colophon.shards.outputs import Output

_SAMPLED_PARTITIONS = 32


def calibration_path(annotator: Annotator) -> str:
    """The path of an annotator's calibration, relative to the run's output."""
    return f"calibration/{annotator.name}.json"


def calibrated(
    resolved: ResolvedRecipe, *, write: bool, log: Callable[[str], None], rebuild: bool = False
) -> ResolvedRecipe:
    """The recipe with every annotator calibrated: from the stored calibration, else (if `write`) from a sample.

    Raises:
        UsageError: the sample holds nothing to calibrate on, or the stored calibration was fitted with other settings
            and `rebuild` is not set.
    """
    calibrate = partial(_calibrated, resolved=resolved, write=write, log=log, rebuild=rebuild)
    annotators = tuple(calibrate(annotator) for annotator in resolved.annotators)
    return resolved if annotators == resolved.annotators else resolved.with_annotators(annotators)


def _calibrated(
    annotator: Annotator, *, resolved: ResolvedRecipe, write: bool, log: Callable[[str], None], rebuild: bool
) -> Annotator:
    if annotator.num_calibration_documents is None:
        return annotator
    path = calibration_path(annotator)
    stored: dict[str, Any] | None = resolved.store.files.read_json(path)
    if stored is not None and stored["settings"] == annotator.settings:
        return annotator.with_calibration(stored["calibration"])
    if not write:
        return annotator
    if stored is not None and not rebuild:
        lines = differences(stored["settings"], annotator.settings)
        raise changed_settings(f"{resolved.store.root}/{Output.annotations(annotator.name)}", lines)
    calibration = _fit(annotator, resolved, num_documents=annotator.num_calibration_documents, log=log)
    value = {"settings": annotator.settings, "calibration": calibration}
    resolved.store.files.replace_text(path, json.dumps(value, indent=1))
    return annotator.with_calibration(calibration)


def _fit(
    annotator: Annotator, resolved: ResolvedRecipe, *, num_documents: int, log: Callable[[str], None]
) -> dict[str, Any]:
    log(f"annotators.{annotator.name}: fitting quantiles on a sample of {num_documents:,} documents")
    needs = [need for need in resolved.columns.annotate_needs if need.name in annotator.columns]
    annotator.load()
    try:
        return annotator.calibrate(_sample(resolved.inputs.partitions, needs, num_documents=num_documents))
    except AnnotatorError as error:
        raise UsageError(str(error)) from error


def _sample(
    partitions: tuple[Partition, ...], needs: list[ColumnNeed], *, num_documents: int
) -> Iterator[pa.RecordBatch]:
    """The first documents of partitions spread evenly over the input. Skips partitions that cannot be read.

    The run itself quarantines such a partition.
    """
    step = max(len(partitions) // _SAMPLED_PARTITIONS, 1)  # 100 partitions: each 3rd, 34 in all
    chosen = partitions[::step]
    share = -(-num_documents // max(len(chosen), 1))
    for partition in chosen:
        remaining = share
        try:
            for batch in islice(PartitionReader(partition, needs, stage="calibrate"), -(-share // BATCH_ROWS) + 1):
                yield batch.slice(0, remaining)
                remaining -= min(batch.num_rows, remaining)
                if not remaining:
                    break
        except InputError:
            continue
