"""`colophon duplicates`: from a recipe to the table of its duplicates."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from colophon.annotators.duplicates import DuplicatesConfig
from colophon.annotators.lists.cluster_table import table_schema
from colophon.pipeline.duplicates.clusters import Clusters, find_clusters
from colophon.pipeline.duplicates.key_ranges import RANGE_BYTES
from colophon.pipeline.duplicates.keys import KeyFiles, duplicates_config, keys_recipe
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.session import ExecutorName
from colophon.pipeline.runs.recipe_run import run_recipe
from colophon.pipeline.scratch import scratch_directory
from colophon.pipeline.storage.commits import Store
from colophon.shards.common.durable import replaced_file
from colophon.shards.common.errors import ExitCode
from colophon.shards.common.paths import absolute_path
from colophon.shards.outputs import Output

if TYPE_CHECKING:
    from rich.console import Console

    from colophon.pipeline.recipe.schema import Recipe


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
    exit_code: ExitCode
    """3 where input was quarantined, else 0."""

    @property
    def not_kept(self) -> int:
        """The documents in clusters that are not kept."""
        return self.clustered - self.clusters


def find_duplicates(
    recipe: Recipe,
    name: str,
    *,
    where: str = "recipe",
    executor: ExecutorName | str = ExecutorName.AUTO,
    rebuild: bool = False,
    strict: bool = False,
    console: Console | None = None,
    log: Callable[[str], None] = lambda line: None,
    range_bytes: int = RANGE_BYTES,
) -> FoundDuplicates:
    """Compute the keys that are not up to date, cluster all documents, and write the table of the annotator `name`.

    Keys are files of a run under the output, `duplicates/<name>`: a killed command resumes there. Every call
    computes the clusters, in this process.

    Args:
        recipe: a recipe with the annotator.
        name: an annotator of type `duplicates`.
        where: the recipe's name in errors.
        executor: where keys are computed: `auto`, `local`, `ray` or `inline`.
        rebuild: redo keys that were made with different settings, instead of raising.
        strict: stop at the first input that cannot be read.
        console: shows progress. None: nothing is shown.
        log: gets a line on where workers run.
        range_bytes: bytes of keys that are sorted at once.

    Raises:
        UsageError: there is no such annotator, or the recipe does not fit.
        ColophonError: a worker failed. What was committed stays, and the same call resumes it.
    """
    config = duplicates_config(recipe, name, where=where)
    table = _table_path(config, key=f"{where}: annotators.{name}.path")
    keys = keys_recipe(recipe, name, where=where)
    result = run_recipe(
        keys,
        stages=("annotate",),
        executor=executor,
        rebuild=rebuild,
        strict=strict,
        name=where,
        console=console,
        shows_summary=False,
        log=log,
    )
    records = result.manifest.by_output[Output.annotations(name)].records
    files = KeyFiles(Store(keys.output.path), name, records)
    clusters = _clusters(files, config, beside=table, range_bytes=range_bytes)
    _write_table(files, clusters, config, table)
    return FoundDuplicates(
        name=name,
        path=config.path,
        documents=files.num_documents,
        clusters=len(clusters.sizes),
        clustered=clusters.num_documents,
        exit_code=result.exit_code,
    )


def _table_path(config: DuplicatesConfig, *, key: str) -> Path:
    """The table's path, in a directory that exists: an error here comes before hours of work."""
    path = Path(absolute_path(config.path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{key}: {path.parent}: {error.strerror}") from None
    if path.is_dir():
        raise UsageError(f"{key}: {path} is a directory; the table is a file")
    return path


def _clusters(files: KeyFiles, config: DuplicatesConfig, *, beside: Path, range_bytes: int) -> Clusters:
    """The clusters; the scratch directory is beside the table, where there is room for it."""
    scratch = beside.parent / f".{beside.name}-{os.getpid()}"
    with scratch_directory(scratch):
        return find_clusters(
            files,
            num_keys=config.bands if config.method == "minhash" else 1,
            ranked=config.keep != "first",
            scratch=scratch,
            range_bytes=range_bytes,
        )


def _write_table(files: KeyFiles, clusters: Clusters, config: DuplicatesConfig, path: Path) -> None:
    """Write a row for each document in a cluster, in input order."""
    schema = table_schema(config.of_table, files.sources)
    with replaced_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for first, places in files.places():
            writer.write_table(_rows(places, clusters, first, schema))


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
