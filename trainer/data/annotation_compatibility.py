"""Whether annotations have the same meaning as those that a model was trained on.

A value such as bin 3 has the meaning that its annotator's settings give it. Quantile bins are fitted to each run, so
the same recipe over other documents gives other bins, unless its recipe has the first run's edges. A run may also have
been rebuilt since the training, so the settings of the training are kept with the model (`TrainedAnnotators`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from colophon.shards.annotations import annotators_by_column
from colophon.shards.common.errors import ShardError
from colophon.shards.common.output_paths import inside
from colophon.shards.common.state_files import read_state
from colophon.shards.manifest import Manifest, has_manifest, read_manifest
from colophon.shards.stores.places import RunPlace
from colophon.trainer.data.annotator_settings import EDGES, first_difference, is_version, value_settings
from colophon.trainer.errors import TrainerError


class AnnotatorRecord(BaseModel):
    """The settings of the annotators whose columns a layout's template has, with the edges of their bins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, dict[str, Any]] = {}
    """By annotator, as in the manifest when the layout was packed."""
    columns: dict[str, str] = {}
    """The annotator of each column of the template; empty where the run's annotation files were missing."""

    @classmethod
    def of(cls, output: RunPlace, manifest: Manifest, columns: Sequence[str]) -> AnnotatorRecord:
        """The annotators of `columns` in the run under `output`; all annotators if the annotation files are missing."""
        if not columns:
            return cls()
        try:
            by_column = annotators_by_column(output, manifest)
        except ShardError:  # training needs the packed files alone
            return cls(settings={name: _settings(manifest, name) for name in manifest.annotators})
        known = {column: by_column[column] for column in columns if column in by_column}
        return cls(settings={name: _settings(manifest, name) for name in known.values()}, columns=known)

    def meaning(self) -> dict[str, dict[str, Any]]:
        """The settings that decide values, by annotator and dotted key; without versions of code and libraries."""
        return {
            name: {key: value for key, value in value_settings(settings).items() if not is_version(key, value)}
            for name, settings in self.settings.items()
        }


@dataclass(frozen=True, kw_only=True)
class TrainedAnnotators:
    """The annotators of a layout as a model was trained on it."""

    training: str
    """The name of the training, for messages."""
    output: RunPlace
    """`output.path` of the run that packed the layout; it may have been rebuilt since."""
    record: AnnotatorRecord

    @classmethod
    def of_run(cls, output: RunPlace, columns: Sequence[str]) -> TrainedAnnotators:
        """The annotators of `columns` as the run under `output` has them now.

        Raises:
            ShardError: the manifest is missing or damaged.
        """
        record = AnnotatorRecord.of(output, read_manifest(output), columns)
        return cls(training=str(output), output=output, record=record)

    def settings(self, column: str, annotator: str, *, other: RunPlace) -> dict[str, Any]:
        """The settings of the annotator of `column` in training; empty where they are unknown.

        A column that the template does not have was not part of the training. Its settings are those of the run now.

        Args:
            column: an annotation column.
            annotator: its annotator in the run under `other`.
            other: the output that is compared.
        """
        name = self.record.columns.get(column, annotator)
        if name in self.record.settings:
            return self.record.settings[name]
        if self.output.resolve() == other.resolve() or not has_manifest(self.output):
            return {}
        manifest = read_manifest(self.output)
        if annotator in manifest.annotators:
            return _settings(manifest, annotator)
        return _settings(manifest, annotators_by_column(self.output, manifest).get(column))


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
    origin: str
    """The training, or the run whose settings now are compared because the training did not read the column."""

    def remedy(self, *, trained: RunPlace, other: RunPlace) -> str:
        """A change of the other run after which the meanings are the same."""
        if not self.difference.startswith(EDGES):
            return f"annotate {other} with the settings of the training"
        calibration = f"calibration/{self.annotator}.json"
        is_same_config = self.trained.get("config") == self.other.get("config")
        if is_same_config and _stored_edges(trained, self.annotator) == self.trained.get(EDGES):
            return f"copy {trained / calibration} to {other / calibration} and run that recipe with --rebuild"
        edges = json.dumps(self.trained.get(EDGES))
        return f"write bins = {{ edges = {edges} }} in that recipe and run it with --rebuild"


def _stored_edges(output: RunPlace, annotator: str) -> object:
    """The edges in the calibration of an annotator; None if it is missing, damaged or in an object store."""
    if not isinstance(output, Path):
        return None
    try:
        stored = read_state(inside(output, f"calibration/{annotator}.json"), remedy="Delete it") or {}
        return stored["calibration"][EDGES]
    except (ValueError, KeyError, TypeError):
        return None


def check_annotations(
    columns: Sequence[str], *, trained: TrainedAnnotators, other: RunPlace, instead: str = ""
) -> None:
    """Refuse annotations that have a different meaning than those of the training.

    Versions of code and libraries may differ: they seldom change a value, and `colophon run` reports them.

    Args:
        columns: annotation columns that a model reads.
        trained: the annotators of its training.
        other: output of the run whose documents it will read; perhaps the one that it was trained on, rebuilt since.
        instead: an alternative remedy, appended to the message.

    Raises:
        ShardError: a run is missing, or an annotation file cannot be read.
        TrainerError: an annotator has another model, other edges or other settings; the message names them.
    """
    for changed in _changed_annotators(columns, trained=trained, other=other):
        raise TrainerError(
            f"annotator {changed.annotator!r} of {other} is not the one of the training ({trained.training}): "
            f"{changed.difference}; {changed.remedy(trained=trained.output, other=other)}{instead}"
        )


def different_annotators(columns: Sequence[str], *, trained: TrainedAnnotators, other: RunPlace) -> list[str]:
    """One human-readable line for each annotator of `columns` whose values have a different meaning than in training.

    Raises:
        ShardError: as `check_annotations`.
    """
    found = _changed_annotators(columns, trained=trained, other=other)
    return [
        f"annotator {changed.annotator!r} is not that of {changed.origin} ({changed.difference})" for changed in found
    ]


def _changed_annotators(
    columns: Sequence[str], *, trained: TrainedAnnotators, other: RunPlace
) -> Iterator[_ChangedAnnotator]:
    if not columns:
        return
    other_manifest = read_manifest(other)
    other_annotators = annotators_by_column(other, other_manifest)
    compared = set()
    for column in columns:
        annotator = other_annotators.get(column)
        # A missing column is reported, with the choices, by the function that reads it.
        if annotator is None or annotator in compared:
            continue
        compared.add(annotator)
        settings = trained.settings(column, annotator, other=other)
        other_settings = _settings(other_manifest, annotator)
        difference = first_difference(settings, other_settings) if settings and other_settings else ""
        if difference:
            was_read = trained.record.columns.get(column, annotator) in trained.record.settings
            yield _ChangedAnnotator(
                annotator=annotator,
                trained=settings,
                other=other_settings,
                difference=difference,
                origin=trained.training if was_read else str(trained.output),
            )


def _settings(manifest: Manifest, annotator: str | None) -> dict[str, Any]:
    """The settings of an annotator; empty where the manifest has none."""
    stage = None if annotator is None else manifest.annotators.get(annotator)
    settings: dict[str, Any] = {} if stage is None else stage.settings.get("annotator", {})
    return settings
