"""The result of a study of attention, as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from colophon.trainer.attention_maps.bins import BinReport
from colophon.trainer.evaluation.bootstrap import Estimate


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """Attention on one part of a row."""

    part: str
    tokens: float
    """Mean number of its tokens in a document."""
    uniform: float
    """Its mass if each text token attended evenly to all that it sees."""
    mass: Estimate
    """Its mass over all layers and heads."""
    by_layer: list[Estimate]
    by_head: list[list[float]]
    """[num_layers][num_heads]"""


@dataclass(frozen=True, kw_only=True)
class AttentionReport:
    """The content of `training/<name>/attention.json`."""

    name: str
    step: int
    layout: str
    documents: int
    excluded: dict[str, int]
    """Documents that were drawn and not measured, by reason."""
    crop: int
    seed: int
    parts: list[PartReport]
    """Their masses sum to 1."""
    bins: BinReport | None
    """For meta tokens and a column: whether documents in the same bin have similar attention vectors."""

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON; the keys are the fields of the classes."""
        return asdict(self)
