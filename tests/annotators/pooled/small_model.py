"""A small `pooled` model with random weights, and its probabilities in plain numpy: no code of the annotator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from colophon.annotators.heads.head import HeadInfo
from colophon.annotators.heads.tensor_file import write_model
from colophon.annotators.pooled.model_file import PooledInfo, TokenizerIdentity

INFO = PooledInfo(
    tokenizer=TokenizerIdentity(name="test", sha256="0" * 64, num_ids=300),
    dim=64,
    ngrams=3,
    num_units=200,
    bucket_bits=8,
    heads=(
        HeadInfo(name="quality", labels=("high", "low"), loss="softmax", hidden=5),
        HeadInfo(name="tags", labels=("a", "b", "c"), loss="ova", hidden=0),
    ),
)
MASK = (1 << 64) - 1


def random_arrays(info: PooledInfo, *, seed: int = 0) -> dict[str, Any]:
    """Weights of a model; a tenth of the ids are skipped, a third of the rows are unseen."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        name: rng.normal(size=shape).astype(dtype) if dtype is np.float32 else np.zeros(shape, dtype)
        for name, (dtype, shape) in info.tensors().items()
    }
    arrays["rows"] = rng.integers(-127, 128, arrays["rows"].shape).astype(np.int8)
    arrays["scale"] = rng.uniform(0.001, 0.01, info.dim).astype(np.float32)
    units = rng.integers(0, info.num_units, info.tokenizer.num_ids)
    arrays["units"] = np.where(rng.random(units.shape) < 0.1, -1, units).astype(np.int32)
    arrays["seen"] = np.packbits(rng.random(info.num_rows) < 2 / 3, bitorder="little")
    return arrays


def write_small_model(path: Path, info: PooledInfo = INFO) -> dict[str, Any]:
    """Write the model; its weights."""
    arrays = random_arrays(info)
    write_model(path, info, arrays)
    return arrays


def rows_of(info: PooledInfo, arrays: dict[str, Any], ids: list[int]) -> list[int]:
    """The rows of a text that training has seen."""
    units = [unit for unit in (int(arrays["units"][i]) for i in ids) if unit >= 0]
    rows = list(units)
    for length in range(2, info.ngrams + 1):
        for place in range(length - 1, len(units)):
            key = units[place]
            for back in range(1, length):
                key = (key * 0x9E3779B97F4A7C15 + units[place - back] + 1) * 0xC2B2AE3D27D4EB4F & MASK
            rows.append(info.num_units + (key >> (64 - info.bucket_bits)))
    seen = np.unpackbits(arrays["seen"], bitorder="little")
    return [row for row in rows if seen[row]]


def expected_probabilities(info: PooledInfo, arrays: dict[str, Any], ids: list[int]) -> list[np.ndarray[Any, Any]]:
    """The probabilities of each head, float64 [labels]; NaN for a text without a row."""
    rows = rows_of(info, arrays, ids)
    if not rows:
        return [np.full(len(head.labels), np.nan) for head in info.heads]
    mean = arrays["rows"][rows].astype(np.float64).mean(axis=0) * arrays["scale"]
    x = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-5)
    found = []
    for number, head in enumerate(info.heads):
        first, first_bias, second, skip, bias = (
            arrays[f"heads.{number}.{name}"].astype(np.float64)
            for name in ("first", "first_bias", "second", "skip", "bias")
        )
        logits = skip @ x + second @ np.maximum(first @ x + first_bias, 0) + bias
        ratios = np.exp(logits - logits.max())
        found.append(ratios / ratios.sum() if head.loss == "softmax" else 1 / (1 + np.exp(-logits)))
    return found
