"""The contract of an annotator, and the list of the annotators of this package.

An annotator is a frozen config and a class. A module at the top of this package that defines a subclass of
`AnnotatorConfig` is an annotator: nothing else registers it. Folders hold what a family of annotators shares.
`registry` has those of other packages and of the user's own files too.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import isabstract
from types import MappingProxyType
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from colophon import annotators
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.errors import ColophonError, ExitCode, with_place
from colophon.shards.common.paths import absolute_path

INPUT_IDS = "input_ids"
"""A column that an annotator can read besides those of the input: the ids of each text by the recipe's tokenizer.

list<uint16> or list<uint32>, without special tokens; an empty list for a null text. A pass that tokenizes gives the ids
that it writes; any other pass reads them from the token files, or encodes the texts itself."""

DOCUMENT_FILE, DOCUMENT_PLACE = "document_file", "document_place"
"""Columns that an annotator can read besides those of the input: where a document is, however the input is cut.

DOCUMENT_FILE is a string for the file and its content; it changes with the file. DOCUMENT_PLACE is int64: the row in
the file, of JSON lines the byte at which the line begins. No two documents have both in common."""
PROVIDED = (INPUT_IDS, DOCUMENT_FILE, DOCUMENT_PLACE)
"""All columns that every document has, and no annotator writes."""


class AnnotatorError(ColophonError, ValueError):
    """A setting, a model file or a column that an annotator cannot use. The message is one line."""

    exit_code = ExitCode.USAGE


class AnnotatorConfig(BaseModel, ABC):
    """Settings of one annotator: the table `[annotators.<name>]` of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    type_name: ClassVar[str]
    """The value of `type` in a recipe."""
    path_fields: ClassVar[tuple[str, ...]] = ()
    """The settings that are paths of local files, such as `model`. Every machine of a cluster must have these files."""
    reads: ClassVar[tuple[str, ...]] = ()
    """The columns that it needs, for lists: of a type that cannot be built without settings."""
    writes: ClassVar[tuple[str, ...]] = ()
    """Its output columns, for lists: of a type that cannot be built without settings; NAME is the annotator's name."""

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


@dataclass(frozen=True)
class TypedColumn:
    """A column of the input that an annotator reads in a type of its choice, whatever the input has."""

    name: str
    """FineWeb's name, or the input's; fields of structs and JSON objects as `meta.url`."""
    type: pa.DataType
    """string, int64, float64, bool, list<string> or list<float32>; a value that does not fit is null."""
    key: str
    """The recipe's key that names it, for the error if no file has it."""


class Annotator(ABC):
    """A pure function from a batch of documents to as many rows of annotation columns, in the same order."""

    name: str
    schema: pa.Schema
    """The output columns. Column names are unique over all annotators of a recipe."""
    columns: tuple[str, ...]
    """The columns it needs: of the input (`text`, `url`, `dump`, `score`, ...), of another annotator's output, or
    of `PROVIDED`."""
    tokenizer_sha256: str | None = None
    """The sha256 of the vocabulary whose ids it reads; a recipe with a different one is refused. None: any."""
    typed: Mapping[str, TypedColumn] = MappingProxyType({})
    """Those of `columns` that are always the input's, and are read in a type of their own, by their names in `columns`.
    Annotators that give the same name must mean the same column and type."""
    read_by: Mapping[str, Callable[[pa.RecordBatch, str], pa.Array]] = MappingProxyType({})
    """The functions of `annotators.columns` that read those of `columns` that another annotator may write.

    A run calls them without rows, so that a column of a wrong type ends it before it begins."""
    settings: Mapping[str, Any] = MappingProxyType({})
    """Everything that the output depends on besides the input, as JSON: config, model bytes (sha256), code version.

    An annotator outside of this package may leave it empty: `registry.recorded_settings` adds all of these."""

    @property
    def fingerprint(self) -> str:
        """sha256 of `settings`: equal fingerprints give equal output on equal input."""
        return fingerprint(dict(self.settings))

    @property
    def notes(self) -> tuple[str, ...]:
        """Human-readable lines about what is unusual in how this annotator will run."""
        return ()

    def notes_on(self, files: Sequence[str]) -> tuple[str, ...]:
        """Human-readable lines about the files of a run; only one that reads DOCUMENT_FILE is asked, before the run.

        `files` are the values that DOCUMENT_FILE will have, each once.
        """
        return ()

    @property
    def model_files(self) -> Mapping[str, str]:
        """The paths of its model files, each with the sha256 that is part of `settings`."""
        return {}

    def load(self) -> None:  # noqa: B027 - most annotators have nothing to load
        """Load models. Called once in every worker process before `annotate`."""

    def check_files(self) -> None:  # noqa: B027 - most annotators have no lists
        """Check the content of the lists that it reads. Called by the process that starts a run, before it writes.

        Only for lists that `build` is too quick to read; workers then find them in the cache of the machine.

        Raises:
            AnnotatorError: see `load`.
        """

    @property
    def num_calibration_documents(self) -> int | None:
        """The number of sampled documents that `calibrate` needs before the first `annotate`; None: no calibration.

        Most annotators need none. For one that does (quantile bins) the driver runs
        `annotator = annotator.with_calibration(stored or annotator.calibrate(sample))` before it pickles the annotator
        to workers.
        """
        return None

    @property
    def counts_documents(self) -> bool:
        """Whether its calibration is the number of documents of the input, `{"num_documents": 12_000}`, not a sample.

        The number is exact for Parquet, and estimated for other formats. It is stored like that of `calibrate`.
        """
        return False

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


class TextRewriter(Annotator):
    """An annotator whose replaced text can be tokenized in place of the document's: `[tokenizer] rewritten_by`."""

    @abstractmethod
    def rewrite(self, texts: pa.Array) -> pa.Array:
        """The replaced texts: of the same type, length and nulls, each a function of its text and `settings` alone.

        It is called after `load`, perhaps in a run that does not annotate.

        Args:
            texts: string or large_string.
        """


def explained(error: Exception, *, by: Annotator | AnnotatorConfig, name: str) -> str:
    """A line on an error that the code of an annotator raised, with its file and line; `name` is the annotator's."""
    module = sys.modules.get(type(by).__module__)
    return f"annotators.{name}: {with_place(error, file=getattr(module, '__file__', None))}"


@cache
def annotator_types() -> dict[str, type[AnnotatorConfig]]:
    """All annotators of this package by the name that recipes use, sorted."""
    for module in pkgutil.iter_modules(annotators.__path__):
        if not module.ispkg:
            importlib.import_module(f"{annotators.__name__}.{module.name}")
    found = [c for c in config_subclasses() if c.__module__.startswith(f"{annotators.__name__}.") and not isabstract(c)]
    return {config.type_name: config for config in sorted(found, key=lambda config: config.type_name)}


def config_subclasses(cls: type[AnnotatorConfig] = AnnotatorConfig) -> list[type[AnnotatorConfig]]:
    """All subclasses of a config that are defined in this process, also by plugins."""
    return [c for direct in cls.__subclasses__() for c in (direct, *config_subclasses(direct))]
