"""Results of an evaluation: ratios, paired differences and groups, as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.stores.places import RunPlace
from colophon.trainer.evaluation.bootstrap import RatioDraws
from colophon.trainer.evaluation.document_crops import DocumentCrops
from colophon.trainer.evaluation.groups import Group, by_value, groups_of
from colophon.trainer.evaluation.metadata_accuracy import MetadataAccuracy
from colophon.trainer.evaluation.settings import EvaluatedModel, EvaluationSettings
from colophon.trainer.inference.contexts import Condition

Origin: TypeAlias = Literal["held_out", "other_run", "trained_on"]
"""Where documents come from: the models' run, of which they read none of these; another run; the models' run, of which
they were trained on most documents."""
Kind: TypeAlias = Literal["models", "context", "control", "other"]
KINDS: tuple[Kind, ...] = ("models", "context", "control", "other")
"""Differences: between the models, each with the context that its layout is for; between that context and none, for one
model; between false and true metadata; all others."""
_RANKS: dict[Condition, int] = {"none": 0, "empty": 1, "true": 2, "meta_tokens": 2, "shuffled": 3}
"""A condition is compared with those of lower rank."""
MIN_DOCUMENTS = 5
"""Smaller groups are counted and not measured: their intervals would mean nothing."""
_UNITS = {"nats_per_token": 0, "bits_per_byte": 1}
"""Rows of the sizes in `Evaluation._ratios`."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Losses of the texts for one model under one condition."""

    model: str
    condition: Condition
    nats: NumPyArray
    """float64 [num_documents]."""
    documents_with_own_metadata: int | None
    """Under `shuffled`: documents that were given metadata equal to their own. None: another condition."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All measurements of an evaluation."""

    models: Sequence[EvaluatedModel]
    documents: DocumentCrops
    measurements: Sequence[Measurement]
    settings: EvaluationSettings
    output: RunPlace
    """`output.path` of the run that the documents come from."""
    origin: Origin
    crop: int
    metadata: Mapping[str, MetadataAccuracy | None] = field(default_factory=dict)
    """By model, for those with metadata after the text."""
    notes: Sequence[str] = ()
    """Lines on columns of `by` whose values mean something else than in training."""

    def as_dict(self, model: str) -> dict[str, Any]:
        """The content of `training/<model>/evaluation.json`; docs/trained-models.md describes its keys."""
        evaluated = next(one for one in self.models if one.name == model)
        ratios = self._ratios(np.arange(len(self.documents)))
        own = [i for i, one in enumerate(self.measurements) if one.model == model]
        return {
            "model": model,
            "step": evaluated.trained.state.step,
            "layout": evaluated.layout.name,
            "documents": {
                "output": str(self.output),
                "origin": self.origin,
                "documents": len(self.documents),
                "crop": self.crop,
                "tokens": int(self.documents.num_tokens.sum()),
                "bytes": int(self.documents.num_bytes.sum()),
                "seed": self.settings.seed,
            },
            "resamples": self.settings.num_resamples,
            "conditions": {self.measurements[i].condition: self._condition(ratios, i) for i in own},
            "differences": self._differences(ratios, own, range(len(self.measurements))),
            "metadata": self._metadata(model),
            "by": {column: self._by(column, own) for column in self.settings.by},
            "notes": list(self.notes),
        }

    def _by(self, column: str, own: Sequence[int]) -> dict[str, Any]:
        values = self.documents.columns[column]
        groups, excluded = groups_of(values, min_documents=MIN_DOCUMENTS)
        return {
            "groups": [self._group(group, own) for group in by_value(groups, values)],
            "small_groups": sum(len(group.rows) < MIN_DOCUMENTS for group in excluded),
            "excluded_documents": sum(len(group.rows) for group in excluded),
        }

    def _group(self, group: Group, own: Sequence[int]) -> dict[str, Any]:
        ratios = self._ratios(group.rows)
        return {
            "value": group.value,
            "documents": len(group.rows),
            "tokens": int(self.documents.num_tokens[group.rows].sum()),
            "conditions": {self.measurements[i].condition: _estimates(ratios, i) for i in own},
            "differences": self._differences(ratios, own, own),
        }

    def _ratios(self, rows: NumPyArray) -> RatioDraws:
        """Nats per token and bits per byte of every measurement, over the documents `rows`."""
        nats = np.stack([one.nats[rows] for one in self.measurements])
        # Bits are nats / ln 2; multiplying the bytes by ln 2 keeps one amount for both ratios.
        sizes = np.stack([self.documents.num_tokens[rows], self.documents.num_bytes[rows] * math.log(2)])
        settings = self.settings
        return RatioDraws(nats, sizes, seed=settings.seed, num_resamples=settings.num_resamples)

    def _metadata(self, model: str) -> dict[str, Any] | None:
        found = self.metadata.get(model)
        return None if found is None else found.as_dict(self.settings)

    def _condition(self, ratios: RatioDraws, i: int) -> dict[str, Any]:
        same = self.measurements[i].documents_with_own_metadata
        seen = {"seen_in_training": self._is_seen(i)}
        return {**_estimates(ratios, i), **seen, **({} if same is None else {"documents_with_own_metadata": same})}

    def _is_seen(self, i: int) -> bool:
        """Whether rows of the training had such a context; false metadata is a context like any other."""
        one = self.measurements[i]
        model = next(model for model in self.models if model.name == one.model)
        return one.condition in model.seen_conditions or (one.condition == "shuffled" and model.layout.reads_metadata)

    def _differences(self, ratios: RatioDraws, own: Sequence[int], others: Sequence[int]) -> list[dict[str, Any]]:
        """Differences of a model's conditions; none from a context that a model has not seen. Controls are last."""
        seen = [i for i in others if self._is_seen(i)]
        pairs = [(i, other) for i in own if i in seen for other in seen if self._is_compared(i, other)]
        found = [self._difference(ratios, i, other) for i, other in pairs]
        return sorted(found, key=lambda difference: KINDS.index(difference["kind"]))

    def _is_compared(self, i: int, other: int) -> bool:
        one, base = self.measurements[i], self.measurements[other]
        return one.model != base.model or _RANKS[one.condition] > _RANKS[base.condition]

    def _kind(self, i: int, other: int) -> Kind:
        one, base = self.measurements[i], self.measurements[other]
        if one.model != base.model:
            return "models" if self._leads(i) and self._leads(other) else "other"
        if one.condition == "shuffled":
            return "control" if base.condition == "true" else "other"
        return "context" if self._leads(i) else "other"

    def _leads(self, i: int) -> bool:
        """Whether a measurement is that of the first condition of its model."""
        return i == next(j for j, one in enumerate(self.measurements) if one.model == self.measurements[i].model)

    def _difference(self, ratios: RatioDraws, i: int, other: int) -> dict[str, Any]:
        one, base = self.measurements[i], self.measurements[other]
        return {
            "kind": self._kind(i, other),
            "condition": one.condition,
            "against": {"model": base.model, "condition": base.condition},
            **{name: asdict(ratios.difference(i, other, size)) for name, size in _UNITS.items()},
        }


def _estimates(ratios: RatioDraws, i: int) -> dict[str, Any]:
    return {name: asdict(ratios.ratio(i, size)) for name, size in _UNITS.items()}
