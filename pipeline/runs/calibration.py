"""Fitting what an annotator must know of the data before it can annotate: the edges of quantile bins.

They are found once on a sample spread over the input, kept under `calibration/`, and from then on part of the
annotator's settings: files that are appended later are binned by the same edges. Changed settings are fitted anew.
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
from colophon.pipeline.runs.resolve import Prepared, changed_settings
from colophon.shards.common.differences import differences
from colophon.shards.outputs import Output

_SAMPLED_PARTITIONS = 32


def calibration_path(annotator: Annotator) -> str:
    """Where what an annotator was fitted to is kept, under the run's output."""
    return f"calibration/{annotator.name}.json"


def calibrated(prepared: Prepared, *, write: bool, log: Callable[[str], None], rebuild: bool = False) -> Prepared:
    """`prepared` with every annotator calibrated: from what is kept, else (when `write`) from a sample.

    Raises:
        UsageError: the sample holds nothing to calibrate on, or what is kept was fitted with other settings and
            `rebuild` is not set.
    """
    fit = partial(_calibrated, prepared=prepared, write=write, log=log, rebuild=rebuild)
    annotators = tuple(fit(annotator) for annotator in prepared.annotators)
    return prepared if annotators == prepared.annotators else prepared.changed(annotators=annotators)


def _calibrated(
    annotator: Annotator, *, prepared: Prepared, write: bool, log: Callable[[str], None], rebuild: bool
) -> Annotator:
    wanted = annotator.num_calibration_documents
    if wanted is None:
        return annotator
    path = calibration_path(annotator)
    kept: dict[str, Any] | None = prepared.store.read_json(path)
    if kept is not None and kept["settings"] == annotator.settings:
        return annotator.with_calibration(kept["calibration"])
    if not write:
        return annotator
    if kept is not None and not rebuild:
        lines = differences(kept["settings"], annotator.settings)
        raise changed_settings(f"{prepared.store.root}/{Output.annotations(annotator.name)}", lines)
    log(f"annotators.{annotator.name}: fitting quantiles on a sample of {wanted:,} documents")
    needs = [need for need in prepared.annotate_needs if need.name in annotator.columns]
    annotator.load()
    try:
        calibration = annotator.calibrate(_sample(prepared.inputs.partitions, needs, num_documents=wanted))
    except AnnotatorError as error:
        raise UsageError(str(error)) from error
    value = {"settings": annotator.settings, "calibration": dict(calibration)}
    prepared.store.write_text(path, json.dumps(value, indent=1))
    return annotator.with_calibration(calibration)


def _sample(
    partitions: tuple[Partition, ...], needs: list[ColumnNeed], *, num_documents: int
) -> Iterator[pa.RecordBatch]:
    """The first documents of partitions spread evenly over the input; a partition that cannot be read is passed over.

    The run itself quarantines such a partition.
    """
    step = max(len(partitions) // _SAMPLED_PARTITIONS, 1)
    chosen = partitions[::step]
    share = -(-num_documents // max(len(chosen), 1))
    for partition in chosen:
        left = share
        try:
            for batch in islice(PartitionReader(partition, needs, stage="calibrate"), -(-share // BATCH_ROWS) + 1):
                yield batch.slice(0, left)
                left -= min(batch.num_rows, left)
                if not left:
                    break
        except InputError:
            continue
