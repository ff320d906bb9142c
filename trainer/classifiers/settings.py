"""The parameters of a `pooled` classifier's training."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PooledSettings(BaseModel):
    """Parameters of the model and of its training. `benchmarks/classifiers` has what they were chosen by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(default=64, ge=64, le=4096, multiple_of=64)
    """Columns of a row: 64 are one cache line."""
    ngrams: int = Field(default=2, ge=1, le=5)
    """Longest n-gram of tokens that is a feature. Each length costs a row a token."""
    bucket_bits: int = Field(default=18, ge=4, le=28)
    """Hashed n-grams share 2^bucket_bits rows; for millions of documents 20."""
    fold_case: bool = True
    """Tokens that differ in case and in white space around them are one feature; tokens of white space are none."""
    hidden: int = Field(default=64, ge=0, le=4096)
    """Units of each head's hidden layer, beside a linear part; 0: the linear part alone."""
    epochs: int = Field(default=5, ge=1)
    min_steps: int = Field(default=1500, ge=1)
    """Small training sets are passed over more often, until there are this many steps."""
    batch_size: int = Field(default=32, ge=1)
    crop: int = Field(default=256, ge=1)
    """Tokens of a text that a step reads: a different part of a longer text in each epoch."""
    word_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of n-grams that a step leaves out."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the pooled vector and of the hidden layer that a step leaves out."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    lr: float = Field(default=0.05, gt=0)
    """Learning rate of the rows (Adagrad) at the start; it falls linearly to zero."""
    head_lr: float = Field(default=0.01, gt=0)
    """Learning rate of the heads (AdamW) at the start; it falls linearly to zero."""
    seed: int = Field(default=0, ge=0, lt=2**31)
