"""`colophon evaluate`: what the same texts cost each model with and without their metadata, and how sure that is.

Texts are the first tokens of documents, the same ids for every layout, each alone in its row behind bos and its
context. Only text counts. Differences between conditions and between models are paired over documents, and come with
bootstrap intervals: other documents would have given other numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.metadata import Encoder
from colophon.trainer.data.annotation_compatibility import check_annotations, different_annotators
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.bootstrap import RatioDraws
from colophon.trainer.evaluation.document_crops import DocumentCrops, RunDocuments
from colophon.trainer.evaluation.groups import Group, by_value, groups_of
from colophon.trainer.inference.contexts import Condition, TrainedLayout, text_rooms
from colophon.trainer.inference.text_loss import text_losses
from colophon.trainer.inference.trained_model import TrainedModel

DEFAULT_CROP = 512
MIN_DOCUMENTS = 5
"""Groups of fewer are counted and not measured: their intervals tell nothing."""
_OF_METADATA: tuple[Condition, ...] = ("true", "shuffled")
_PER = {"nats_per_token": 0, "bits_per_byte": 1}


class Codec(Encoder, Protocol):
    """What evaluation needs of the recipe's tokenizer."""

    def decode(self, ids: NumPyArray) -> str:
        """Text of ids."""
        ...


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is measured."""

    documents: int = 500
    crop: int | None = None
    """First tokens of a document that are scored. None: 512, or as many as the rows of every layout that the models'
    runs have packed hold beside its longest context: the same whichever models are named."""
    conditions: tuple[Condition, ...] | None = None
    """None: all that a model's layout has."""
    by: tuple[str, ...] = ()
    """Annotation columns whose values are looked at one by one."""
    seed: int = 0
    """Of the choice of documents, of the shuffling and of the resamples."""
    num_resamples: int = 1000


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A model that is evaluated, and the layout it was trained on."""

    trained: TrainedModel
    layout: TrainedLayout


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the texts cost one model under one condition."""

    model: str
    condition: Condition
    nats: NumPyArray
    """float64 [num_documents]."""
    documents_with_own_metadata: int | None
    """`shuffled`: how many documents another one's metadata says the same of."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that was measured."""

    contestants: Sequence[Contestant]
    documents: DocumentCrops
    measured: Sequence[Measured]
    settings: EvaluationSettings
    output: Path
    """Of the run whose documents they are."""
    crop: int
    notes: Sequence[str] = ()
    """Of columns of `by` that do not mean what they did in training."""

    def as_dict(self, model: str) -> dict[str, Any]:
        """What `training/<model>/evaluation.json` holds; docs/after-training.md tells its keys."""
        contestant = next(c for c in self.contestants if c.trained.name == model)
        everything = self._ratios(np.arange(len(self.documents)))
        own = [i for i, one in enumerate(self.measured) if one.model == model]
        return {
            "model": model,
            "step": contestant.trained.state.step,
            "layout": contestant.layout.name,
            "documents": {
                "output": str(self.output),
                "documents": len(self.documents),
                "crop": self.crop,
                "tokens": int(self.documents.num_tokens.sum()),
                "bytes": int(self.documents.num_bytes.sum()),
                "seed": self.settings.seed,
            },
            "resamples": self.settings.num_resamples,
            "conditions": {self.measured[i].condition: self._condition(everything, i) for i in own},
            "differences": [
                self._difference(everything, i, other)
                for i in own
                for other in range(len(self.measured))
                if other < i or other not in own
            ],
            "by": {column: self._by(column, own) for column in self.settings.by},
            "notes": list(self.notes),
        }

    def _by(self, column: str, own: Sequence[int]) -> dict[str, Any]:
        values = self.documents.columns[column]
        groups, left_out = groups_of(values, min_documents=MIN_DOCUMENTS)
        return {
            "groups": [self._group(group, own) for group in by_value(groups, values)],
            "small_groups": sum(len(group.rows) < MIN_DOCUMENTS for group in left_out),
            "left_out_documents": sum(len(group.rows) for group in left_out),
        }

    def _group(self, group: Group, own: Sequence[int]) -> dict[str, Any]:
        ratios = self._ratios(group.rows)
        return {
            "value": group.value,
            "documents": len(group.rows),
            "tokens": int(self.documents.num_tokens[group.rows].sum()),
            "conditions": {self.measured[i].condition: _estimates(ratios, i) for i in own},
            "differences": [self._difference(ratios, i, other) for i in own for other in own if other < i],
        }

    def _ratios(self, rows: NumPyArray) -> RatioDraws:
        """Of nats over tokens and of bits over bytes, in the documents `rows`."""
        nats = np.stack([one.nats[rows] for one in self.measured])
        # Bits are nats / ln 2; dividing the bytes' side keeps one amount for both ratios.
        sizes = np.stack([self.documents.num_tokens[rows], self.documents.num_bytes[rows] * math.log(2)])
        settings = self.settings
        return RatioDraws(nats, sizes, seed=settings.seed, num_resamples=settings.num_resamples)

    def _condition(self, ratios: RatioDraws, i: int) -> dict[str, Any]:
        same = self.measured[i].documents_with_own_metadata
        return {**_estimates(ratios, i), **({} if same is None else {"documents_with_own_metadata": same})}

    def _difference(self, ratios: RatioDraws, i: int, other: int) -> dict[str, Any]:
        one, base = self.measured[i], self.measured[other]
        return {
            "condition": one.condition,
            "minus": {"model": base.model, "condition": base.condition},
            **{name: asdict(ratios.difference(i, other, size)) for name, size in _PER.items()},
        }


