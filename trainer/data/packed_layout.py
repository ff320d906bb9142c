"""A packed layout together with the manifest of its run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from colophon.shards.manifest import Manifest, read_manifest
from colophon.shards.reader import PackedDataset


@dataclass(frozen=True, kw_only=True)
class PackedLayout:
    """A packed layout of a run, and the rest of the run's manifest."""

    output: Path
    layout: str
    dataset: PackedDataset
    manifest: Manifest
    partitions: tuple[str, ...]
    """Of the files of `dataset`."""

    @classmethod
    def open(cls, output: Path, layout: str) -> PackedLayout:
        """The layout as the run under `output` has packed it.

        Raises:
            ShardError: no manifest, no such layout (the choices are listed), or files that do not fit their records.
        """
        manifest = read_manifest(output)
        dataset = PackedDataset(manifest.packed_files(output, layout))
        records = manifest.layouts[layout].records
        partitions = tuple(record.partition for record in records if record.rows)
        return cls(output=output, layout=layout, dataset=dataset, manifest=manifest, partitions=partitions)
