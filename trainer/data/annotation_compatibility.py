"""Whether annotations of two runs mean the same: those that a model was trained on, and those it is measured with.

A value such as bin 3 has the meaning that its annotator's settings give it. Quantile bins are fitted to each run, so
the same recipe over other documents has other bins, unless the run is given the first one's edges.
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
_SHOWN_EDGES = 9
_VERSION = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """An annotator whose values mean something else than in training."""

    annotator: str
    before: Mapping[str, Any]
    now: Mapping[str, Any]
    told: str
    """What differs first."""

    def remedy(self, *, trained: Path, other: Path) -> str:
        """What makes them the same."""
        if not self.told.startswith(_EDGES):
            return f"annotate {other} as {trained} was"
        kept = Path("calibration") / f"{self.annotator}.json"
        if self.before.get("config") == self.now.get("config") and (trained / kept).is_file():
            return f"copy {trained / kept} to {other / kept} and run that recipe with --rebuild"
        edges = json.dumps(self.before.get(_EDGES))
        return f"write bins = {{ edges = {edges} }} in that recipe and run it with --rebuild"


def check_annotations(columns: Sequence[str], *, trained: Path, other: Path, instead: str = "") -> None:
    """Refuse annotations that mean something else than those of the training.

    Versions of code and libraries may differ: they seldom change a value, and `colophon run` tells of them.

    Args:
        columns: annotation columns that a model reads.
        trained: output of the run that it was trained on.
        other: output of the run whose documents are to be read.
        instead: what else the user can do, for the message.

    Raises:
        ShardError: a run is not there, or has no such column (the choices are listed).
        TrainerError: an annotator has another model, other edges or settings; they are named.
    """
    for found in _differences(columns, trained=trained, other=other):
        raise TrainerError(
            f"annotator {found.annotator!r} of {other} is not the one of the training ({trained}): "
            f"{found.told}; {found.remedy(trained=trained, other=other)}{instead}"
        )


def different_annotators(columns: Sequence[str], *, trained: Path, other: Path) -> list[str]:
    """A line for a person for each annotator of `columns` whose values mean something else than in training.

    Raises:
        ShardError: as `check_annotations`.
    """
    found = _differences(columns, trained=trained, other=other)
    return [f"annotator {one.annotator!r} is not that of {trained} ({one.told})" for one in found]


def _differences(columns: Sequence[str], *, trained: Path, other: Path) -> Iterator[_Difference]:
    if not columns or trained.resolve() == other.resolve():
        return
    before, now = read_manifest(trained), read_manifest(other)
    annotators = annotators_by_column(other, now)
    seen = set()
    for column in columns:
        annotator = annotators.get(column)
        # A column that is not there at all is told, with the choices, by who reads it.
        if annotator is None or annotator in seen:
            continue
        seen.add(annotator)
        same_name = annotator in before.annotators
        then = _settings(before, annotator if same_name else annotators_by_column(trained, before).get(column))
        here = _settings(now, annotator)
        told = _told(then, here) if then and here else ""
        if told:
            yield _Difference(annotator=annotator, before=then, now=here, told=told)


def _settings(manifest: Manifest, annotator: str | None) -> dict[str, Any]:
    """Of an annotator; none where the manifest tells none."""
    made = None if annotator is None else manifest.annotators.get(annotator)
    found: dict[str, Any] = {} if made is None else made.settings.get("annotator", {})
    return found


def _told(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs, edges first since they are what differs without anybody's doing; nothing if all means the same."""
    one, two = _meanings(before), _meanings(now)
    for key in sorted({*one, *two}, key=lambda key: (key != _EDGES, key)):
        then, here = one.get(key), two.get(key)
        if then != here and not (_is_version(key, then) and _is_version(key, here)):
            return f"{key} {_shown(then)} in training, {_shown(here)} here"
    return ""


def _meanings(settings: Mapping[str, Any], *, under: str = "") -> dict[str, Any]:
    """Settings by their dotted keys, without what changes no annotation: how edges were found, digits past float32."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = under + name
        if key in {"config.bins.edges", "config.bins.quantiles", "config.bins.sample"}:
            continue
        if isinstance(value, dict):
            found |= _meanings(value, under=f"{key}.")
        elif key == _EDGES and value is not None:
            found[key] = [float(np.float32(edge)) for edge in value]
        else:
            found[key] = value
    return found


def _is_version(key: str, value: Any) -> bool:
    return key == "code_version" or (isinstance(value, str) and _VERSION.fullmatch(value) is not None)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        edges = ", ".join(f"{edge:.4g}" for edge in value[:_SHOWN_EDGES])
        return f"[{edges}, ...]" if len(value) > _SHOWN_EDGES else f"[{edges}]"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
