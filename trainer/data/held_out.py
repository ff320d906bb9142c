"""Rows that validation uses, and training excludes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.outputs import TOKENS
from colophon.shards.reader import PackedFile
from colophon.shards.schema import NO_DOCUMENT
from colophon.shards.stores.places import run_place
from colophon.shards.templates import template_of
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.annotation_compatibility import TrainedAnnotators, check_annotations
from colophon.trainer.data.description import HeldOutDocuments
from colophon.trainer.data.held_out_choice import choose_documents, choose_rows
from colophon.trainer.data.packed_layout import PackedLayout
from colophon.trainer.errors import TrainerError


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The validation rows of a run."""

    packed: PackedLayout
    rows: NumPyArray
    """int64, ascending."""
    whole_documents: dict[str, NumPyArray] = field(default_factory=dict)
    """By partition, int64, ascending: documents of which every row is held out. Empty for rows of a different run."""

    def descriptions(self) -> list[HeldOutDocuments]:
        """The whole documents for a checkpoint, in the order of the partitions."""
        tokens = self.packed.manifest.outputs.get(TOKENS)
        digests = {record.partition: record.sha256 for record in tokens.records} if tokens else {}
        return [
            HeldOutDocuments(partition=partition, tokens_sha256=digests.get(partition), documents=found.tolist())
            for partition, found in sorted(self.whole_documents.items())
        ]

    def training_rows(self, other: PackedLayout) -> NumPyArray:
        """int64, ascending: the rows of a layout that a run may train on.

        Excluded are the held-out rows; and, from other layouts of the same run, rows with any document of theirs.
        """
        all_rows = np.arange(len(other.dataset))
        if other.output.resolve() != self.packed.output.resolve():
            return all_rows
        return np.setdiff1d(all_rows, self.rows if other is self.packed else self._rows_of_same_documents(other))

    def _rows_of_same_documents(self, other: PackedLayout) -> NumPyArray:
        held_out = self._documents()
        first_rows = np.cumsum([0, *map(len, other.dataset.files)])
        parts = [
            first + _rows_with(file, held_out[partition])
            for first, file, partition in zip(first_rows[:-1], other.dataset.files, other.partitions, strict=True)
            if partition in held_out
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _documents(self) -> dict[str, NumPyArray]:
        """The documents of the held-out rows, by partition."""
        partitions = dict(zip(map(id, self.packed.dataset.files), self.packed.partitions, strict=True))
        found: dict[str, list[NumPyArray]] = {}
        for row in self.rows:
            file, file_row = self.packed.dataset.locate(int(row))
            _, _, documents = file.runs(file_row)
            found.setdefault(partitions[id(file)], []).append(documents[documents != NO_DOCUMENT])
        return {partition: np.unique(np.concatenate(documents)) for partition, documents in found.items()}


def _rows_with(file: PackedFile, documents: NumPyArray) -> NumPyArray:
    """int64: rows of a file that have any of `documents`."""
    offsets, _, _, run_documents = file.all_runs()
    return np.unique(np.repeat(np.arange(len(file)), np.diff(offsets))[np.isin(run_documents, documents)])


def hold_out_rows(packed: PackedLayout, config: TrainConfig) -> HeldOut:
    """Choose the validation rows: of a different run's layout (`validation_output`), or of `packed` itself.

    Raises:
        ShardError: the other run has no such layout.
        TrainerError: no row is left to train on, or the other run's layout differs in tokenizer, template or
            annotations.
    """
    if config.validation_output is not None:
        other = PackedLayout.open(run_place(config.validation_output), config.layout, cache=config.cache)
        check_same_layout(packed, other)
        num_rows = len(other.dataset)
        count = num_rows if config.validation_rows is None else config.validation_rows
        return HeldOut(packed=other, rows=choose_rows(num_rows, count=count, seed=config.seed))
    num_rows = len(packed.dataset)
    count = min(256, max(1, num_rows // 100)) if config.validation_rows is None else config.validation_rows
    if count >= num_rows:
        raise TrainerError(
            f"layout {config.layout!r} has {num_rows} rows, and {count} are held out for validation: none is left to "
            "train on (set validation_rows or validation_output)"
        )
    rows, documents = choose_documents(packed, count=count, seed=config.seed)
    return HeldOut(packed=packed, rows=rows, whole_documents=documents)


def check_same_layout(packed: PackedLayout, other: PackedLayout) -> None:
    """Refuse a layout of a different run in which a model of `packed` would read other ids or other metadata."""
    if other.dataset.tokenizer != packed.dataset.tokenizer:
        raise TrainerError(f"validation_output {other.output} was tokenized with a different tokenizer")
    trained, validated = packed.dataset.info.layout, other.dataset.info.layout
    for key in ("position", "template", "num_meta_tokens"):
        if trained.get(key) != validated.get(key):
            raise TrainerError(
                f"validation_output {other.output}: layout {other.layout!r} has {key} {validated.get(key)!r}, but "
                f"{trained.get(key)!r} in {packed.output}"
            )
    columns = template_of(trained["template"]).columns if trained.get("template") else ()
    annotators = TrainedAnnotators(training=str(packed.output), output=packed.output, record=packed.annotators)
    check_annotations(columns, trained=annotators, other=other.output)
