"""The ids before a text when a trained model reads it: bos alone, an empty wrapper, metadata, or meta tokens.

Every text is alone in its row, so its first token is bos, as in every segment of the training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.differences import differences
from colophon.shards.common.errors import ShardError
from colophon.shards.layouts import AppendLayout, Layout, MetaTokensLayout, PrependLayout, parse_layout
from colophon.shards.manifest import has_manifest, read_manifest
from colophon.shards.metadata import TextEncoder, document_metadata
from colophon.shards.packing.pack import smallest_row
from colophon.shards.schema import SpecialIds
from colophon.shards.stores.places import RunPlace, run_place
from colophon.trainer.data.annotation_compatibility import TrainedAnnotators
from colophon.trainer.data.description import DataDescription
from colophon.trainer.errors import TrainerError

Condition: TypeAlias = Literal["none", "empty", "true", "shuffled", "meta_tokens"]
CONDITIONS: tuple[Condition, ...] = ("none", "empty", "true", "shuffled", "meta_tokens")

_CONDITIONS_BY_POSITION: dict[str, tuple[Condition, ...]] = {
    "plain": ("none",),
    "prepend": ("true", "empty", "none", "shuffled"),
    # Metadata after a text cannot change the loss of its tokens: `true` is for comparison with other layouts' `true`.
    "append": ("none", "true"),
    "meta_tokens": ("meta_tokens", "empty", "none"),
}
"""The first is the one that a layout is for."""


@dataclass(frozen=True, kw_only=True)
class TrainedLayout:
    """The layout that a model was trained on."""

    name: str
    layout: Layout
    sequence_length: int
    """Inputs of a training row."""
    special: SpecialIds
    annotators: TrainedAnnotators | None = None
    """Those whose columns the template has, as in the training; None for an exported model."""

    @property
    def output(self) -> RunPlace | None:
        """`output.path` of the run that packed it, and may have been rebuilt since; None for an exported model."""
        return None if self.annotators is None else self.annotators.output

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The contexts of the layout's position and `none`, the one that the layout is for first."""
        return _CONDITIONS_BY_POSITION[self.layout.position]

    @property
    def seen_conditions(self) -> frozenset[Condition]:
        """The contexts that rows of the layout have; dropped metadata leaves an empty wrapper, or bos alone."""
        layout = self.layout
        seen: set[Condition] = {self.conditions[0]}
        if isinstance(layout, PrependLayout | MetaTokensLayout):
            if layout.dropout:
                seen.add("empty" if layout.when_dropped == "empty" else "none")
            if layout.segments == "first":  # the other segments of a document have no wrapper
                seen.add("none")
        return frozenset(seen | {"true"} if isinstance(layout, AppendLayout) else seen)

    @property
    def max_text_tokens(self) -> int:
        """Text tokens that fit in a training row after bos and the longest context."""
        return _max_text_tokens(self.layout, self.sequence_length)

    @property
    def reads_metadata(self) -> bool:
        """Whether metadata is before the text."""
        return isinstance(self.layout, PrependLayout)

    @property
    def meta_tokens(self) -> tuple[int, ...]:
        """Ids of the meta tokens; empty in other layouts."""
        number = self.layout.num_meta_tokens if isinstance(self.layout, MetaTokensLayout) else 0
        return self.special.meta[:number]

    def prefix(self, context: Sequence[int] | NumPyArray | None) -> list[int]:
        """Ids before a text whose wrapper holds `context`; None: bos alone, without a wrapper."""
        if context is None:
            return [self.special.bos]
        return [self.special.bos, self.special.boc, *map(int, context), self.special.eoc]

    def metadata(
        self,
        columns: Mapping[str, pa.Array],
        *,
        num_documents: int,
        encoder: TextEncoder,
        report: Callable[[str], None] = lambda line: None,
    ) -> list[NumPyArray | None]:
        """Each document's metadata ids as packing writes them, none dropped; None for a document without a wrapper.

        Args:
            columns: the annotation columns that the layout's template names, each [num_documents].
            num_documents: length of each column.
            encoder: the tokenizer that the layout was packed with.
            report: receives a line if metadata is cut to the layout's budget.
        """
        if not isinstance(self.layout, PrependLayout | AppendLayout):
            raise TypeError(f"layout {self.name!r} has no template")
        found = document_metadata(
            self.layout.model_copy(update={"dropout": 0.0}),
            ids=pa.nulls(num_documents, pa.string()),
            columns=columns,
            tokenizer=encoder,
            seed=0,
        )
        self.report_cut(found.counts["metadata_tokens_cut"], report)
        spans = zip(found.wrapped, found.starts, found.lengths, strict=True)
        return [found.ids[start : start + length] if wrapped else None for wrapped, start, length in spans]

    def report_cut(self, num_cut: int, report: Callable[[str], None]) -> None:
        """Report metadata ids beyond the layout's budget, if there are any."""
        if num_cut:
            budget = f"max_metadata_tokens of {self.name!r}"
            report(f"the last {num_cut} tokens of the metadata are cut, as in packing: {budget}")

    def prefixes(self, condition: Condition, metadata: Sequence[NumPyArray | None], *, seed: int) -> list[list[int]]:
        """Ids before each document's text under a condition.

        Args:
            condition: one of `conditions`.
            metadata: each document's, see `metadata`; conditions without metadata use only its length.
            seed: of the shuffling, which gives each document the metadata of a different one.
        """
        if condition == "shuffled":
            return [self.prefix(metadata[other]) for other in derangement(len(metadata), seed=seed)]
        if condition == "true" and self.reads_metadata:
            return [self.prefix(context) for context in metadata]
        contexts: dict[Condition, Sequence[int] | None] = {"empty": (), "meta_tokens": self.meta_tokens}
        return [self.prefix(contexts.get(condition))] * len(metadata)


