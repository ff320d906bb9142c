"""`colophon duplicates`: from a recipe to the table of its duplicates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from colophon.annotators.duplicates import DuplicatesConfig
from colophon.annotators.lists.cluster_table import table_schema
from colophon.pipeline.duplicates.clusters import Clusters, find_clusters
from colophon.pipeline.duplicates.key_ranges import RANGE_BYTES
from colophon.pipeline.duplicates.keys import KeyFiles, duplicates_config, keys_path, keys_recipe
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.session import ExecutorName
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.inputs.search.overlap import check_apart
from colophon.pipeline.reports.summary import print_quarantine
from colophon.pipeline.runs.recipe_run import run_recipe
from colophon.pipeline.scratch import scratch_directory
from colophon.pipeline.storage.commits import QUARANTINE, Store
from colophon.pipeline.storage.fault_injection import reached
from colophon.pipeline.storage.run_files import disk_full_as_store_error
from colophon.shards.common.durable import replaced_file
from colophon.shards.common.errors import ColophonError, ExitCode
from colophon.shards.common.paths import absolute_path

if TYPE_CHECKING:
    from rich.console import Console

    from colophon.pipeline.recipe.schema import Recipe
    from colophon.pipeline.runs.run import RunResult
    from colophon.pipeline.storage.shard import Shard


@dataclass(frozen=True, kw_only=True)
class FoundDuplicates:
    """The duplicates of one annotator."""

    name: str
    path: str
    """The table."""
    documents: int
    clusters: int
    """Clusters of two documents or more."""
    clustered: int
    """Documents in clusters."""
    quarantined: int
    """Files and partitions that could not be read."""

    @property
    def not_kept(self) -> int:
        """The documents in clusters that are not kept."""
        return self.clustered - self.clusters

    @property
    def exit_code(self) -> ExitCode:
        """3 where input was quarantined, else 0."""
        return ExitCode.QUARANTINED if self.quarantined else ExitCode.COMPLETE


class KeyOptions(TypedDict, total=False):
    """Arguments of `compute_keys` for all partitions."""

    executor: ExecutorName | str
    rebuild: bool
    strict: bool
    log: Callable[[str], None]


def compute_keys(
    recipe: Recipe,
    name: str,
    *,
    where: str = "recipe",
    executor: ExecutorName | str = ExecutorName.AUTO,
    shard: Shard | None = None,
    rebuild: bool = False,
    strict: bool = False,
    console: Console | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Compute the keys of the annotator `name` that are not up to date, in a run under the output, `duplicates/<name>`.

    Args:
        recipe: a recipe with the annotator.
        name: an annotator of type `duplicates`.
        where: the recipe's name in errors.
        executor: where keys are computed: `auto`, `local`, `ray` or `inline`.
        shard: compute this share of the keys alone, without Ray.
        rebuild: redo keys that were made with different settings, instead of raising.
        strict: stop at the first input that cannot be read.
        console: shows progress. None: nothing is shown.
        log: gets a line on where workers run.

    Raises:
        UsageError: there is no such annotator, or the recipe does not fit.
        ColophonError: a worker failed. What was committed stays, and the same call resumes it.
    """
    table = _table_path(recipe, name, where=where)  # an error comes before hours of work
    check_apart(find_files(*recipe.sources), str(table), key=f"{where}: annotators.{name}.path")
    return run_recipe(
        keys_recipe(recipe, name, where=where),
        stages=("annotate",),
        executor=executor,
        shard=shard,
        rebuild=rebuild,
        strict=strict,
        name=where,
        console=console,
        shows_summary=False,
        log=log,
    )


