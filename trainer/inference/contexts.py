"""What stands before a text when a trained model reads it: nothing, an empty wrapper, metadata, or meta tokens.

Every text is alone in its row, so its first token is bos, as in every segment that the model was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError
from colophon.shards.layouts import AppendLayout, Layout, MetaTokensLayout, PrependLayout
from colophon.shards.manifest import read_manifest
from colophon.shards.metadata import Encoder, document_metadata
from colophon.shards.packing import smallest_row
from colophon.shards.reader import PackedFile
from colophon.shards.schema import SpecialIds
from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import TrainerError

Condition: TypeAlias = Literal["none", "empty", "true", "shuffled", "meta_tokens"]
CONDITIONS: tuple[Condition, ...] = ("none", "empty", "true", "shuffled", "meta_tokens")

_OF_POSITION: dict[str, tuple[Condition, ...]] = {
    "plain": ("none",),
    "prepend": ("none", "empty", "true", "shuffled"),
    # Metadata behind a text cannot change what its tokens cost: `true` is here to stand beside other layouts' `true`.
    "append": ("none", "true"),
    "meta_tokens": ("none", "empty", "meta_tokens"),
}


@dataclass(frozen=True, kw_only=True)
class TrainedLayout:
    """The layout that a model was trained on."""

    name: str
    layout: Layout
    sequence_length: int
    """Inputs of the rows that it was trained on."""
    special: SpecialIds
    output: Path | None = None
    """Of the run that packed it; None where only the model is there."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What may stand before a text: what the model has learnt to read, and nothing at all."""
        return _OF_POSITION[self.layout.position]

    @property
    def text_room(self) -> int:
        """Text tokens that a training row holds beside bos and the longest context."""
        return _text_room(self.layout, self.sequence_length)

    @property
    def reads_metadata(self) -> bool:
        """Whether metadata stands before the text."""
        return isinstance(self.layout, PrependLayout)

    @property
    def meta_tokens(self) -> tuple[int, ...]:
        """Ids of the meta tokens; none in another layout."""
        number = self.layout.num_meta_tokens if isinstance(self.layout, MetaTokensLayout) else 0
        return self.special.meta[:number]

    def prefix(self, context: Sequence[int] | NumPyArray | None) -> list[int]:
        """Ids before a text whose wrapper holds `context`; None: no wrapper."""
        if context is None:
            return [self.special.bos]
        return [self.special.bos, self.special.boc, *map(int, context), self.special.eoc]

    def metadata(
        self,
        columns: Mapping[str, pa.Array],
        *,
        num_documents: int,
        encoder: Encoder,
        report: Callable[[str], None] = lambda line: None,
    ) -> list[NumPyArray | None]:
        """Each document's metadata ids as packing makes them, none dropped; None where it has no wrapper.

        Args:
            columns: the annotation columns that the layout names, each [num_documents].
            num_documents: how many there are.
            encoder: the tokenizer that the layout was packed with.
            report: gets a line where metadata is cut to the layout's budget.
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
        self.tell_cut(found.counts["metadata_tokens_cut"], report)
        spans = zip(found.wrapped, found.starts, found.lengths, strict=True)
        return [found.ids[start : start + length] if wrapped else None for wrapped, start, length in spans]

    def tell_cut(self, num_cut: int, report: Callable[[str], None]) -> None:
        """Tell of metadata ids that are beyond the layout's budget, if there are any."""
        if num_cut:
            report(f"the metadata loses its last {num_cut} tokens, as in packing: max_metadata_tokens of {self.name!r}")

    def prefixes(self, condition: Condition, metadata: Sequence[NumPyArray | None], *, seed: int) -> list[list[int]]:
        """Ids before each document's text under a condition.

        Args:
            condition: one of `conditions`.
            metadata: of each document, see `metadata`; only its length matters to conditions without metadata.
            seed: of the shuffling, which gives every document another one's metadata.
        """
        if condition == "shuffled":
            return [self.prefix(metadata[other]) for other in derangement(len(metadata), seed=seed)]
        if condition == "true" and self.reads_metadata:
            return [self.prefix(context) for context in metadata]
        contexts: dict[Condition, Sequence[int] | None] = {"empty": (), "meta_tokens": self.meta_tokens}
        return [self.prefix(contexts.get(condition))] * len(metadata)


def trained_layout(output: Path, name: str) -> TrainedLayout:
    """The layout `name` of the run under `output`, as its packed files describe it.

    Raises:
        ShardError: there is no such layout, or no file of it.
    """
    paths = read_manifest(output).packed_files(output, name)
    if not paths:
        raise ShardError(f"{output}: layout {name!r} has no rows")
    info = PackedFile(paths[0]).info
    settings = {key: value for key, value in info.layout.items() if key != "name"}
    return TrainedLayout(
        name=name,
        layout=_layout(settings, where=str(paths[0])),
        sequence_length=info.sequence_length,
        special=info.tokenizer.special,
        output=output,
    )


def layout_of(config: TrainConfig, *, output: Path) -> TrainedLayout:
    """The layout that a run of `config` under `output` is validated on; a source may lie in another run's output.

    Raises:
        ShardError: there is no such layout, or no file of it.
    """
    return trained_layout(outputs_by_layout(config, output=output)[config.layout], config.layout)


def outputs_by_layout(config: TrainConfig, *, output: Path) -> dict[str, Path]:
    """Names of all layouts that a run of `config` under `output` trains on, in any phase, and the output of each."""
    sources = [*config.mixed_sources, *(source for phase in config.phases for source in phase.mixed_sources)]
    found: dict[str, Path] = {}
    for source in sources:
        found.setdefault(source.layout, source.output_directory(output))
    return found


def text_rooms(output: Path) -> dict[str, int]:
    """Text tokens that rows hold beside the longest context, of each layout that the run under `output` has packed.

    Raises:
        ShardError: there is no manifest, or it is damaged.
    """
    try:
        return {
            name: _text_room(
                _layout(made.settings["layout"], where=str(output)), made.settings["pack"]["sequence_length"]
            )
            for name, made in read_manifest(output).layouts.items()
        }
    except KeyError as error:
        raise ShardError(f"{output}: its manifest does not describe its layouts: no {error}") from None


def _text_room(layout: Layout, sequence_length: int) -> int:
    return sequence_length + 1 - (smallest_row(layout) - 2)  # less its one text token, and eos


def _layout(settings: Mapping[str, Any], *, where: str) -> Layout:
    try:
        layout: Layout = TypeAdapter(Layout).validate_python(settings)
    except ValidationError as error:
        raise ShardError(f"{where}: damaged layout: {error.errors()[0]['msg']}") from None
    return layout


def derangement(size: int, *, seed: int) -> NumPyArray:
    """int64 [size]: a permutation that leaves nothing in its place, one cycle through all.

    Raises:
        ValueError: fewer than two cannot change places.
    """
    if size < 2:
        raise ValueError(f"{size} cannot change places")
    order = np.random.default_rng(seed).permutation(size)
    moved = np.empty_like(order)
    moved[order] = np.roll(order, 1)
    return moved


def condition_names(names: Sequence[str]) -> tuple[Condition, ...]:
    """The conditions that `names` says.

    Raises:
        TrainerError: one of them is none; the choices are listed.
    """
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown:
        raise TrainerError(f"unknown condition {unknown[0]!r}; available: {', '.join(CONDITIONS)}")
    return tuple(condition for condition in CONDITIONS if condition in names)
