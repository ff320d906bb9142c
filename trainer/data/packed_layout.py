"""Packed layouts together with the manifests of their runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, reduce
from hashlib import sha256

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import parse_layout
from colophon.shards.manifest import Manifest, read_manifest
from colophon.shards.reader import PackedDataset, PackedFile
from colophon.shards.schema import Role
from colophon.shards.stores.cache_settings import CacheSettings
from colophon.shards.stores.places import RunPlace
from colophon.trainer.config import SourceConfig
from colophon.trainer.data.annotation_compatibility import AnnotatorRecord
from colophon.trainer.data.description import LayoutDescription
from colophon.trainer.errors import TrainerError

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PackedLayout:
    """A packed layout of a run, and the run's manifest."""

    output: RunPlace
    layout: str
    dataset: PackedDataset
    manifest: Manifest
    partitions: tuple[str, ...]
    """The partition of each file of `dataset`."""

    @classmethod
    def open(
        cls, output: RunPlace, layout: str, *, cache: CacheSettings | None = None, report: Report = lambda line: None
    ) -> PackedLayout:
        """Open a layout that the run under `output` has packed; `cache` and `report` as in `PackedDataset.open`.

        Raises:
            ShardError: no manifest, no such layout (the choices are listed), or files that differ from their records.
        """
        manifest = read_manifest(output)
        dataset = PackedDataset.open(output, layout, manifest=manifest, cache=cache, report=report)
        records = manifest.layouts[layout].records
        partitions = tuple(record.partition for record in records if record.rows)
        return cls(output=output, layout=layout, dataset=dataset, manifest=manifest, partitions=partitions)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the settings and of the digests of all files; it must be unchanged when training resumes."""
        records = self.manifest.layouts[self.layout].records
        parts = [self.dataset.fingerprint, *(f"{record.partition} {record.sha256}" for record in records)]
        return sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def text_tokens(self) -> NumPyArray:
        """int64 [num_rows]: tokens of text in each row. Each is a label, since a row begins with bos."""
        return np.concatenate([_tokens_by_row(file, of_text=True) for file in self.dataset.files])

    @cached_property
    def tokens(self) -> NumPyArray:
        """int64 [num_rows]: labels of each row, without padding."""
        num_ids = np.concatenate([_tokens_by_row(file, of_text=False) for file in self.dataset.files])
        found: NumPyArray = np.maximum(num_ids - 1, 0)  # the first id of a row is no label
        return found

    @cached_property
    def annotators(self) -> AnnotatorRecord:
        """The annotators whose columns the template has, with the settings that they had when it was packed."""
        layout = parse_layout(self.dataset.info.layout, where=self.output)
        return AnnotatorRecord.of(self.output, self.manifest, layout.fields)

    def description(self, *, output: str | None) -> LayoutDescription:
        """The layout for a checkpoint; `output` as in the source's settings."""
        info = self.dataset.info
        return LayoutDescription(
            name=self.layout,
            output=output,
            layout=parse_layout(info.layout, where=self.output),
            sequence_length=info.sequence_length,
            pack=self.manifest.layouts[self.layout].settings.get("pack", {}),
            annotators=self.annotators,
        )


def _tokens_by_row(file: PackedFile, *, of_text: bool) -> NumPyArray:
    """int64 [num_rows]: ids of text, or of all but padding, in each row of a file."""
    offsets, lengths, roles, _ = file.all_runs()
    counted = roles == Role.TEXT if of_text else roles != Role.PAD
    sums = np.cumsum(np.where(counted, lengths, 0), dtype=np.int64)
    found: NumPyArray = np.diff(np.concatenate([[0], sums])[offsets])
    return found


class PackedLayouts:
    """The layouts that a run trains on, each opened once. They have one tokenizer, sequence length and type of ids."""

    def __init__(
        self, output: RunPlace, *, cache: CacheSettings | None = None, report: Report = lambda line: None
    ) -> None:
        """No layouts yet; `output` is that of the run that is trained, the others as in `PackedDataset.open`."""
        self._output, self._cache, self._report = output, cache, report
        self._layouts: dict[tuple[RunPlace, str], PackedLayout] = {}

    def open(self, source: SourceConfig) -> PackedLayout:
        """The layout of a source.

        Raises:
            ShardError: the layout is missing, or its files differ from their records.
            TrainerError: its tokenizer, sequence length or type of ids is not that of the layouts opened before.
        """
        output = source.output_directory(self._output)
        key = (output.resolve(), source.layout)
        if key not in self._layouts:
            packed = PackedLayout.open(output, source.layout, cache=self._cache, report=self._report)
            if self._layouts:
                _check_compatible(next(iter(self._layouts.values())), packed)
            self._layouts[key] = packed
        return self._layouts[key]

    @property
    def opened(self) -> list[PackedLayout]:
        """The layouts, in the order in which they were opened."""
        return list(self._layouts.values())

    def descriptions(self, sources: Iterable[SourceConfig]) -> list[LayoutDescription]:
        """The layouts of `sources` for a checkpoint, each once."""
        used = {(source.output_directory(self._output).resolve(), source.layout): source for source in sources}
        return [self.open(source).description(output=source.output) for source in used.values()]

    @property
    def datasets(self) -> list[PackedDataset]:
        """The rows of the layouts that have been opened."""
        return [packed.dataset for packed in self._layouts.values()]

    @property
    def role_weights(self) -> NumPyArray:
        """float32 [7]: the highest loss weight of each role in any of the layouts."""
        return reduce(np.maximum, [packed.dataset.role_weights for packed in self._layouts.values()])


def _check_compatible(first: PackedLayout, other: PackedLayout) -> None:
    for name, first_value, other_value in (
        ("tokenizer", first.dataset.tokenizer, other.dataset.tokenizer),
        ("sequence_length", first.dataset.sequence_length, other.dataset.sequence_length),
        ("type of ids", first.dataset.id_dtype, other.dataset.id_dtype),
    ):
        if first_value != other_value:
            values = "" if name == "tokenizer" else f", {first_value} and {other_value}"
            raise TrainerError(
                f"layouts {first.layout!r} of {first.output} and {other.layout!r} of {other.output} cannot be trained "
                f"on together: they differ in {name}{values}"
            )
