"""The formulas of the page of costs: from measured rates and sizes to a corpus of any size."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
COST, PARTS, REPEATED, SCALING = "cost.json", "parts.json", "whole_job_repeated.json", "scaling.json"
PARTITION_BYTES = 64 << 20
"""The default of `input.partition_bytes`."""
PARTS_OF_THE_PASS = {"read": "read", "annotate": "annotate", "tokenize": "tokenize", "write": "write"}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A corpus, by what its publisher states."""

    name: str
    tokens: float
    """Tokens of GPT-2's vocabulary."""


CORPORA = (Corpus(name="FineWeb-Edu 100BT", tokens=100e9), Corpus(name="FineWeb 15T", tokens=15e12))


@dataclass(frozen=True, kw_only=True)
class Range:
    """A measured number with its spread, or what follows from it."""

    middle: float
    lowest: float
    highest: float

    @staticmethod
    def of(spread: dict[str, Any]) -> Range:
        """Read the summary of a measurement."""
        return Range(middle=spread["median"], lowest=spread["lowest"], highest=spread["highest"])

    def map(self, function: Callable[[float], float]) -> Range:
        """Apply a monotonic function to all three."""
        ends = (function(self.lowest), function(self.highest))
        return Range(middle=function(self.middle), lowest=min(ends), highest=max(ends))

    def __add__(self, other: Range) -> Range:
        """Add, as if both were low or high together."""
        return Range(
            middle=self.middle + other.middle, lowest=self.lowest + other.lowest, highest=self.highest + other.highest
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The results of the benchmarks, in the units of the formulas."""

    text_bytes_per_gpt2_token: float
    text_bytes_per_token: float
    """The tokenizer is the one whose files were measured."""
    text_bytes_per_document: float
    core_seconds_per_megabyte: Range
    """The time of the pass that annotates and tokenizes, by MB of text."""
    parts: dict[str, Range]
    """Core seconds per MB of text of each part of the pass, alone."""
    pack_core_seconds_per_megabyte: dict[str, Range]
    """By layout, per MB of text."""
    bytes_per_document: dict[str, float]
    bytes_per_token: dict[str, float]
    files_per_partition: float
    state_bytes_per_partition: float
    cpu_seconds_per_partition: Range
    requests_per_partition: dict[str, float]
    memory_bytes: float
    """Memory of a machine without its workers: models, and the command."""
    memory_bytes_per_worker: float
    largest_megabytes: float
    """Text of the largest measured run."""


def measured(results: Path = RESULTS) -> Measured:
    """Read the results."""
    cost, parts, repeated, scaling = (
        json.loads((results / name).read_text(encoding="utf-8")) for name in (COST, PARTS, REPEATED, SCALING)
    )
    ours, text = repeated["contestants"]["colophon"], repeated["input"]
    megabytes = (text["text_bytes"] - text["start_text_bytes"]) / 1e6
    seconds = [
        repeated["workers"] * (wall - start) / megabytes
        for wall, start in zip(ours["wall_seconds"]["values"], ours["start_seconds"]["values"], strict=True)
    ]
    tokens_per_megabyte = cost["tokens"] / cost["input"]["text_bytes"] * 1e6
    one, two = (scaling["workers"][count]["peak_pss_bytes"] for count in ("1", "2"))
    return Measured(
        text_bytes_per_gpt2_token=text["text_bytes"] / ours["agreement"]["tokens"],
        text_bytes_per_token=cost["input"]["text_bytes"] / cost["tokens"],
        text_bytes_per_document=cost["input"]["text_bytes"] / cost["input"]["documents"],
        core_seconds_per_megabyte=Range(middle=sum(seconds) / len(seconds), lowest=min(seconds), highest=max(seconds)),
        parts={
            title: Range.of(parts["megabytes_per_second"][name]).map(lambda rate: 1 / rate)
            for name, title in PARTS_OF_THE_PASS.items()
        },
        pack_core_seconds_per_megabyte={
            layout: Range.of(spread).map(lambda value: value / 1e6 * tokens_per_megabyte)
            for layout, spread in cost["pack_cpu_seconds_per_million_tokens"].items()
        },
        bytes_per_document=cost["bytes_per_document"],
        bytes_per_token=cost["bytes_per_token"],
        files_per_partition=cost["files_per_partition"],
        state_bytes_per_partition=cost["state_bytes_per_partition"],
        cpu_seconds_per_partition=Range.of(cost["cpu_seconds_per_partition"]),
        requests_per_partition=cost["requests_per_partition"],
        memory_bytes=2 * one - two,
        memory_bytes_per_worker=two - one,
        largest_megabytes=text["text_bytes"] / 1e6,
    )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The cost of a corpus."""

    corpus: Corpus
    text_bytes: float
    documents: float
    tokens: float
    partitions: float
    pass_core_hours: Range
    part_core_hours: dict[str, Range]
    pack_core_hours: dict[str, Range]
    disk_bytes: dict[str, float]
    files: float
    state_bytes: float
    partition_core_hours: Range
    requests: dict[str, float]

    @property
    def core_hours(self) -> Range:
        """Sum of the passes over the text, with every layout."""
        total = self.pass_core_hours
        for each in self.pack_core_hours.values():
            total += each
        return total


def estimate(corpus: Corpus, found: Measured) -> Estimate:
    """Multiply what was measured by the size of the corpus."""
    text_bytes = corpus.tokens * found.text_bytes_per_gpt2_token
    documents = text_bytes / found.text_bytes_per_document
    tokens = text_bytes / found.text_bytes_per_token
    partitions = text_bytes / PARTITION_BYTES

    def hours(core_seconds_per_megabyte: Range) -> Range:
        return core_seconds_per_megabyte.map(lambda seconds: seconds * text_bytes / 1e6 / 3600)

    return Estimate(
        corpus=corpus,
        text_bytes=text_bytes,
        documents=documents,
        tokens=tokens,
        partitions=partitions,
        pass_core_hours=hours(found.core_seconds_per_megabyte),
        part_core_hours={name: hours(part) for name, part in found.parts.items()},
        pack_core_hours={layout: hours(part) for layout, part in found.pack_core_seconds_per_megabyte.items()},
        disk_bytes={
            **{f"annotations/{name}": size * documents for name, size in found.bytes_per_document.items()},
            **{
                name if name == "tokens" else f"packed/{name}": size * tokens
                for name, size in found.bytes_per_token.items()
            },
        },
        files=found.files_per_partition * partitions,
        state_bytes=found.state_bytes_per_partition * partitions,
        partition_core_hours=found.cpu_seconds_per_partition.map(lambda seconds: seconds * partitions / 3600),
        requests={name: each * partitions for name, each in found.requests_per_partition.items()},
    )
