"""The contract of an annotator, and the list of the annotators of this package.

An annotator is a frozen config and a class. A module at the top of this package that defines a subclass of
`AnnotatorConfig` is an annotator: nothing else registers it. Folders hold what a family of annotators shares.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from colophon import annotators
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.errors import ColophonError, ExitCode
from colophon.shards.common.paths import absolute_path


class AnnotatorError(ColophonError, ValueError):
    """A setting, a model file or a column that an annotator cannot use. The message is one line."""

    exit_code = ExitCode.USAGE


class AnnotatorConfig(BaseModel, ABC):
    """Settings of one annotator: the table `[annotators.<name>]` of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type_name: ClassVar[str]
    """The value of `type` in a recipe."""
    path_fields: ClassVar[tuple[str, ...]] = ()
    """The settings that are paths of local files, such as `model`. Every machine of a cluster must have these files."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths in `path_fields` that are set."""
        return tuple(path for name in self.path_fields if (path := getattr(self, name)) is not None)

    def with_absolute_paths(self) -> AnnotatorConfig:
        """The same settings for a process with a different working directory."""
        paths = {name: absolute_path(path) for name in self.path_fields if (path := getattr(self, name)) is not None}
        return self.model_copy(update=paths)

    @abstractmethod
    def build(self, name: str) -> Annotator:
        """The annotator with these settings under `name`; cheap, loads no model.

        Raises:
            AnnotatorError: a setting that the annotator does not allow, such as a label that its model lacks.
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
        return fingerprint(self.settings)

    @property
    def notes(self) -> tuple[str, ...]:
        """Human-readable lines about what is unusual in how this annotator will run."""
        return ()

    @property
    def model_files(self) -> Mapping[str, str]:
        """The paths of its model files, each with the sha256 that is part of `settings`."""
        return {}

    def load(self) -> None:  # noqa: B027 - most annotators have nothing to load
        """Load models. Called once in every worker process before `annotate`."""

    @property
    def num_calibration_documents(self) -> int | None:
        """The number of sampled documents that `calibrate` needs before the first `annotate`; None: no calibration.

        Most annotators need none. For one that does (quantile bins) the driver runs
        `annotator = annotator.with_calibration(stored or annotator.calibrate(sample))` before it pickles the annotator
        to workers.
        """
        return None

    def calibrate(self, sample: Iterable[pa.RecordBatch]) -> dict[str, Any]:
        """The calibration from batches of documents that have `columns`, as JSON to be stored."""
        return {}

    def with_calibration(self, calibration: Mapping[str, Any]) -> Annotator:
        """This annotator with the result of `calibrate`, which becomes part of its `settings`."""
        return self

    @abstractmethod
    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Annotate `batch`, which has at least `self.columns`; the result has `self.schema` and the same rows in order.

        Null and unusable values (an empty text, a broken URL) give nulls, never an exception.
        """


@cache
def annotator_types() -> dict[str, type[AnnotatorConfig]]:
    """All annotators of this package by the name that recipes use, sorted."""
    for module in pkgutil.iter_modules(annotators.__path__):
        if not module.ispkg:
            importlib.import_module(f"{annotators.__name__}.{module.name}")
    found = _subclasses(AnnotatorConfig)  # type: ignore[type-abstract]  # it is never instantiated
    return {config.type_name: config for config in sorted(found, key=lambda config: config.type_name)}


def _subclasses(cls: type[AnnotatorConfig]) -> list[type[AnnotatorConfig]]:
    return [c for direct in cls.__subclasses__() for c in (direct, *_subclasses(direct))]
