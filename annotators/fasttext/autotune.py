"""Parameters of fastText training, and a search for better ones within a time.

The search is ours because the library's own autotune (0.9.3) can run for ever: `Autotune::startTimer` starts the timer
thread before it sets the flag that this thread reads, and a timer that loses the race ends at once (met in practice).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from colophon.annotators.base import AnnotatorError

MIN_THREADS = 19
"""Each thread fills a tenth of the input matrix, rounded down, with random numbers; what is left over takes up to nine
more where the matrix has fewer than 90 numbers, and one more where it is larger."""
MIN_NUMBERS = 10
"""Of the input matrix: below that a tenth of it is nothing, and all of it stays as the memory was."""

_MAX_SKIPPED = 50


class TrainingSettings(BaseModel):
    """fastText's training parameters. The defaults were chosen by cross-validation inside training sets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    word_ngrams: int = Field(default=2, ge=1, le=10)
    """Longest word n-gram that is a feature."""
    dim: int = Field(default=50, ge=1, le=2000)
    epoch: int = Field(default=10, ge=1)
    lr: float = Field(default=0.5, gt=0)
    """Learning rate at the start; it falls linearly to zero."""
    min_count: int = Field(default=1, ge=1)
    """Words seen less often are left out."""
    min_chars: int = Field(default=0, ge=0)
    """Shortest and longest character n-grams; 0 and 0: none."""
    max_chars: int = Field(default=0, ge=0)
    buckets: int = Field(default=1 << 18, ge=1)
    """Rows that hashed n-grams share; for millions of documents 2,000,000."""
    loss: Literal["ova", "softmax", "hs"] = "ova"
    """`ova` (each label against all others; its probabilities need not sum to 1), `softmax`, or `hs`."""
    threads: int = Field(default=MIN_THREADS, ge=MIN_THREADS)
    seed: int = Field(default=0, ge=0, lt=2**31)
    autotune_seconds: int | None = Field(default=None, ge=1)
    """Look for better values of the parameters that were not given, for about this long."""

    @model_validator(mode="after")
    def _char_ngrams(self) -> TrainingSettings:
        if (self.min_chars == 0) != (self.max_chars == 0) or self.min_chars > self.max_chars:
            raise ValueError(f"character n-grams from {self.min_chars} to {self.max_chars} make no sense")
        return self

    @property
    def _cost(self) -> float:
        """Time of a training run in arbitrary units: features per word times row length times passes."""
        return (self.word_ngrams + 4 * (self.max_chars - self.min_chars + bool(self.max_chars))) * self.dim * self.epoch


def search(
    start: TrainingSettings,
    *,
    score: Callable[[TrainingSettings], float | None],
    report: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> TrainingSettings:
    """The settings with the highest `score`: `start` itself, then random ones until `start.autotune_seconds` are over.

    Candidates depend on the seed alone; how many are tried depends on the machine. One that would run past the end,
    judged by the time of `start`, is skipped; `start` is always tried. `score` is None for a run that failed.

    Raises:
        AnnotatorError: no run succeeded.
    """
    began, end = clock(), clock() + (start.autotune_seconds or 0)
    best, best_score = start, score(start)
    unit = (clock() - began) / start._cost
    report(f"autotune: start {_shown(best_score)}")
    skipped = 0
    for candidate in _candidates(start):
        if skipped == _MAX_SKIPPED or clock() >= end:
            break
        if clock() + unit * candidate._cost > end:
            skipped += 1
            continue
        found = score(candidate)
        report(f"autotune: {_difference(candidate, start)} {_shown(found)}")
        if found is not None and (best_score is None or found > best_score):
            best, best_score = candidate, found
    if best_score is None:
        raise AnnotatorError("autotune: every training run ended in NaN")
    report(f"autotune: best {_shown(best_score)} with {_difference(best, start) or 'the settings of the start'}")
    return best


def _candidates(start: TrainingSettings) -> Iterator[TrainingSettings]:
    """Random settings without end; those that `start` was given explicitly stay."""
    rng = np.random.default_rng(start.seed)
    while True:
        min_chars, max_chars = ((0, 0), (0, 0), (3, 5), (2, 4))[rng.integers(4)]
        drawn: dict[str, Any] = {
            "word_ngrams": int(rng.integers(1, 4)),
            "dim": int(rng.choice([16, 32, 50, 100])),
            "epoch": int(np.exp(rng.uniform(np.log(3), np.log(40)))),
            "lr": round(float(np.exp(rng.uniform(np.log(0.05), np.log(1.5)))), 3),
            "min_count": int(rng.choice([1, 1, 2, 5])),
        }
        if not {"min_chars", "max_chars"} & start.model_fields_set:
            drawn |= {"min_chars": min_chars, "max_chars": max_chars}
        yield start.model_copy(update={name: x for name, x in drawn.items() if name not in start.model_fields_set})


def _difference(settings: TrainingSettings, start: TrainingSettings) -> str:
    before = start.model_dump()
    return ", ".join(f"{name} {value}" for name, value in settings.model_dump().items() if value != before[name])


def _shown(score: float | None) -> str:
    return "ended in NaN" if score is None else f"{score:.4f}"
