"""The output of a run, opened for reading: annotations, tokens and packed sequences.

Opening reads the manifest alone. Frames are lazy: polars reads the columns and rows that a query asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from colophon.shards.annotations import scan_annotations, scan_ids
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import Manifest, checked_path, read_manifest
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.reader import PackedDataset
from colophon.shards.stores.cache_settings import CacheSettings
from colophon.shards.stores.places import RunPlace, run_place

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class RunOutput:
    """The output of a finished run."""

    path: RunPlace

    @property
    def directory(self) -> Path:
        """The local directory.

        Raises:
            ShardError: the run is in an object store.
        """
        if not isinstance(self.path, Path):
            raise ShardError(f"{self.path} is in an object store, where packed rows alone are read: copy the run")
        return self.path

    @cached_property
    def manifest(self) -> Manifest:
        """The files of the run, and what they were made from.

        Raises:
            ShardError: there is no manifest, it cannot be read, or a different format version wrote it.
        """
        return read_manifest(self.path)

    def annotations(self) -> pl.LazyFrame:
        """One row for each document: its `id` and the columns of all annotators, in the order of the input.

        Raises:
            ShardError: the run has neither annotations nor tokens; an annotator lacks a partition; or a file is not as
                large as its commit record states.
        """
        import polars as pl

        outputs = [Output.annotations(name) for name in self.manifest.annotators]
        if TOKENS in self.manifest.outputs or not outputs:
            ids = self.tokens().select("id")
        else:
            ids = scan_ids(self._files(outputs[0]))
        return pl.concat([ids, *(scan_annotations(self._files(output)) for output in outputs)], how="horizontal")

    def tokens(self) -> pl.LazyFrame:
        """One row for each document: `id` string, `input_ids` list of uint16 or uint32, without special tokens.

        Raises:
            ShardError: the run has no token files, or one is not as large as its commit record states.
        """
        import polars as pl

        return pl.scan_ipc(self._files(TOKENS))

    def packed(self, layout: str, *, cache: CacheSettings | None = None) -> PackedDataset:
        """The packed sequences of a layout: memory-mapped, or read by ranges from an object store through `cache`.

        Raises:
            ShardError: the run has no such layout (the error lists those it has), or a file is not as recorded.
            StoreReadError: the store fails.
            CacheError: the cache cannot be used.
        """
        return PackedDataset.open(self.path, layout, manifest=self.manifest, cache=cache)

    def _files(self, output: Output) -> list[Path]:
        """The paths of an output's files in the order of the token files, so that rows of all outputs align.

        Without tokens the order is that of the first annotator's files.
        """
        outputs = self.manifest.outputs
        if output not in outputs:
            raise ShardError(f"{self.path} has no {output}: run `colophon run` first")
        first = TOKENS if TOKENS in outputs else next(iter(outputs))
        wanted = [record.partition for record in outputs[first].records]
        records = {record.partition: record for record in outputs[output].records}
        incomplete = next(iter(records.keys() ^ set(wanted)), None)
        if incomplete is not None:
            raise ShardError(
                f"{self.path}: {output} and {first} differ in partition {incomplete}: run `colophon run` again"
            )
        return [checked_path(self.directory, records[partition]) for partition in wanted]


def open_run(output: str | RunPlace) -> RunOutput:
    """The run whose `output.path` is `output`, a local directory or a URL of an object store.

    Raises:
        ShardError: `output` holds no manifest that can be read, or is a URL that is not allowed.
        StoreReadError: the store fails.
    """
    try:
        run = RunOutput(run_place(output))
    except ValueError as error:
        raise ShardError(f"an address that cannot be opened: {error}") from None
    _ = run.manifest  # a wrong directory is an error here, not at the first use
    return run