def _estimates(ratios: RatioDraws, i: int) -> dict[str, Any]:
    return {name: asdict(ratios.ratio(i, size)) for name, size in _PER.items()}


def evaluate(
    contestants: Sequence[Contestant],
    *,
    documents: RunDocuments,
    tokenizer: Codec,
    settings: EvaluationSettings,
    report: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Score the same texts with every model under every condition.

    Args:
        contestants: the models, of one tokenizer.
        documents: where texts and their metadata come from.
        tokenizer: the recipe's, which made the documents' ids.
        settings: what to measure.
        report: gets a line on the crop where it is left to us, one on each column of `by` that does not mean what it
            did in training, and one before each condition.

    Raises:
        ShardError: a file that does not fit its record.
        TrainerError: another tokenizer, a column or condition that is not there, metadata of other annotators than the
            training's, or a crop that does not fit the rows that a model was trained on.
    """
    for contestant in contestants:
        documents.check_tokenizer(contestant.trained.tokenizer)
    wanted = _conditions(contestants, settings.conditions)
    _check_metadata(contestants, wanted, documents.output)
    crop = _crop(contestants, settings.crop, report=report)
    notes = _notes(contestants, settings.by, documents.output)
    for note in notes:
        report(note)
    fields = [name for c in contestants if c.layout.reads_metadata for name in c.layout.layout.fields]
    crops = documents.crops(
        count=settings.documents,
        crop=crop,
        seed=settings.seed,
        columns=list(dict.fromkeys([*settings.by, *fields])),
        tokenizer=contestants[0].trained.tokenizer,
        decode=tokenizer.decode,
    )
    if len(crops) < 2 and any("shuffled" in conditions for conditions in wanted):
        raise TrainerError(
            f"one document of {documents.output} is drawn, and shuffled metadata needs two: --documents 2 or more, or "
            "--conditions without shuffled"
        )
    measured = []
    for contestant, conditions in zip(contestants, wanted, strict=True):
        for condition in conditions:
            report(f"{contestant.trained.name}: {len(crops)} documents, {condition}")
            measured.append(_measure(contestant, condition, crops, encoder=tokenizer, seed=settings.seed))
    return Evaluation(
        contestants=contestants,
        documents=crops,
        measured=measured,
        settings=settings,
        output=documents.output,
        crop=crop,
        notes=notes,
    )


def _crop(contestants: Sequence[Contestant], asked: int | None, *, report: Callable[[str], None]) -> int:
    """Text tokens that every model reads within the length it was trained on."""
    shortest = min(contestants, key=lambda contestant: contestant.layout.text_room).layout
    if asked is None:
        return _default_crop(contestants, report=report)
    if asked > shortest.text_room:
        raise TrainerError(
            f"crop {asked}: rows of {shortest.name!r} have {shortest.sequence_length} tokens, "
            f"at most {shortest.text_room} beside the longest context"
        )
    return asked


def _default_crop(contestants: Sequence[Contestant], *, report: Callable[[str], None]) -> int:
    """The same whichever models of a run are named: their layouts are not all that its rows may have to hold."""
    rooms = [(c.layout.text_room, c.layout.name) for c in contestants]
    for output in _outputs(contestants):
        rooms += [(room, name) for name, room in text_rooms(output).items()]
    room, name = min(rooms)
    if room >= DEFAULT_CROP:
        return DEFAULT_CROP
    report(
        f"first {room} tokens of each document (--crop): as many as rows of every packed layout hold beside the "
        f"longest context, here of {name}"
    )
    return room


def _notes(contestants: Sequence[Contestant], by: Sequence[str], output: Path) -> list[str]:
    return [
        f"{line}: its groups are not those of the training"
        for trained in _outputs(contestants)
        for line in different_annotators(by, trained=trained, other=output)
    ]


def _outputs(contestants: Sequence[Contestant]) -> list[Path]:
    """Of the runs that packed the models' layouts."""
    found = dict.fromkeys(contestant.layout.output for contestant in contestants)
    return [output for output in found if output is not None]


def _check_metadata(contestants: Sequence[Contestant], wanted: Sequence[tuple[Condition, ...]], output: Path) -> None:
    """Refuse metadata that says something else than what a model was trained with: `true` would not be true."""
    for contestant, conditions in zip(contestants, wanted, strict=True):
        layout = contestant.layout
        if layout.output is None or not layout.reads_metadata or not {*conditions} & {*_OF_METADATA}:
            continue
        others = ",".join(condition for condition in layout.conditions if condition not in _OF_METADATA)
        check_annotations(
            layout.layout.fields, trained=layout.output, other=output, instead=f"; or --conditions {others}"
        )


def _conditions(contestants: Sequence[Contestant], asked: tuple[Condition, ...] | None) -> list[tuple[Condition, ...]]:
    """What is measured of each model, in a fixed order."""
    found = []
    for contestant in contestants:
        known = contestant.layout.conditions
        conditions = tuple(c for c in known if asked is None or c in asked)
        if not conditions:
            raise TrainerError(
                f"{contestant.trained.name}: layout {contestant.layout.name!r} has none of the conditions "
                f"{', '.join(asked or ())}; it has {', '.join(known)}"
            )
        found.append(conditions)
    return found


def _measure(
    contestant: Contestant, condition: Condition, crops: DocumentCrops, *, encoder: Encoder, seed: int
) -> Measured:
    layout = contestant.layout
    metadata = _metadata(layout, crops.columns, num_documents=len(crops), encoder=encoder)
    prefixes = layout.prefixes(condition, metadata, seed=seed)
    same = None
    if condition == "shuffled":
        same = sum(map(list.__eq__, prefixes, layout.prefixes("true", metadata, seed=seed)))
    return Measured(
        model=contestant.trained.name,
        condition=condition,
        nats=text_losses(contestant.trained, prefixes, crops.text),
        documents_with_own_metadata=same,
    )


def _metadata(
    layout: TrainedLayout, columns: Mapping[str, pa.Array], *, num_documents: int, encoder: Encoder
) -> Sequence[NumPyArray | None]:
    if not layout.reads_metadata:
        return [None] * num_documents
    return layout.metadata(columns, num_documents=num_documents, encoder=encoder)