def find_duplicates(
    recipe: Recipe,
    name: str,
    *,
    where: str = "recipe",
    console: Console | None = None,
    range_bytes: int = RANGE_BYTES,
    **options: Unpack[KeyOptions],
) -> FoundDuplicates:
    """Compute the keys that are not up to date, cluster all documents, and write the table of the annotator `name`.

    A killed call is resumed by the next, which also uses what shards have computed. Every call computes the clusters,
    in this process.

    Args:
        recipe: a recipe with the annotator.
        name: an annotator of type `duplicates`.
        where: the recipe's name in errors.
        console: shows progress. None: nothing is shown.
        range_bytes: bytes of keys that are sorted at once.
        options: see `compute_keys`.

    Raises: see `compute_keys`; also ColophonError where no document can be read: an earlier table stays.
    """
    result = compute_keys(recipe, name, where=where, console=console, **options)
    root = keys_path(recipe, name)
    if console is not None:
        print_quarantine(result.manifest, root=root, console=console)
    config, table = duplicates_config(recipe, name, where=where), _table_path(recipe, name, where=where)
    files = KeyFiles.of(result.manifest, name, store=Store(root))
    if result.manifest.quarantine and not files.num_documents:
        raise ColophonError(
            f"{where}: annotators.{name}: no document can be read: see {root}/{QUARANTINE}. {table} is not written"
        )
    with _scratch_beside(table) as scratch:
        clusters = _clusters(files, config, scratch=scratch, range_bytes=range_bytes)
        _write_table(files, clusters, config, table, scratch=scratch)
    return FoundDuplicates(
        name=name,
        path=config.path,
        documents=files.num_documents,
        clusters=len(clusters.sizes),
        clustered=clusters.num_documents,
        quarantined=len(result.manifest.quarantine),
    )


def _table_path(recipe: Recipe, name: str, *, where: str) -> Path:
    """The table's path, in a directory that exists."""
    path, key = (
        Path(absolute_path(duplicates_config(recipe, name, where=where).path)),
        f"{where}: annotators.{name}.path",
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{key}: {path.parent}: {error.strerror}") from None
    if path.is_dir():
        raise UsageError(f"{key}: {path} is a directory; the table is a file")
    return path


@contextmanager
def _scratch_beside(table: Path) -> Iterator[Path]:
    """A directory for files of this process, beside the table, where there is room for them.

    A later call deletes the directory of a killed process.
    """
    scratch = table.parent / f".{table.name}-{os.getpid()}"
    with disk_full_as_store_error(str(scratch)), scratch_directory(scratch):
        yield scratch


def _clusters(files: KeyFiles, config: DuplicatesConfig, *, scratch: Path, range_bytes: int) -> Clusters:
    pairs = scratch / "pairs"
    pairs.mkdir()
    return find_clusters(
        files,
        num_keys=config.bands if config.method == "minhash" else 1,
        ranked=config.keep != "first",
        scratch=pairs,
        range_bytes=range_bytes,
    )


def _write_table(files: KeyFiles, clusters: Clusters, config: DuplicatesConfig, path: Path, *, scratch: Path) -> None:
    """Write a row for each document in a cluster, in input order."""
    schema = table_schema(config.of_table, files.sources)
    with pq.ParquetWriter(scratch / path.name, schema, compression="zstd") as writer:
        for first, places in files.places():
            writer.write_table(_rows(places, clusters, first, schema))
    reached("before rename", "table")
    with replaced_file(path) as temporary:
        (scratch / path.name).rename(temporary)


def _rows(places: pa.Table, clusters: Clusters, first: int, schema: pa.Schema) -> pa.Table:
    of_document = clusters.of_document[first : first + places.num_rows]
    rows = np.flatnonzero(of_document >= 0)
    numbers = of_document[rows]
    columns = {
        "cluster": pa.array(numbers),
        "size": pa.array(clusters.sizes[numbers].astype(np.int32)),
        "kept": pa.array(clusters.kept[numbers] == first + rows),
    }
    found = places.take(pa.array(rows))
    for column, values in columns.items():
        found = found.append_column(column, values)
    return found.select(schema.names).cast(schema)
