"""The file of a `pooled` model: safetensors, whose metadata has the model's description under the key `colophon`.

| tensor | dtype and shape | content |
| --- | --- | --- |
| `rows` | int8 [num_units + buckets, dim] | a row for each unit, then one for each bucket of longer n-grams |
| `scale` | float32 [dim] | the value of 1 in each column of `rows` |
| `units` | int32 [num_ids] | the unit of each id of the vocabulary, -1 for an id that is skipped |
| `seen` | uint8 [(num_units + buckets + 7) // 8] | a bit for each row: whether training has seen it |
| `heads.N.first`, `.first_bias`, `.second`, `.skip`, `.bias` | float32 | see `heads.compiled.Head` |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel.strips import STRIP
from colophon.annotators.heads import tensor_file
from colophon.annotators.heads.head import HeadInfo, head_tensors
from colophon.annotators.heads.tensor_file import ModelInfo
from colophon.shards.common.arrays import NumPyArray


class TokenizerIdentity(BaseModel):
    """The vocabulary whose ids a model reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    num_ids: int = Field(ge=1, le=1 << 31)


class PooledInfo(ModelInfo):
    """The description of a `pooled` model."""

    kind: ClassVar[str] = "pooled"

    format: Literal["colophon-pooled-1"] = "colophon-pooled-1"
    tokenizer: TokenizerIdentity
    dim: int = Field(ge=STRIP, le=4096, multiple_of=STRIP)
    ngrams: int = Field(ge=1, le=5)
    """The longest n-gram of units that has a row."""
    num_units: int = Field(ge=1)
    bucket_bits: int = Field(ge=4, le=28)
    """n-grams of two or more units share 2^bucket_bits rows."""
    heads: tuple[HeadInfo, ...] = Field(min_length=1)

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return self.num_units + (1 << self.bucket_bits)

    def tensors(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """The dtype and the shape of each tensor, in the order of the file."""
        return {
            "rows": (np.int8, (self.num_rows, self.dim)),
            "scale": (np.float32, (self.dim,)),
            "units": (np.int32, (self.tokenizer.num_ids,)),
            **head_tensors(self.heads, self.dim),
            "seen": (np.uint8, ((self.num_rows + 7) // 8,)),
        }


def map_model(path: str | Path) -> tuple[PooledInfo, dict[str, NumPyArray]]:
    """A model and its tensors, mapped from the file and read-only: all processes of a machine share one copy.

    Raises:
        AnnotatorError: no such file, not a pooled model, or one that is damaged.
    """
    info, arrays = tensor_file.map_model(path, PooledInfo)
    units = arrays["units"]  # compiled code uses them as an index
    if units.size and not (units.min() >= -1 and units.max() < info.num_units):
        raise AnnotatorError(f"{path}: units: outside of -1 to {info.num_units - 1}")
    return info, arrays