def trained_layouts(data: DataDescription, *, training: str, output: RunPlace) -> dict[str, TrainedLayout]:
    """The layouts in a checkpoint by name, that of validation first; of two with one name, the first.

    Args:
        data: the description in the checkpoint.
        training: the name of the training.
        output: the `output.path` of the run that was trained on.
    """
    found: dict[str, TrainedLayout] = {}
    for described in data.layouts:
        packed_by = output if described.output is None else run_place(described.output)
        annotators = TrainedAnnotators(training=training, output=packed_by, record=described.annotators)
        layout = TrainedLayout(
            name=described.name,
            layout=described.layout,
            sequence_length=described.sequence_length,
            special=data.tokenizer.special,
            annotators=annotators,
        )
        found.setdefault(described.name, layout)
    return found


def layout_changes(trained: TrainedLayout) -> list[str]:
    """The differences between a layout in training and today's of that name, such as `template: '{url}' -> '{topic}'`.

    Empty where the run's manifest is missing, or does not describe the layout.
    """
    if trained.output is None or not has_manifest(trained.output):
        return []
    packed = read_manifest(trained.output).layouts.get(trained.name)
    now = None if packed is None else packed.settings.get("layout")
    return [] if now is None else differences(trained.layout.model_dump(mode="json"), now)


def max_text_tokens_by_layout(output: RunPlace) -> dict[str, int]:
    """`TrainedLayout.max_text_tokens` of each layout that the run under `output` has packed, by name.

    Raises:
        ShardError: the manifest is missing or damaged.
    """
    try:
        return {
            name: _max_text_tokens(
                parse_layout(packed.settings["layout"], where=output), packed.settings["pack"]["sequence_length"]
            )
            for name, packed in read_manifest(output).layouts.items()
        }
    except KeyError as error:
        raise ShardError(f"{output}: its manifest does not describe its layouts: no {error}") from None


def _max_text_tokens(layout: Layout, sequence_length: int) -> int:
    return sequence_length + 1 - (smallest_row(layout) - 2)  # the smallest row has one text token and eos


def derangement(size: int, *, seed: int) -> NumPyArray:
    """int64 [size]: a random permutation that is one cycle, so no element keeps its place.

    Raises:
        ValueError: `size` is below 2.
    """
    if size < 2:
        raise ValueError(f"a derangement needs at least 2 elements, got {size}")
    order = np.random.default_rng(seed).permutation(size)
    moved = np.empty_like(order)
    moved[order] = np.roll(order, 1)  # order [2, 0, 1] -> the cycle 2 -> 1 -> 0 -> 2: moved [2, 0, 1]
    return moved


def condition_names(names: Sequence[str]) -> tuple[Condition, ...]:
    """The conditions with these names, in the order of `CONDITIONS`.

    Raises:
        TrainerError: a name is unknown; the choices are listed.
    """
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown:
        raise TrainerError(f"unknown condition {unknown[0]!r}; available: {', '.join(CONDITIONS)}")
    return tuple(condition for condition in CONDITIONS if condition in names)
