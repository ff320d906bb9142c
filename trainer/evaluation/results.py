"""Results of an evaluation: ratios, paired differences and groups, as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.evaluation.bootstrap import RatioDraws
from colophon.trainer.evaluation.document_crops import DocumentCrops
from colophon.trainer.evaluation.groups import Group, by_value, groups_of
from colophon.trainer.evaluation.settings import EvaluatedModel, EvaluationSettings
from colophon.trainer.inference.contexts import Condition

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
    output: Path
    """`output.path` of the run that the documents come from."""
    crop: int
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
                "documents": len(self.documents),
                "crop": self.crop,
                "tokens": int(self.documents.num_tokens.sum()),
                "bytes": int(self.documents.num_bytes.sum()),
                "seed": self.settings.seed,
            },
            "resamples": self.settings.num_resamples,
            "conditions": {self.measurements[i].condition: self._condition(ratios, i) for i in own},
            "differences": [
                self._difference(ratios, i, other)
                for i in own
                for other in range(len(self.measurements))
                if other < i or other not in own
            ],
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
            "differences": [self._difference(ratios, i, other) for i in own for other in own if other < i],
        }

    def _ratios(self, rows: NumPyArray) -> RatioDraws:
        """Nats per token and bits per byte of every measurement, over the documents `rows`."""
        nats = np.stack([one.nats[rows] for one in self.measurements])
        # Bits are nats / ln 2; multiplying the bytes by ln 2 keeps one amount for both ratios.
        sizes = np.stack([self.documents.num_tokens[rows], self.documents.num_bytes[rows] * math.log(2)])
        settings = self.settings
        return RatioDraws(nats, sizes, seed=settings.seed, num_resamples=settings.num_resamples)

    def _condition(self, ratios: RatioDraws, i: int) -> dict[str, Any]:
        same = self.measurements[i].documents_with_own_metadata
        return {**_estimates(ratios, i), **({} if same is None else {"documents_with_own_metadata": same})}

    def _difference(self, ratios: RatioDraws, i: int, other: int) -> dict[str, Any]:
        one, base = self.measurements[i], self.measurements[other]
        return {
            "condition": one.condition,
            "against": {"model": base.model, "condition": base.condition},
            **{name: asdict(ratios.difference(i, other, size)) for name, size in _UNITS.items()},
        }


def _estimates(ratios: RatioDraws, i: int) -> dict[str, Any]:
    return {name: asdict(ratios.ratio(i, size)) for name, size in _UNITS.items()}
