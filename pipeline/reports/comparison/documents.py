"""The documents of two runs, matched by id: how many are in both, and whose annotations changed.

Partitions of the same name hold the same documents in most pairs of runs: then rows are compared as they are. The
documents of all other partitions are joined by id, a hashed part of the ids at a time. Memory is that of the columns of
about a million documents of each run; every such part reads the other partitions once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from colophon.pipeline.reports.comparison.columns import ComparedColumn
from colophon.pipeline.reports.page.scans import ROWS_PER_QUERY, collected, summed
from colophon.shards.annotations import annotators_by_column, scan_annotations
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import checked_path
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.records import Record
from colophon.shards.run_output import RunOutput

NUM_EXAMPLES = 20
SEED = 0
_NULL = "(null)"
_URL = "url"
_LONGEST = 300
"""Characters of an example's id and URL."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A document whose label changed."""

    id: str
    url: str | None
    before: str
    after: str
    score_before: float | None
    score_after: float | None


@dataclass(frozen=True, kw_only=True)
class ChangedColumn:
    """The documents of both runs by their values in one column."""

    name: str
    documents: int
    """Documents in both runs."""
    changed: int
    """Documents in both runs with different values; null is a value."""
    mean_change: float | None
    """The mean of |value after − value before|, of numbers that are known in both runs; None of other columns."""
    pairs: list[tuple[str, str, int]] = field(default_factory=list)
    """Value before, value after, and documents, the most frequent first; of columns with few values."""
    examples: list[Example] = field(default_factory=list)
    """Some documents with different values, drawn by a hash of their ids; of columns with few values."""


@dataclass(frozen=True, kw_only=True)
class MatchedDocuments:
    """The documents of two runs."""

    both: int
    only_before: int
    only_after: int
    repeated: tuple[int, int]
    """Rows of each run whose id an earlier row has, where ids were joined: they are in none of the other counts."""
    columns: list[ChangedColumn]


def matched(before: RunOutput, after: RunOutput, columns: Sequence[ComparedColumn]) -> MatchedDocuments:
    """Match the documents of two runs, and compare the columns that both have.

    Raises:
        ShardError: a run has no token files, which hold the ids; an annotator lacks a partition; or a file cannot be
            read or differs from its record.
    """
    common = [one for one in columns if one.before is not None and one.after is not None]
    sides = _Side(before, common), _Side(after, common)
    tallies = [_Tally(one, (sides[0].score_of(one.name), sides[1].score_of(one.name))) for one in common]
    both, rows, repeated = 0, [0, 0], [0, 0]
    for pair in _pairs(*sides):
        both += pair.frames[0].height
        for place in (0, 1):
            rows[place] += pair.rows[place]
            repeated[place] += pair.repeated[place]
        for tally in tallies if pair.frames[0].height else ():
            tally.add(*pair.frames)
    only = [rows[place] - repeated[place] - both for place in (0, 1)]
    return MatchedDocuments(
        both=both,
        only_before=only[0],
        only_after=only[1],
        repeated=(repeated[0], repeated[1]),
        columns=[tally.result(both) for tally in tallies],
    )


@dataclass(frozen=True)
class _Pair:
    """A part of the documents: the same ones in the same order in both frames, which have `id` and the columns."""

    frames: tuple[pl.DataFrame, pl.DataFrame]
    rows: tuple[int, int]
    """The rows that this part has in each run."""
    repeated: tuple[int, int] = (0, 0)


