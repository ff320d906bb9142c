"""Reads the output of each contestant into one form, and compares outputs.

The form is a table sorted by document id with `id`, `quality` (probability of one label), `topic` (the label as in the
model), `topic_score` and `input_ids`. The fastText library adds 1e-5 to each probability; reading subtracts it.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.job import Job
from colophon.annotators.fasttext.model import encode_label
from colophon.shards.arrow_files import list_values
from colophon.shards.manifest import read_manifest

TOLERANCE = 2e-5
"""Allowed difference of two probabilities: float32 sums in a different order."""
_LIBRARY_OFFSET = 1e-5
_FLOAT32 = 2e-7
"""Rounding error of two probabilities written as float32."""
_TIES_AMONG = 10_000
"""One document in this many may have a different label, if the scores of both labels agree: a tie."""
_NAMES = ["id", "quality", "topic", "topic_score", "input_ids"]
Reader = Callable[[Job], pa.Table]


class OutputDiffersError(RuntimeError):
    """The output of a contestant is incomplete or wrong."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The documents of the input; arrays in the order of sorted ids."""

    ids: pa.Array
    blank: np.ndarray[Any, np.dtype[np.bool_]]
    """Documents without a word: their scores have no meaning."""
    padded: np.ndarray[Any, np.dtype[np.bool_]]
    """Documents that begin or end with white space outside of ASCII, which Python strips and fastText reads."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The differences between an output and the reference."""

    documents: int
    tokens: int
    largest_difference: float
    """The largest difference of a probability."""
    other_labels: int
    """Documents whose best label is a different one with the same probability."""
    not_compared: int
    """Documents whose scores are excluded, see `Expected`."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {**asdict(self), "largest_difference": float(f"{self.largest_difference:.3g}")}


def expected_of(job: Job) -> Expected:
    """Read the input's ids and texts."""
    table = pa.concat_tables(pq.read_table(file, columns=["id", "text"]) for file in job.files).sort_by("id")
    blank, padded = [], []
    for value in table["text"]:
        text = value.as_py() or ""
        ascii_stripped = text.strip(" \t\n\v\f\r\0")
        blank.append(not ascii_stripped)
        padded.append(text.strip().strip("\0") != ascii_stripped)
    return Expected(ids=table["id"].combine_chunks(), blank=np.array(blank, bool), padded=np.array(padded, bool))


def compare(reference: pa.Table, found: pa.Table, *, expected: Expected, strips: bool = False) -> Agreement:
    """Compare an output with the reference, both in the form of this module.

    Args:
        reference: the first output.
        found: the output to check.
        expected: the documents of the input.
        strips: whether one of the contestants strips texts before it scores them.

    Raises:
        OutputDiffersError: a document is missing, repeated or unknown, tokens differ, or scores differ by more than
            `TOLERANCE`.
    """
    for table in (reference, found):
        _check_documents(table["id"].combine_chunks(), expected.ids)
    _check_tokens(reference, found)
    left_out = expected.blank | (expected.padded if strips else False)
    compared = ~left_out
    largest = max(_check_column(reference, found, name, compared) for name in ("quality", "topic_score"))
    labels, their_labels = (pc.fill_null(table["topic"], "") for table in (reference, found))
    num_other = int(np.count_nonzero(pc.not_equal(labels, their_labels).to_numpy() & compared))
    if num_other > len(compared) // _TIES_AMONG:
        raise OutputDiffersError(f"{num_other} of {len(compared)} documents have a different label")
    return Agreement(
        documents=found.num_rows,
        tokens=len(list_values(found["input_ids"])[1]),
        largest_difference=largest,
        other_labels=num_other,
        not_compared=int(np.count_nonzero(left_out)),
    )


def _check_documents(found: pa.Array, ids: pa.Array) -> None:
    if found.equals(ids):
        return
    missing, foreign = (set(a.to_pylist()) - set(b.to_pylist()) for a, b in ((ids, found), (found, ids)))
    raise OutputDiffersError(f"{len(found)} documents of {len(ids)}; {len(missing)} missing, {len(foreign)} unknown")


def _check_tokens(reference: pa.Table, found: pa.Table) -> None:
    (offsets, values), (their_offsets, their_values) = (list_values(t["input_ids"]) for t in (reference, found))
    if not np.array_equal(offsets, their_offsets):
        differing = int(np.count_nonzero(np.diff(offsets) != np.diff(their_offsets)))
        raise OutputDiffersError(f"{differing} documents have a different number of tokens")
    if not np.array_equal(values, their_values):
        raise OutputDiffersError(f"{int(np.count_nonzero(values != their_values))} tokens differ")


def _check_column(reference: pa.Table, found: pa.Table, name: str, compared: np.ndarray[Any, Any]) -> float:
    ours, theirs = (pc.fill_null(t[name].cast(pa.float64()), np.nan).to_numpy()[compared] for t in (reference, found))
    difference = np.abs(ours - theirs)
    if np.isnan(difference).any():
        raise OutputDiffersError(f"{int(np.isnan(difference).sum())} documents have no {name}")
    largest = float(difference.max(initial=0))
    if largest > TOLERANCE + _FLOAT32:
        above = int(np.count_nonzero(difference > TOLERANCE + _FLOAT32))
        raise OutputDiffersError(
            f"{name} differs by up to {largest:.3g}, in {above} documents by more than {TOLERANCE:g}"
        )
    return largest


