"""The contract of an annotator, and how the annotators of this package are found.

An annotator is a frozen config and a class. A module of this package that defines a subclass of `AnnotatorConfig` is
an annotator: nothing else registers it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from colophon import annotators
from colophon.shards.common.errors import ColophonError, ExitCode


class AnnotatorError(ColophonError, ValueError):
    """A setting, a model file or a column that an annotator cannot work with; the message is one line for a person."""

    exit_code = ExitCode.USAGE


class AnnotatorConfig(BaseModel, ABC):
    """Settings of one annotator, as they stand under `[annotators.<name>]` of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type_name: ClassVar[str]
    """What `type = ...` says in a recipe."""

    @abstractmethod
    def build(self, name: str) -> Annotator:
        """The annotator that runs with these settings under `name`; cheap, loads no model.

        Raises:
            AnnotatorError: a setting that the annotator (its model's labels, say) does not allow.
        """


class Annotator(ABC):
    """A pure function from a batch of documents to as many rows of annotation columns, in the same order."""

    name: str
    schema: pa.Schema
    """The output columns. Column names are unique over all annotators of a recipe."""
    columns: tuple[str, ...]
    """The columns it needs: of the input (`text`, `url`, `dump`, `score`, ...) or of another annotator's output."""
    settings: dict[str, Any]
    """Everything that the output depends on besides the input, as JSON: config, model bytes (sha256), code version."""

    @property
    def fingerprint(self) -> str:
        """sha256 of `settings`: equal fingerprints give equal output on equal input."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for a person about how it will run, where that is not how such annotators usually do."""
        return ()

    def load(self) -> None:  # noqa: B027 - most annotators have nothing to load
        """Load models. Called once in every worker process before `annotate`."""

    @property
    def num_calibration_documents(self) -> int | None:
        """How many sampled documents `calibrate` must see before the first `annotate`; None: no calibration is due.

        Most annotators need none. One that does (quantile bins) is replaced before a run, by the driver:
        `annotator = annotator.with_calibration(stored or annotator.calibrate(sample))`, and then pickled to workers.
        """
        return None

    def calibrate(self, sample: Iterable[pa.RecordBatch]) -> dict[str, Any]:
        """What this annotator learns from batches of documents that hold `columns`, as JSON to be stored."""
        return {}

    def with_calibration(self, calibration: Mapping[str, Any]) -> Annotator:
        """This annotator knowing what `calibrate` returned, which becomes part of its `settings`."""
        return self

    @abstractmethod
    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` holds at least `self.columns`; the result has `self.schema` and the same number and order of rows.

        Null and odd values (an empty text, a broken URL) give nulls, never an exception.
        """


@cache
def annotator_types() -> dict[str, type[AnnotatorConfig]]:
    """All annotators of this package by the name that recipes use."""
    for module in pkgutil.iter_modules(annotators.__path__):
        importlib.import_module(f"{annotators.__name__}.{module.name}")
    found = _subclasses(AnnotatorConfig)  # type: ignore[type-abstract]  # it is only asked for its subclasses
    return {config.type_name: config for config in sorted(found, key=lambda config: config.type_name)}


def _subclasses(cls: type[AnnotatorConfig]) -> list[type[AnnotatorConfig]]:
    return [c for direct in cls.__subclasses__() for c in (direct, *_subclasses(direct))]