class _Side:
    """One of the two runs."""

    def __init__(self, run: RunOutput, common: Sequence[ComparedColumn]) -> None:
        self.run = run
        self._annotator_of = annotators_by_column(run.path, run.manifest)
        scores = [score for one in common if (score := self.score_of(one.name)) is not None]
        urls = [_URL] if _URL in self._annotator_of else []
        self.columns = list(dict.fromkeys([*(one.name for one in common), *scores, *urls]))
        self._files = self._files_by_partition()

    @property
    def rows(self) -> dict[str, int]:
        """The rows of each partition."""
        return {name: files[0].rows for name, files in self._files.items()}

    def score_of(self, column: str) -> str | None:
        """The column with the number that `column` was made from: `quality_score` of `quality`."""
        score = f"{column}_score"
        annotator = self._annotator_of
        return score if score in annotator and annotator[score] == annotator.get(column) else None

    def frame(self, partitions: Sequence[str]) -> pl.LazyFrame:
        """The ids and columns of some partitions."""
        files = [self._files[name] for name in partitions]
        paths = [
            [checked_path(self.run.directory, record) for record in of_output] for of_output in zip(*files, strict=True)
        ]
        frames = [pl.scan_ipc(paths[0]).select("id"), *map(scan_annotations, paths[1:])]
        return pl.concat(frames, how="horizontal").select("id", *self.columns)

    def _files_by_partition(self) -> dict[str, list[Record]]:
        """By partition, the file of tokens and those of the annotators whose columns are compared."""
        outputs = self.run.manifest.outputs
        if TOKENS not in outputs:
            raise ShardError(f"{self.run.path} has no tokens, which hold the ids: run `colophon run` first")
        found = {record.partition: [record] for record in outputs[TOKENS].records if record.rows}
        for annotator in dict.fromkeys(self._annotator_of[column] for column in self.columns):
            records = {record.partition: record for record in outputs[Output.annotations(annotator)].records}
            for partition, files in found.items():
                if partition not in records:
                    where = (
                        f"{self.run.path}: {Output.annotations(annotator)} and tokens differ in partition {partition}"
                    )
                    raise ShardError(f"{where}: run `colophon run` again")
                files.append(records[partition])
        return found


def _pairs(before: _Side, after: _Side) -> Iterator[_Pair]:
    """Yield the documents of both runs, about a million at a time."""
    rows = before.rows, after.rows
    aligned = [name for name, n in rows[0].items() if rows[1].get(name) == n]
    others = [[name for name in of_side if name not in set(aligned)] for of_side in rows]
    for names in _batches(aligned, rows[0]):
        frames = before.frame(names), after.frame(names)
        found = collected(frames[0], before.run), collected(frames[1], after.run)
        if found[0]["id"].equals(found[1]["id"]):
            yield _Pair(found, (found[0].height, found[1].height))
        else:  # another column is the id, or a file was replaced
            for place in (0, 1):
                others[place] += names
    yield from _joined((before, after), others)


def _joined(sides: tuple[_Side, _Side], partitions: Sequence[Sequence[str]]) -> Iterator[_Pair]:
    """Yield the documents of partitions that are not aligned, joined by id: a part of the ids at a time."""
    rows = [sum(side.rows[name] for name in names) for side, names in zip(sides, partitions, strict=True)]
    num_parts = max(rows) // ROWS_PER_QUERY + 1
    for part in range(num_parts if any(rows) else 0):
        frames, sizes, repeated = [], [], []
        for side, names in zip(sides, partitions, strict=True):
            found = _part_of(side, names, part=part, num_parts=num_parts)
            unique = found.unique("id", keep="first", maintain_order=True)
            frames.append(unique)
            sizes.append(found.height)
            repeated.append(found.height - unique.height)
        common = frames[0].select("id").join(frames[1].select("id"), on="id", how="inner")
        before, after = (common.join(frame, on="id", how="left", maintain_order="left") for frame in frames)
        yield _Pair((before, after), (sizes[0], sizes[1]), (repeated[0], repeated[1]))


def _part_of(side: _Side, partitions: Sequence[str], *, part: int, num_parts: int) -> pl.DataFrame:
    wanted = pl.col("id").hash(SEED) % num_parts == part
    frames = [collected(side.frame(names).filter(wanted), side.run) for names in _batches(partitions, side.rows)]
    empty = pl.DataFrame(schema=["id", *side.columns]).cast(pl.String)
    return pl.concat(frames, how="vertical_relaxed") if frames else empty


