"""The keys of all documents: a run of its own with one annotator, under the output, and its files in input order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from colophon.annotators.base import INPUT_IDS
from colophon.annotators.duplicates import DuplicatesConfig
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.schema import Recipe
from colophon.pipeline.runs.resolve import ResolvedRecipe, resolve
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.run_files import damage_as_error
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import did_you_mean
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import Output
from colophon.shards.record_table import PartitionTable
from colophon.shards.records import Record


def duplicates_config(recipe: Recipe, name: str, *, where: str) -> DuplicatesConfig:
    """The settings of the annotator `name`, which has the type `duplicates`.

    Raises:
        UsageError: there is no such annotator, or it has a different type.
    """
    config = recipe.annotators.get(name)
    if isinstance(config, DuplicatesConfig):
        return config
    names = duplicates_names(recipe)
    guess, available = did_you_mean(name, names), ", ".join(names) or "none"
    raise UsageError(f"{where}: no annotator {name!r} of type 'duplicates'; available: {available}{guess}")


def duplicates_names(recipe: Recipe) -> list[str]:
    """The names of the recipe's annotators of type `duplicates`."""
    return [name for name, config in recipe.annotators.items() if isinstance(config, DuplicatesConfig)]


def chosen_names(recipe: Recipe, wanted: Sequence[str] | None, *, where: str) -> list[str]:
    """The annotators of type `duplicates` with the names `wanted`, by default all.

    Raises:
        UsageError: there is none, or see `duplicates_config`.
    """
    names = list(dict.fromkeys(wanted or duplicates_names(recipe)))
    if not names:
        raise UsageError(f"{where}: no annotator of type 'duplicates'. Add one: [annotators.duplicates]")
    for name in names:
        duplicates_config(recipe, name, where=where)
    return names


def keys_path(recipe: Recipe, name: str) -> str:
    """The output of the run that computes the keys for the annotator `name`."""
    return f"{recipe.output.path.rstrip('/')}/duplicates/{name}"


def keys_recipe(recipe: Recipe, name: str, *, where: str) -> Recipe:
    """The recipe that computes the keys for the annotator `name`, in the directory `keys_path`.

    It has this annotator, and those whose columns `within` and `score` name.

    Raises:
        UsageError: see `duplicates_config` and `resolve`.
    """
    config = duplicates_config(recipe, name, where=where)
    others = {key: each for key, each in recipe.annotators.items() if not isinstance(each, DuplicatesConfig)}
    bare = recipe.model_copy(
        update={
            "annotators": {**others, name: config.of_keys},
            "output": recipe.output.model_copy(update={"path": keys_path(recipe, name)}),
            "layouts": {},
            "train": {},
        }
    )
    resolved = resolve(bare, where=where)
    needed = _needed(resolved, name)
    annotators = {key: each for key, each in bare.annotators.items() if key in needed}
    reads_ids = any(INPUT_IDS in each.columns for each in resolved.annotators if each.name in needed)
    return bare.model_copy(update={"annotators": annotators, "tokenizer": recipe.tokenizer if reads_ids else None})


def _needed(resolved: ResolvedRecipe, name: str) -> set[str]:
    """The names of an annotator, of those whose columns it reads, and of those that rewrite the texts of its ids."""
    by_name = {annotator.name: annotator for annotator in resolved.annotators}
    waiting, needed = [name], set[str]()
    while waiting:
        annotator = by_name[waiting.pop()]
        needed.add(annotator.name)
        sources = [resolved.columns.source(column) for column in annotator.columns]
        if INPUT_IDS in annotator.columns and resolved.recipe.tokenizer is not None:
            sources += resolved.recipe.tokenizer.rewritten_by
        waiting += [source for source in sources if source is not None and source not in needed]
    return needed


@dataclass(frozen=True)
class KeyFiles:
    """The files with the keys of all documents, in input order; a document's number is its row in all of them."""

    store: Store
    name: str
    """The annotator's name, with which its columns begin."""
    records: Sequence[Record]
    sources: Sequence[str] = ()
    """The values of `base.DOCUMENT_FILE`, in input order."""

    @classmethod
    def of(cls, manifest: Manifest, name: str, *, store: Store) -> KeyFiles:
        """The files that a run of `keys_recipe` wrote; none if no document could be read."""
        output = manifest.by_output.get(Output.annotations(name))
        partitions = PartitionTable.of(manifest.partitions)
        return cls(store, name, () if output is None else output.records, partitions.files_and_contents)

    @property
    def num_documents(self) -> int:
        """The number of documents."""
        return sum(record.rows for record in self.records)

    def pairs(self) -> Iterator[tuple[NumPyArray, NumPyArray]]:
        """For each file its keys, uint64 [keys], and the document of each, int64 [keys]."""
        for first, table in self._tables("keys"):
            lists = table.column(0).combine_chunks()
            counts = np.asarray(pc.fill_null(pc.list_value_length(lists), 0))
            yield np.asarray(lists.flatten()), first + np.repeat(np.arange(len(lists)), counts)

    def ranks(self) -> Iterator[tuple[int, NumPyArray]]:
        """For each file the number of its first document, and the ranks: float64 [documents], -inf for null."""
        for first, table in self._tables("rank"):
            yield first, np.asarray(table.column(0).combine_chunks().fill_null(-np.inf))

    def places(self) -> Iterator[tuple[int, pa.Table]]:
        """For each file the number of its first document, and the columns file, place and id."""
        yield from self._tables("file", "place", "id")

    def _tables(self, *columns: str) -> Iterator[tuple[int, pa.Table]]:
        first = 0
        names = [column if column == "id" else f"{self.name}_{column}" for column in columns]
        for record in self.records:
            with (
                self.store.files.local_copy(record.path) as path,
                damage_as_error(f"{self.store.root}/{record.path}"),
                pq.ParquetFile(path, page_checksum_verification=True) as parquet,
            ):
                table = parquet.read(columns=names, use_threads=False)
            yield first, table.select(names).rename_columns(list(columns))
            first += record.rows
