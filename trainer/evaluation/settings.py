"""Settings of an evaluation, and the models that it compares."""

from __future__ import annotations

from dataclasses import dataclass

from colophon.trainer.evaluation.bootstrap import NUM_RESAMPLES
from colophon.trainer.inference.contexts import Condition, TrainedLayout
from colophon.trainer.inference.trained_model import TrainedModel

DEFAULT_CROP = 512


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The documents, conditions and groups to measure."""

    documents: int = 500
    crop: int | None = None
    """First tokens of each document that are scored. None: 512, or fewer if a layout that one of the models' runs has
    packed has less room beside its longest context: the same for any choice of models."""
    conditions: tuple[Condition, ...] | None = None
    """None: all conditions of a model's layout."""
    by: tuple[str, ...] = ()
    """Annotation columns whose values are also measured one by one."""
    seed: int = 0
    """Seed of the choice of documents, the shuffling and the resamples."""
    num_resamples: int = NUM_RESAMPLES


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A trained model, with the layout that it was validated on."""

    trained: TrainedModel

    @property
    def layout(self) -> TrainedLayout:
        """The layout, as in the model's checkpoint."""
        return self.trained.layout

    @property
    def seen_conditions(self) -> frozenset[Condition]:
        """The contexts that it has read in training, in any of its layouts."""
        return frozenset[Condition]().union(*(one.seen_conditions for one in self.trained.layouts.values()))

    @property
    def name(self) -> str:
        """The training run's name."""
        return self.trained.name