def _batches(names: Sequence[str], rows: dict[str, int]) -> Iterator[list[str]]:
    batch: list[str] = []
    for name in names:
        if batch and sum(rows[one] for one in batch) + rows[name] > ROWS_PER_QUERY:
            yield batch
            batch = []
        batch.append(name)
    if batch:
        yield batch


class _Tally:
    """Counts the changes of one column."""

    def __init__(self, column: ComparedColumn, scores: tuple[str | None, str | None]) -> None:
        self._column, self._scores = column, scores
        self._pairs: list[pl.DataFrame] = []
        self._examples: list[tuple[int, Example]] = []
        self._changed, self._sum, self._known = 0, 0.0, 0

    def add(self, before: pl.DataFrame, after: pl.DataFrame) -> None:
        """Add documents; the rows of both frames are the same documents."""
        name = self._column.name
        values = [frame[name] for frame in (before, after)]
        if values[0].dtype != values[1].dtype and not all(each.dtype.is_numeric() for each in values):
            values = [each.cast(pl.String) for each in values]
        self._changed += int(values[0].ne_missing(values[1]).sum())
        if self._column.bins is not None and all(each.dtype.is_numeric() for each in values):
            change = (values[1].cast(pl.Float64) - values[0].cast(pl.Float64)).abs()
            change = change.filter(change.is_finite())
            self._sum, self._known = self._sum + float(change.sum()), self._known + len(change)
        if self._has_classes:
            self._add_classes(before, after)

    def result(self, documents: int) -> ChangedColumn:
        """The counts of all documents that were added."""
        pairs = summed(self._pairs) if self._pairs else None
        return ChangedColumn(
            name=self._column.name,
            documents=documents,
            changed=self._changed,
            mean_change=self._sum / self._known if self._known else None,
            pairs=[] if pairs is None else list(pairs.select("before", "after", "n").iter_rows()),
            examples=[example for _, example in self._examples],
        )

    @property
    def _has_classes(self) -> bool:
        return all(one is not None and one.kind == "classes" for one in (self._column.before, self._column.after))

    def _add_classes(self, before: pl.DataFrame, after: pl.DataFrame) -> None:
        keys = pl.DataFrame({"before": self._keys(before, 0), "after": self._keys(after, 1)})
        self._pairs.append(keys.group_by("before", "after").agg(pl.len().alias("n")))
        order = before["id"].hash(SEED)
        chosen = (
            keys.with_columns(order=order)
            .with_row_index("row")
            .filter(pl.col("before") != pl.col("after"))
            .bottom_k(NUM_EXAMPLES, by=["order", "row"])
        )
        found = [
            (place, self._example(row, labels, before, after))
            for row, *labels, place in chosen.select("row", "before", "after", "order").iter_rows()
        ]
        self._examples = sorted([*self._examples, *found], key=lambda one: (one[0], one[1].id))[:NUM_EXAMPLES]

    def _keys(self, frame: pl.DataFrame, place: int) -> pl.Series:
        column = (self._column.before, self._column.after)[place]
        assert column is not None
        return frame.select(column.key.cast(pl.String).fill_null(_NULL))[self._column.name]

    def _example(self, row: int, labels: Sequence[str], before: pl.DataFrame, after: pl.DataFrame) -> Example:
        urls = [frame[_URL][row] for frame in (before, after) if _URL in frame.columns]
        scores = [
            None if score is None else _number(frame[score][row])
            for frame, score in zip((before, after), self._scores, strict=True)
        ]
        url = next((url for url in urls if url is not None), None)
        return Example(
            id=str(before["id"][row])[:_LONGEST],
            url=None if url is None else str(url)[:_LONGEST],
            before=labels[0],
            after=labels[1],
            score_before=scores[0],
            score_after=scores[1],
        )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
