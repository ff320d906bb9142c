"""Calibration: what an annotator has to know of the whole input before it annotates, such as edges of quantile bins.

Edges are fitted once, on a sample of the input (see `inputs.sampling`), and stored under `calibration/`. From then on
they are part of the annotator's settings: files that are appended later are binned by the same edges. Changed settings
are fitted again. An annotator that samples a number of documents is given the number that there are in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from colophon.annotators.base import INPUT_IDS, Annotator, AnnotatorError, explained
from colophon.annotators.registry import recorded_settings
from colophon.pipeline.errors import UsageError
from colophon.pipeline.estimates.sample import num_documents
from colophon.pipeline.inputs.sampling import sample_of
from colophon.pipeline.runs.resolve import ResolvedRecipe, changed_settings
from colophon.pipeline.stages.column_sources import input_columns
from colophon.pipeline.stages.timing import Clock
from colophon.pipeline.stages.token_ids import TokenSource
from colophon.shards.common.differences import differences
from colophon.shards.common.errors import ColophonError, DamagedFileError
from colophon.shards.outputs import Output


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
    if annotator.num_calibration_documents is None and not annotator.counts_documents:
        return annotator
    stored = _stored(resolved, annotator)
    settings = recorded_settings(annotator, resolved.recipe.annotators.get(annotator.name))
    if stored is not None and stored[0] == settings:
        return stored[1]
    if not write:
        return annotator
    if stored is not None and not rebuild and resolved.keeps_settings(Output.annotations(annotator.name)):
        lines = differences(stored[0], settings)
        raise changed_settings(f"{resolved.store.root}/{Output.annotations(annotator.name)}", lines)
    if annotator.num_calibration_documents is None:
        calibration = _count(annotator, resolved, log=log)
    else:
        calibration = _fit(annotator, resolved, num_documents=annotator.num_calibration_documents, log=log)
    text = json.dumps({"settings": settings, "calibration": calibration}, indent=1)
    files, path = resolved.store.files, calibration_path(annotator)
    if stored is None:
        files.create_text(path, text)  # of several shards the first to finish calibrates for all
    else:
        files.replace_text(path, text)
    stored = _stored(resolved, annotator)
    if stored is None or stored[0] != settings:
        raise ColophonError(f"{resolved.store.root}/{path}: another command has changed it. Run the same command again")
    return stored[1]


def _stored(resolved: ResolvedRecipe, annotator: Annotator) -> tuple[dict[str, Any], Annotator] | None:
    """The settings that the stored calibration was fitted with, and the annotator with it; None if there is none.

    Raises:
        DamagedFileError: it is damaged.
    """
    path = calibration_path(annotator)
    remedy = "Delete it, and the next run calibrates again"
    stored = resolved.store.files.read_state(path, remedy=remedy)
    try:
        return None if stored is None else (stored["settings"], annotator.with_calibration(stored["calibration"]))
    except (ValueError, KeyError, TypeError):
        where = f"{resolved.store.root}/{path}"
        raise DamagedFileError(f"{where}: damaged: not a calibration of this annotator. {remedy}") from None


def _count(annotator: Annotator, resolved: ResolvedRecipe, *, log: Callable[[str], None]) -> dict[str, Any]:
    number = num_documents(resolved.planned.inputs.partitions, [resolved.columns.need("text")])
    log(f"annotators.{annotator.name}: the input has about {number:,} documents")
    return {"num_documents": number}


def _fit(
    annotator: Annotator, resolved: ResolvedRecipe, *, num_documents: int, log: Callable[[str], None]
) -> dict[str, Any]:
    where = f"annotators.{annotator.name}"
    log(f"{where}: fitting quantiles on a sample of up to {num_documents:,} documents")
    columns = resolved.columns
    needs = [need for need in columns.annotate_needs if need.name in input_columns(annotator) and need.name != "id"]
    needs.append(columns.need("id", required=False))
    sample = sample_of(resolved.planned.inputs.partitions, needs, num_documents=num_documents)
    try:
        annotator.load()
        batches = sample.batches()
        if INPUT_IDS in annotator.columns:
            with_ids = TokenSource(resolved.store, resolved.encoding).encoder(Clock())
            batches = (with_ids(batch, 0) for batch in batches)
        calibration = annotator.calibrate(batches)
    except AnnotatorError as error:
        raise UsageError(str(error)) from error
    except ColophonError:
        raise
    except Exception as error:
        raise ColophonError(explained(error, by=annotator, name=annotator.name)) from error
    log(f"{where}: quantiles of {len(sample):,} documents")
    return calibration
