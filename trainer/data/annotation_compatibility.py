"""Whether the annotations of two runs have the same meaning: those a model was trained on, and those it is measured on.

A value such as bin 3 has the meaning that its annotator's settings give it. Quantile bins are fitted to each run, so
the same recipe over other documents gives other bins, unless its recipe has the first run's edges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colophon.shards.annotations import annotators_by_column
from colophon.shards.manifest import Manifest, read_manifest
from colophon.trainer.errors import TrainerError

_EDGES = "edges"
_MAX_SHOWN_EDGES = 9
_MAX_SHOWN_CHARACTERS = 80
_VERSION = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True, kw_only=True)
class _ChangedAnnotator:
    """An annotator whose values have a different meaning than in training."""

    annotator: str
    trained: Mapping[str, Any]
    """Its settings in training."""
    other: Mapping[str, Any]
    """Its settings in the other run."""
    difference: str
    """The first difference of the two."""

    def remedy(self, *, trained: Path, other: Path) -> str:
        """A change of the other run after which the meanings are the same."""
        if not self.difference.startswith(_EDGES):
            return f"annotate {other} with the settings of {trained}"
        calibration = Path("calibration") / f"{self.annotator}.json"
        if self.trained.get("config") == self.other.get("config") and (trained / calibration).is_file():
            return f"copy {trained / calibration} to {other / calibration} and run that recipe with --rebuild"
        edges = json.dumps(self.trained.get(_EDGES))
        return f"write bins = {{ edges = {edges} }} in that recipe and run it with --rebuild"


def check_annotations(columns: Sequence[str], *, trained: Path, other: Path, instead: str = "") -> None:
    """Refuse annotations that have a different meaning than those of the training.

    Versions of code and libraries may differ: they seldom change a value, and `colophon run` reports them.

    Args:
        columns: annotation columns that a model reads.
        trained: output of the run that it was trained on.
        other: output of the run whose documents it will read.
        instead: an alternative remedy, appended to the message.

    Raises:
        ShardError: a run is missing, or an annotation file cannot be read.
        TrainerError: an annotator has another model, other edges or other settings; the message names them.
    """
    for changed in _changed_annotators(columns, trained=trained, other=other):
        raise TrainerError(
            f"annotator {changed.annotator!r} of {other} is not the one of the training ({trained}): "
            f"{changed.difference}; {changed.remedy(trained=trained, other=other)}{instead}"
        )


def different_annotators(columns: Sequence[str], *, trained: Path, other: Path) -> list[str]:
    """One human-readable line for each annotator of `columns` whose values have a different meaning than in training.

    Raises:
        ShardError: as `check_annotations`.
    """
    found = _changed_annotators(columns, trained=trained, other=other)
    return [f"annotator {changed.annotator!r} is not that of {trained} ({changed.difference})" for changed in found]


def _changed_annotators(columns: Sequence[str], *, trained: Path, other: Path) -> Iterator[_ChangedAnnotator]:
    if not columns or trained.resolve() == other.resolve():
        return
    trained_manifest, other_manifest = read_manifest(trained), read_manifest(other)
    other_annotators = annotators_by_column(other, other_manifest)
    compared = set()
    for column in columns:
        annotator = other_annotators.get(column)
        # A missing column is reported, with the choices, by the function that reads it.
        if annotator is None or annotator in compared:
            continue
        compared.add(annotator)
        in_training: str | None = annotator
        if annotator not in trained_manifest.annotators:
            in_training = annotators_by_column(trained, trained_manifest).get(column)
        settings = _settings(trained_manifest, in_training)
        other_settings = _settings(other_manifest, annotator)
        difference = _first_difference(settings, other_settings) if settings and other_settings else ""
        if difference:
            yield _ChangedAnnotator(annotator=annotator, trained=settings, other=other_settings, difference=difference)


def _settings(manifest: Manifest, annotator: str | None) -> dict[str, Any]:
    """The settings of an annotator; empty where the manifest has none."""
    stage = None if annotator is None else manifest.annotators.get(annotator)
    settings: dict[str, Any] = {} if stage is None else stage.settings.get("annotator", {})
    return settings


def _first_difference(trained: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first difference that changes a value, edges first: they differ without any change of a recipe."""
    before, now = _value_settings(trained), _value_settings(other)
    for key in sorted({*before, *now}, key=lambda key: (key != _EDGES, key)):
        old, new = before.get(key), now.get(key)
        if old != new and not (_is_version(key, old) and _is_version(key, new)):
            return f"{key} {_shortened(old)} in training, {_shortened(new)} here"
    return ""


def _value_settings(settings: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """The settings that decide annotation values, by dotted keys: without how edges were found, edges as float32."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = prefix + name
        if key in {"config.bins.edges", "config.bins.quantiles", "config.bins.sample"}:
            continue
        if isinstance(value, dict):
            found |= _value_settings(value, prefix=f"{key}.")
        elif key == _EDGES and value is not None:
            found[key] = [float(np.float32(edge)) for edge in value]
        else:
            found[key] = value
    return found


def _is_version(key: str, value: Any) -> bool:
    return key == "code_version" or (isinstance(value, str) and _VERSION.fullmatch(value) is not None)


def _shortened(value: Any) -> str:
    if isinstance(value, list):
        edges = ", ".join(f"{edge:.4g}" for edge in value[:_MAX_SHOWN_EDGES])
        return f"[{edges}, ...]" if len(value) > _MAX_SHOWN_EDGES else f"[{edges}]"
    text = str(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[: _MAX_SHOWN_CHARACTERS - 1]}…"
