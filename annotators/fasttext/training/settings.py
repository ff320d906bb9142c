"""The parameters of a fastText training."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIN_THREADS = 19
"""Each thread fills a tenth of the input matrix, rounded down, with random numbers. A matrix of 19 numbers needs 19
threads of one number each; one of 90 or more needs at most 11."""
MIN_NUMBERS = 10
"""Numbers of the input matrix: a tenth of fewer is 0, so that the library would fill none of them."""


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
    """Words that occur less often are dropped."""
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
    """Search for better values of the parameters that were not given, for about this long."""

    @model_validator(mode="after")
    def _char_ngrams(self) -> TrainingSettings:
        if (self.min_chars == 0) != (self.max_chars == 0) or self.min_chars > self.max_chars:
            raise ValueError(
                f"min_chars {self.min_chars}, max_chars {self.max_chars}: must both be 0 or 1 <= min_chars <= max_chars"
            )
        return self

    @property
    def cost(self) -> float:
        """Time of a training run in arbitrary units: features per word times row length times passes."""
        return (self.word_ngrams + 4 * (self.max_chars - self.min_chars + bool(self.max_chars))) * self.dim * self.epoch
