"""The judgements of a teacher on texts, and which texts are held out: the input of `colophon distill`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from colophon.pipeline.classifiers.groups import registered_domains
from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.training_texts import VECTOR_COLUMN, read_columns
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.errors import listed

TeacherKind = Literal["number", "label", "tags"]
_MOST_WHOLE_NUMBERS = 12
_HASH_RANGE = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the input's columns."""

    teacher: str
    text: str = "text"
    id: str = "id"
    teacher_id: str = "id"
    """The ids' name in the teacher's files."""
    url: str = "url"
    vector: str | None = None
    """A column of ready vectors, for classifiers that read one."""


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Texts with the judgements of a teacher, as labels that a classifier can learn."""

    texts: pa.Array
    """string [n]"""
    vectors: pa.Array | None
    """`VECTOR` [n], of a column of ready vectors."""
    ids: pa.Array
    """string [n]"""
    groups: pa.Array
    """string [n]: the registered domain of each text's URL, else its id."""
    kind: TeacherKind
    values: pa.Array
    """[n]: the teacher's column: float64, string or list<string>."""
    labels: pa.Array
    """string [n], or list<string> [n] of tags: the classes that are learnt."""
    numbers: dict[str, float] | None
    """The mean of the teacher's numbers in each class; None for labels and tags."""
    counts: dict[str, int]
    """The number of rows that were left out, by reason."""

    def __len__(self) -> int:
        return len(self.texts)

    def held_out(self, *, share: float, seed: int) -> npt.NDArray[np.bool_]:
        """bool [n]: whether a text is held out: a function of its group and the seed alone.

        Raises:
            UsageError: one of the parts is empty.
        """
        encoded = self.groups.dictionary_encode()
        draws = [int(fingerprint([seed, group])[:8], 16) / _HASH_RANGE for group in encoded.dictionary.to_pylist()]
        chosen: NumPyArray = np.array(draws)[encoded.indices.to_numpy()] < share
        if chosen.all() or not chosen.any():
            raise UsageError(
                f"--held-out {share}: of {len(encoded.dictionary):,} registered domains with {len(self):,} texts, "
                f"{'all' if chosen.any() else 'none'} would be held out. Use more texts, another --held-out or --seed"
            )
        return chosen


def read_teaching(
    paths: Sequence[str], columns: Columns, *, teacher: Sequence[str], classes: int, most_labels: int
) -> Teaching:
    """The texts of the input that the teacher has judged.

    Args:
        paths: files with texts, as in `[input] paths`.
        columns: their columns' names.
        teacher: files with ids and the teacher's column; none: it is in the files of the texts.
        classes: of a number that is not one of a few whole numbers, the number of classes with equal counts.
        most_labels: labels and tags that are learnt: the most frequent ones.

    Raises:
        UsageError: a file cannot be read or lacks a column, ids occur twice in the teacher's files, no text has a
            judgement, or the column is of a type that cannot be learnt.
    """
    names = {"text": columns.text, "id": columns.id, "url": columns.url}
    if columns.vector is not None:
        names[VECTOR_COLUMN] = columns.vector
    if teacher:
        rows = read_columns(paths, names, optional=("url",))
        judged = read_columns(teacher, {"id": columns.teacher_id, "teacher": columns.teacher})
        rows = _joined(rows, judged, files=teacher)
    else:
        rows = read_columns(paths, {**names, "teacher": columns.teacher}, optional=("id", "url"))
    has_both = pc.and_(pc.greater(pc.binary_length(rows["text"]), 0), pc.is_valid(rows["teacher"]))
    kept = rows.filter(has_both).combine_chunks()
    if not len(kept):
        raise UsageError(f"{', '.join(paths)}: no text has a value of {columns.teacher!r}")
    return _learnable(
        kept, where=columns.teacher, classes=classes, most_labels=most_labels, unjudged=len(rows) - len(kept)
    )


def _joined(rows: pa.Table, judged: pa.Table, *, files: Sequence[str]) -> pa.Table:
    judged = judged.filter(pc.is_valid(judged["id"])).combine_chunks()
    places = pc.index_in(rows["id"].combine_chunks(), judged["id"].combine_chunks())
    twice = len(judged) - len(pc.unique(judged["id"]))
    if twice:
        raise UsageError(f"{', '.join(files)}: {twice:,} rows have an id that another row has; each id may occur once")
    return rows.append_column("teacher", judged["teacher"].combine_chunks().take(places))


