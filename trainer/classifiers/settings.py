"""The parameters of a classifier's training."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class HeadSettings(BaseModel):
    """Parameters that all classifiers with heads have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: int = Field(default=64, ge=0, le=4096)
    """Units of each head's hidden layer, beside a linear part; 0: the linear part alone."""
    epochs: int = Field(default=5, ge=1)
    min_steps: int = Field(default=1500, ge=1)
    """Small training sets are passed over more often, until there are this many steps."""
    batch_size: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of a text's vector and of the hidden layer that a step leaves out."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    head_lr: float = Field(default=0.01, gt=0)
    """Learning rate of the heads (AdamW) at the start; it falls linearly to zero."""
    seed: int = Field(default=0, ge=0, lt=2**31)


class PooledSettings(HeadSettings):
    """Parameters of the model and of its training. `benchmarks/classifiers` has what they were chosen by."""

    dim: int = Field(default=64, ge=64, le=4096, multiple_of=64)
    """Columns of a row: 64 are one cache line."""
    ngrams: int = Field(default=2, ge=1, le=5)
    """Longest n-gram of tokens that is a feature. Each length costs a row a token."""
    bucket_bits: int = Field(default=18, ge=4, le=28)
    """Hashed n-grams share 2^bucket_bits rows; for millions of documents 20."""
    fold_case: bool = True
    """Tokens that differ in case and in white space around them are one feature; tokens of white space are none."""
    crop: int = Field(default=256, ge=1)
    """Tokens of a text that a step reads: a different part of a longer text in each epoch."""
    word_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of n-grams that a step leaves out."""
    lr: float = Field(default=0.05, gt=0)
    """Learning rate of the rows (Adagrad) at the start; it falls linearly to zero."""


class EmbeddingSettings(HeadSettings):
    """Parameters of heads on an embedder's vectors. `hidden` and `dropout` are those of FineWeb2-HQ."""

    hidden: int = Field(default=256, ge=0, le=4096)
    """Units of each head's hidden layer, beside a linear part; 0: the linear part alone."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of a text's vector and of the hidden layer that a step leaves out."""
    head_lr: float = Field(default=0.001, gt=0)
    """Learning rate of the heads (AdamW) at the start; it falls linearly to zero."""
