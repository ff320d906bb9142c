"""The description of the data of a training, which every checkpoint has.

A run can be rebuilt after a training: with other templates, other edges of bins, another vocabulary, other documents.
Whatever uses a model reads this description and not the run's recipe.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from colophon.shards.layouts import Layout
from colophon.shards.schema import TokenizerInfo
from colophon.trainer.data.annotation_compatibility import AnnotatorRecord


class LayoutDescription(BaseModel):
    """A layout as it was packed when a model was trained on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    output: str | None
    """`output.path` of the run that packed it; None: the run of the training."""
    layout: Layout
    sequence_length: int
    pack: dict[str, Any]
    """The settings of `[pack]`."""
    annotators: AnnotatorRecord

    @property
    def key(self) -> str:
        """The name, and the output of a different run."""
        return self.name if self.output is None else f"{self.name} of {self.output}"

    def meaning(self) -> dict[str, Any]:
        """JSON values that must be the same when a training is resumed."""
        return {
            **self.layout.model_dump(mode="json"),
            "sequence_length": self.sequence_length,
            "annotators": self.annotators.meaning(),
        }


class HeldOutDocuments(BaseModel):
    """Documents of one partition that a training never read, and that are complete in its validation rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: str
    tokens_sha256: str | None
    """Digest of the partition's token file; None where the run's manifest lists no token files."""
    documents: list[int]
    """Rows in the partition, ascending."""


class DataDescription(BaseModel):
    """The layouts, the tokenizer and the held-out documents of a training up to one of its checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizer: TokenizerInfo
    layouts: list[LayoutDescription]
    """The layout of validation first; those of a phase that has not begun are missing."""
    held_out: list[HeldOutDocuments]
    """Empty where `validation_output` names a different run."""
