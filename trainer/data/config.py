"""Settings of what a run trains on: sources, the weights of their rows, phases and curriculum. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RowWeightsConfig(_Frozen):
    """How often the rows of a source come: a row of weight w comes w / (mean weight) times an epoch, rounded up or
    down. Its weight is the mean over its text tokens of their documents' weights."""

    column: str
    """An annotation column: of labels with `table`, of numbers (the weights themselves) without."""
    table: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(None, min_length=1)
    """Weights by label: a domain-weight table (DoGE, arXiv 2310.15393)."""
    default: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Of documents whose label is not in the table, or that have no value."""


class CurriculumConfig(_Frozen):
    """Rows by a score (arXiv 2310.15389): the first epochs go through buckets of equally many rows, each shuffled."""

    column: str
    """An annotation column of numbers. A row's score is the mean over its text tokens of their documents' numbers;
    rows without one come last."""
    order: Literal["ascending", "descending"] = "ascending"
    buckets: int = Field(10, ge=1)
    epochs: int = Field(1, ge=1)
    """Epochs of a source that are ordered; those after them are shuffled whole."""


class SourceConfig(_Frozen):
    """One packed layout among several that a run trains on."""

    layout: str
    output: str | None = None
    """Output directory of the run that packed it. None: of this run."""
    weight: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Of its samples among those of all sources, to any scale. None, for all sources: their numbers of rows."""
    row_weights: RowWeightsConfig | None = None
    curriculum: CurriculumConfig | None = None
    """None: that of the run or phase, if it has one."""

    def packed_in(self, own: Path) -> Path:
        """Output directory of the run that packed it; `own` is that of the run it is trained in."""
        return own if self.output is None else Path(self.output)


class PhaseConfig(_Frozen):
    """Other data from a step on; optimizer and schedule go on. MeCo's cooldown (arXiv 2501.01956) is a phase on a
    plain layout."""

    from_step: int | None = Field(None, ge=2)
    """The first update that is made with this data, counted from 1."""
    from_fraction: float | None = Field(None, gt=0, lt=1)
    """Instead: the share of all steps that go before; 0.9 leaves the last tenth to the phase."""
    layout: str | None = None
    sources: tuple[SourceConfig, ...] = ()
    """Instead of `layout`."""
    curriculum: CurriculumConfig | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> PhaseConfig:
        if (self.from_step is None) == (self.from_fraction is None):
            raise ValueError("a phase has either from_step or from_fraction")
        if (self.layout is None) == (not self.sources):
            raise ValueError("a phase has either layout or sources")
        check_weights(self.sources)
        return self

    def first_step(self, steps: int) -> int:
        """The phase's first update in a run of `steps` steps, counted from 1."""
        if self.from_fraction is not None:
            return round(self.from_fraction * steps) + 1
        return self.from_step or 1

    @property
    def mixed(self) -> tuple[SourceConfig, ...]:
        """What the phase trains on; its one layout counts as a source."""
        sources = self.sources if self.layout is None else (SourceConfig(layout=self.layout),)
        return with_curriculum(sources, self.curriculum)


def check_weights(sources: Sequence[SourceConfig]) -> None:
    """Refuse sources of which some have a weight and others have none."""
    if len({source.weight is None for source in sources}) > 1:
        raise ValueError("sources: give all of them a weight, or none")


def with_curriculum(sources: Sequence[SourceConfig], curriculum: CurriculumConfig | None) -> tuple[SourceConfig, ...]:
    """The sources, with `curriculum` for those without one of their own."""
    return tuple(source.model_copy(update={"curriculum": source.curriculum or curriculum}) for source in sources)