def _learnable(rows: pa.Table, *, where: str, classes: int, most_labels: int, unjudged: int) -> Teaching:
    kind, values = _typed(rows["teacher"].combine_chunks(), where=where)
    numbers = None
    if kind == "number":
        labels, numbers = _classes(values.to_numpy(), classes=classes, where=where)
    else:
        labels = _frequent(values, most_labels)
    is_known = labels.is_valid() if kind != "tags" else pc.greater(pc.list_value_length(labels), 0)
    if kind == "number":
        is_known = pc.and_(is_known, pc.is_finite(values))
    texts, ids, urls = (rows[name].cast(pa.string()).combine_chunks() for name in ("text", "id", "url"))
    ids = pc.coalesce(ids, pa.array([f"row {number}" for number in range(len(rows))]))
    groups = pc.coalesce(registered_domains(urls), ids)
    kept = [column.filter(is_known) for column in (texts, ids, groups, values, labels)]
    has_vectors = VECTOR_COLUMN in rows.column_names
    rare = len(rows) - len(kept[0])
    return Teaching(
        texts=kept[0],
        vectors=rows[VECTOR_COLUMN].combine_chunks().filter(is_known) if has_vectors else None,
        ids=kept[1],
        groups=kept[2],
        kind=kind,
        values=kept[3],
        labels=kept[4],
        numbers=numbers,
        counts={"without a judgement": unjudged, "with a rare label alone or a number that is not finite": rare},
    )


def _typed(values: pa.Array, *, where: str) -> tuple[TeacherKind, pa.Array]:
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _typed(values.dictionary_decode(), where=where)
    if pa.types.is_boolean(kind):
        return "label", values.cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number", values.cast(pa.float64())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "label", values.cast(pa.string())
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return "tags", values
    raise UsageError(f"{where}: has type {kind}; a teacher's column has numbers, text or lists of text")


def _classes(values: NumPyArray, *, classes: int, where: str) -> tuple[pa.Array, dict[str, float]]:
    """A class for each number, named by its mean: a class for each of a few whole numbers, else quantiles."""
    known = values[np.isfinite(values)]
    distinct = np.unique(known)
    if len(distinct) < 2:
        raise UsageError(f"{where}: has one number alone, or none: there is nothing to learn")
    if len(distinct) <= _MOST_WHOLE_NUMBERS and (distinct == np.rint(distinct)).all():
        edges = (distinct[1:] + distinct[:-1]) / 2
    else:
        edges = np.unique(np.quantile(known, np.arange(1, classes) / classes))
    places = np.searchsorted(edges, values, side="right")
    means = [known[np.searchsorted(edges, known, side="right") == place] for place in range(len(edges) + 1)]
    names = {place: f"{each.mean():.6g}" for place, each in enumerate(means) if len(each)}
    numbers = {names[place]: round(float(means[place].mean()), 6) for place in names}
    labels = pa.array([names.get(place) for place in range(len(edges) + 1)], pa.string()).take(pa.array(places))
    return labels, numbers


def _frequent(values: pa.Array, most: int) -> pa.Array:
    """The values with the labels alone that are among the `most` frequent: null, or fewer tags, for the others."""
    is_list = pa.types.is_list(values.type)
    flat = values.flatten() if is_list else values
    counts = flat.drop_null().value_counts().to_pylist()
    ranked = sorted(counts, key=lambda each: (-each["counts"], each["values"]))
    kept = pa.array([each["values"] for each in ranked if each["values"]][:most], pa.string())
    is_kept = pc.is_in(flat, kept)
    if not is_list:
        return pc.if_else(is_kept, flat, None)
    parents = pc.list_parent_indices(values).to_numpy()
    sizes = np.bincount(parents[is_kept.to_numpy(zero_copy_only=False)], minlength=len(values))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat.filter(is_kept))


def described(counts: dict[str, int]) -> str:
    """`left out: 12 without a judgement`; empty if nothing was."""
    found = [f"{count:,} {reason}" for reason, count in counts.items() if count]
    return f"left out: {listed(found, most=4)}" if found else ""
