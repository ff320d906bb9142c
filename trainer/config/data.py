"""Settings of what a run trains on: sources, the weights of their rows, phases, curriculum, goldfish loss."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from colophon.shards.stores.places import RunPlace, run_place
from colophon.trainer.config.base import Settings


class RowWeightsConfig(Settings):
    """How often each row of a source is drawn: a row of weight w is drawn w / (mean weight) times an epoch, rounded up
    or down. A row's weight is the mean over its text tokens of their documents' weights.

    Example:

        [[train.weighted.sources]]
        layout = "prepend-url"
        row_weights = { column = "topic", table = { "Games" = 0.5, "Science" = 2.0 } }
    """

    column: str
    """An annotation column: labels with `table`; without it numbers, which are the weights."""
    table: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(None, min_length=1)
    """Weights by label: a domain-weight table (DoGE, arXiv 2310.15393)."""
    default: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of documents whose label is not in the table, or that have no value."""


class CurriculumConfig(Settings):
    """Rows ordered by a score (arXiv 2310.15389): the first epochs go through buckets of equally many rows, each
    shuffled.

    Example:

        [train.easy-first]
        curriculum = { column = "quality_score", buckets = 20 }
    """

    column: str
    """An annotation column of numbers. A row's score is the mean over its text tokens of their documents' numbers;
    rows without a score are last."""
    order: Literal["ascending", "descending"] = "ascending"
    """`ascending` begins with the lowest score."""
    buckets: int = Field(10, ge=1)
    """Number of buckets: 1 is plain shuffling, as many as rows a full sort."""
    epochs: int = Field(1, ge=1)
    """Epochs of a source that are ordered; later ones are shuffled as a whole."""


class SourceConfig(Settings):
    """One of several packed layouts that a run mixes.

    Example:

        [[train.mixed.sources]]
        layout = "prepend-url"
        weight = 9

        [[train.mixed.sources]]
        layout = "plain"
        weight = 1
    """

    layout: str
    """Name of a packed layout."""
    output: str | None = None
    """Output of the run that packed the layout: a directory, or a URL of an object store. None: of this run."""
    weight: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Share of the samples, on any scale, of all sources or of none. None: the number of its rows, so that the epochs
    of all sources end together."""
    row_weights: RowWeightsConfig | None = None
    """How often its rows are drawn. None: each once an epoch."""
    curriculum: CurriculumConfig | None = None
    """None: that of the run or phase, if it has one."""

    def output_directory(self, own: RunPlace) -> RunPlace:
        """Output of the run that packed the layout; `own` is that of the run that is trained."""
        return own if self.output is None else run_place(self.output)


class PhaseConfig(Settings):
    """Different data from a step on; optimizer and schedule continue. MeCo's cooldown (arXiv 2501.01956) is a phase on
    a plain layout.

    Example:

        [[train.cooldown.phases]]
        from_fraction = 0.9
        layout = "plain"
    """

    from_step: int | None = Field(None, ge=2)
    """The first update with this data, counted from 1."""
    from_fraction: float | None = Field(None, gt=0, lt=1)
    """Instead: the share of all steps before the phase, or of all text tokens in a run with `text_tokens`; 0.9 leaves
    the last tenth to it."""
    layout: str | None = None
    """Name of a packed layout of the run."""
    sources: tuple[SourceConfig, ...] = ()
    """Instead of `layout`."""
    curriculum: CurriculumConfig | None = None
    """The curriculum of the phase's sources; that of the run does not apply to phases."""

    @model_validator(mode="after")
    def _check_alternatives(self) -> PhaseConfig:
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
    def mixed_sources(self) -> tuple[SourceConfig, ...]:
        """The sources of the phase; `layout` alone counts as one source."""
        sources = self.sources if self.layout is None else (SourceConfig(layout=self.layout),)
        return with_curriculum(sources, self.curriculum)


class GoldfishConfig(Settings):
    """The goldfish loss (arXiv 2406.10209): one in `k` text labels is masked, chosen by a hash of the `h` labels before
    it, so that the model does not memorise a passage, however often it is repeated. Within one segment only.

    Example:

        [train.tiny]
        goldfish = {}
    """

    k: int = Field(50, ge=2)
    """One text label in this many has loss weight 0: always the same one after the same labels."""
    h: int = Field(50, ge=1)
    """Labels of the segment that decide which one."""


def check_weights(sources: Sequence[SourceConfig]) -> None:
    """Refuse sources of which some have a weight and others have none."""
    if len({source.weight is None for source in sources}) > 1:
        raise ValueError("sources: give all of them a weight, or none")


def check_phase_starts(starts: Sequence[int], *, steps: int) -> None:
    """Refuse phases whose first steps, counted from 1, do not ascend or are after the run's last step."""
    for number, (before, start) in enumerate(pairwise([1, *starts])):
        if start <= before:
            raise ValueError(f"phases.{number} starts at step {start}, after data that starts at step {before}")
    if starts and starts[-1] > steps:
        raise ValueError(f"phases.{len(starts) - 1} starts at step {starts[-1]}, of {steps} steps")


def with_curriculum(sources: Sequence[SourceConfig], curriculum: CurriculumConfig | None) -> tuple[SourceConfig, ...]:
    """The sources, with `curriculum` for those without one of their own."""
    return tuple(source.model_copy(update={"curriculum": source.curriculum or curriculum}) for source in sources)
