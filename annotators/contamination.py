"""The `contamination` annotator: the share of a document's n-grams that your benchmarks have, and which benchmark.

n-grams of 13 words, without case and punctuation, are those of GPT-3 (arXiv 2005.14165, appendix C).
Cost: about 80 MB of text a second, for any number of benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.lists.list_files import check_tables, digests, files_of
from colophon.annotators.ngrams.folding import UNICODE_VERSION
from colophon.shards.common.paths import absolute_path

if TYPE_CHECKING:  # numba takes a second to import, which a plan does not need
    from colophon.annotators.ngrams.benchmark_texts import BenchmarkTexts

_CODE_VERSION = 1


class Benchmark(BaseModel):
    """The texts of one benchmark.

    Example:

        [annotators.contamination.benchmarks.gsm8k]
        path = "benchmarks/gsm8k.jsonl"
        columns = ["question", "answer"]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """A local Parquet or JSON-lines file, a text file, which is one text, or a folder of files of one kind."""
    columns: tuple[str, ...] = Field(default=(), max_length=100)
    """The columns of Parquet or JSON-lines files with the texts. No n-gram reaches from one into another."""


class ContaminationConfig(AnnotatorConfig):
    """Compares documents with the texts of benchmarks.

    Example:

        [annotators.contamination]
        ngram = 13

        [annotators.contamination.benchmarks.gsm8k]
        path = "benchmarks/gsm8k.jsonl"
        columns = ["question", "answer"]
    """

    type_name: ClassVar[str] = "contamination"
    reads = ("text",)
    writes = ("NAME_share", "NAME_ngrams", "NAME_benchmark")

    ngram: int = Field(default=13, ge=2, le=1000)
    """Words of an n-gram. GPT-3 takes 8 to 13, fewer where a benchmark's texts are short."""
    benchmarks: dict[str, Benchmark] = Field(min_length=1, max_length=1000)
    """The benchmarks by name."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of the benchmarks, those of a folder one by one; a path itself if nothing is there."""
        return tuple(path for each in self.benchmarks.values() for path in _files(each.path))

    def with_absolute_paths(self) -> ContaminationConfig:
        """The same settings for a process with a different working directory."""
        benchmarks = {
            name: each.model_copy(update={"path": absolute_path(each.path)}) for name, each in self.benchmarks.items()
        }
        return self.model_copy(update={"benchmarks": benchmarks})

    def build(self, name: str) -> ContaminationAnnotator:
        """The annotator under `name`.

        Raises:
            AnnotatorError: a file is missing, or is a table without a column.
        """
        for key, each in self.benchmarks.items():
            try:
                check_tables(files_of(each.path), each.columns, key="columns")
            except AnnotatorError as error:
                raise AnnotatorError(f"annotators.{name}.benchmarks.{key}: {error}") from None
        return ContaminationAnnotator(name, config=self)


class ContaminationAnnotator(Annotator):
    """Looks the n-grams of `text` up among those of benchmarks.

    Output columns under the name NAME:
      - `NAME_share` (float32): the share of the text's n-grams that some benchmark has; `NAME_ngrams` (int32): their
        number. An n-gram that the text repeats counts each time. 0 for a text with fewer words than an n-gram.
      - `NAME_benchmark` (string): the benchmark that has most of them, of equals the first; null if none has any.
    All are null for a null text and for a text without a word.
    """

    columns = ("text",)

    def __init__(self, name: str, *, config: ContaminationConfig) -> None:
        self.name = name
        self._config = config
        columns = [("share", pa.float32()), ("ngrams", pa.int32()), ("benchmark", pa.string())]
        self.schema = pa.schema([(f"{name}_{column}", kind) for column, kind in columns])

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`. The first use reads the files for their sha256, 0.5 to 2 s a GB."""
        return {
            "type": ContaminationConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": self.name,
            "unicode": UNICODE_VERSION,
            "ngram": self._config.ngram,
            "benchmarks": [
                {"name": name, "columns": [*each.columns], "sha256": digests(files_of(each.path))}
                for name, each in self._config.benchmarks.items()
            ],
        }

    def __getstate__(self) -> dict[str, Any]:
        _ = self.settings
        return {key: value for key, value in self.__dict__.items() if key != "_texts"}

    @property
    def model_files(self) -> Mapping[str, str]:
        """The files of the benchmarks and their sha256."""
        found: dict[str, str] = {}
        for each, known in zip(self._config.benchmarks.values(), self.settings["benchmarks"], strict=True):
            found |= dict(zip(map(str, files_of(each.path)), known["sha256"], strict=True))
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """A line on each benchmark with texts that are too short to be found."""
        rows = zip(self._config.benchmarks, self._texts.num_texts, self._texts.num_short, strict=True)
        return tuple(
            f"annotators.{self.name}: {short:,} of {texts:,} texts of {name} have fewer than {self._config.ngram} "
            "words, and are found in no document"
            for name, texts, short in rows
            if short
        )

    def load(self) -> None:
        """Map the n-grams, after writing them to the cache if this machine does not have them.

        Raises:
            AnnotatorError: a file cannot be read or has changed since its sha256 was computed, or a benchmark has no
                n-gram.
        """
        _ = self._texts

    check_files = load

    @cached_property
    def _texts(self) -> BenchmarkTexts:
        from colophon.annotators.ngrams.benchmark_texts import BenchmarkTexts

        config = self._config
        for (name, each), known in zip(config.benchmarks.items(), self.settings["benchmarks"], strict=True):
            if digests(files_of(each.path)) != known["sha256"]:
                raise AnnotatorError(
                    f"annotators.{self.name}.benchmarks.{name}: {each.path} has changed since the run began"
                )
        sources = [(name, each.path, each.columns) for name, each in config.benchmarks.items()]
        try:
            return BenchmarkTexts(sources, length=config.ngram)
        except AnnotatorError as error:
            raise type(error)(f"annotators.{self.name}.benchmarks.{error}") from None

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class."""
        texts = string_column(batch, "text")
        ngrams, matches, by_benchmark = self._texts.shared(texts)
        wordless = ngrams.num_words == 0
        share = (matches / np.maximum(np.diff(ngrams.firsts), 1)).astype(np.float32)
        names = pa.array(list(self._config.benchmarks), pa.string())
        best = pa.array(by_benchmark.argmax(axis=1), mask=matches == 0)
        columns = [
            pa.array(share, mask=wordless),
            pa.array(matches.astype(np.int32), mask=wordless),
            names.take(best),
        ]
        return pa.record_batch(columns, schema=self.schema)


def _files(path: str) -> tuple[str, ...]:
    try:
        return tuple(map(str, files_of(absolute_path(path))))
    except AnnotatorError:
        return (path,)