def read_arrow(job: Job) -> pa.Table:
    """Read the Arrow files of the hand-written script."""
    files = sorted(Path(job.output).glob("*.arrow"))
    return _from_library(pa.concat_tables(pa.ipc.open_file(file).read_all() for file in files))


def read_parquet(job: Job) -> pa.Table:
    """Read the Parquet files of Ray Data."""
    return _from_library(pa.concat_tables(pq.read_table(file) for file in sorted(Path(job.output).rglob("*.parquet"))))


def read_datatrove(job: Job) -> pa.Table:
    """Read datatrove's files: for each task Parquet with scores, and tokens with their index, in the same order."""
    dtype = np.dtype("<u2" if job.vocabulary.num_ids <= 1 << 16 else "<u4")
    parts = []
    for scores in sorted(Path(job.output, "scores").glob("*.parquet")):
        rank = scores.stem.rpartition("_")[2]
        tokens = Path(job.output, "tokens", f"{rank}_unshuffled.ds")
        ends = np.fromfile(f"{tokens}.index", "<u8").astype(np.int32)
        lists = pa.ListArray.from_arrays(
            pa.array(np.concatenate([[0], ends]).astype(np.int32)), np.fromfile(tokens, dtype)
        )
        table = pq.read_table(scores)
        parts.append(table.append_column("input_ids", lists))
    return _from_library(pa.concat_tables(parts))


def read_dolma(job: Job) -> pa.Table:
    """Read Dolma's attributes, JSON lines with spans, and its tokens, memory-mapped with a table of documents."""
    attributes: dict[str, Mapping[str, Any]] = {}
    for file in sorted(Path(job.output, "attributes").rglob("*.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            attributes |= {row["id"]: row["attributes"] for row in map(json.loads, lines)}
    ids, rows = [], []
    dtype = np.dtype(np.uint16 if job.vocabulary.num_ids < 1 << 16 else np.uint32)
    for file in sorted(Path(job.output, "tokens").rglob("*.npy")):
        tokens = np.fromfile(file, dtype)
        with gzip.open(file.with_name(file.name.removesuffix(".npy") + ".csv.gz"), "rt", encoding="utf-8") as lines:
            for start, end, document, *_ in csv.reader(lines):
                ids.append(document)
                rows.append(tokens[int(start) : int(end) - 1])
    scores = [_dolma_scores(attributes[document], job) for document in ids]
    columns = [ids, *([score[i] for score in scores] for i in range(3)), _lists(rows, dtype)]
    return _from_library(pa.table(dict(zip(_NAMES, columns, strict=True))))


def _dolma_scores(attributes: Mapping[str, Any], job: Job) -> tuple[float, str, float]:
    """Return quality, topic and its score; `<experiment>__<tagger>__<label>` has one span [start, end, score]."""
    by_tagger: dict[str, dict[str, float]] = {"quality": {}, "topic": {}}
    for key, spans in attributes.items():
        _, tagger, label = key.split("__", 2)
        by_tagger[tagger][label] = spans[0][2]
    names = {f"t{i}": label for i, label in enumerate(job.topic.labels)}
    topic = max(by_tagger["topic"], key=lambda label: by_tagger["topic"][label])
    return by_tagger["quality"]["high"], names[topic], by_tagger["topic"][topic]


def read_colophon(job: Job) -> pa.Table:
    """Read the files that Colophon's manifest names."""
    output = Path(job.output)
    outputs = read_manifest(output).outputs
    parts = []
    for quality, topic, tokens in zip(
        *(outputs[name].records for name in ("annotations/quality", "annotations/topic", "tokens")), strict=True
    ):
        ids = pa.ipc.open_file(output / tokens.path).read_all()
        scores = pq.read_table(output / quality.path)
        topics = pq.read_table(output / topic.path)
        names = {name: encode_label(name) for name in topics["topic"].unique().to_pylist() if name is not None}
        labels = pa.array([names.get(name) for name in topics["topic"].to_pylist()], pa.string())
        columns = [ids["id"], scores["quality_score"], labels, topics["topic_score"], ids["input_ids"]]
        parts.append(pa.table(dict(zip(_NAMES, columns, strict=True))))
    return _one_form(pa.concat_tables(parts))


def _from_library(table: pa.Table) -> pa.Table:
    for name in ("quality", "topic_score"):
        scores = pc.subtract(table[name].cast(pa.float64()), _LIBRARY_OFFSET)
        table = table.set_column(table.schema.get_field_index(name), name, scores)
    return _one_form(table)


def _one_form(table: pa.Table) -> pa.Table:
    types = [pa.string(), pa.float64(), pa.string(), pa.float64(), pa.list_(pa.uint32())]
    wanted = pa.schema(list(zip(_NAMES, types, strict=True)))
    return table.select(_NAMES).cast(wanted).sort_by("id").combine_chunks()


def _lists(rows: list[np.ndarray[Any, Any]], dtype: np.dtype[Any]) -> pa.ListArray:
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate([np.empty(0, dtype), *rows])))
