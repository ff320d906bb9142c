"""The file of a `pooled` model: safetensors, whose metadata has the model's description under the key `colophon`.

| tensor | dtype and shape | content |
| --- | --- | --- |
| `rows` | int8 [num_units + buckets, dim] | a row for each unit, then one for each bucket of longer n-grams |
| `scale` | float32 [dim] | the value of 1 in each column of `rows` |
| `units` | int32 [num_ids] | the unit of each id of the vocabulary, -1 for an id that is skipped |
| `seen` | uint8 [(num_units + buckets + 7) // 8] | a bit for each row: whether training has seen it |
| `heads.N.first`, `.first_bias`, `.second`, `.skip`, `.bias` | float32 | see `compiled.Head` |

The header is padded to 64 bytes, so that a row of 64 columns is one cache line of the mapped file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel.strips import STRIP
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.durable import replaced_file

SUFFIX = ".safetensors"
_KEY = "colophon"
_ALIGNMENT = 64
_MOST_HEADER_BYTES = 64 << 20
_DTYPES = {"I8": np.int8, "U8": np.uint8, "I32": np.int32, "F32": np.float32}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


class HeadInfo(BaseModel):
    """One classifier of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=2)
    loss: Literal["softmax", "ova"]
    """`softmax`: one label a text; `ova`: any number of them, each with a probability of its own."""
    hidden: int = Field(ge=0, le=4096)
    """Units of the hidden layer."""

    @model_validator(mode="after")
    def _different_labels(self) -> HeadInfo:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ")
        return self


class TokenizerIdentity(BaseModel):
    """The vocabulary whose ids a model reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    num_ids: int = Field(ge=1, le=1 << 31)


class PooledInfo(BaseModel):
    """The description of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {
            "rows": (np.int8, (self.num_rows, self.dim)),
            "scale": (np.float32, (self.dim,)),
            "units": (np.int32, (self.tokenizer.num_ids,)),
        }
        for number, head in enumerate(self.heads):
            shapes = {
                "first": (head.hidden, self.dim),
                "first_bias": (head.hidden,),
                "second": (len(head.labels), head.hidden),
                "skip": (len(head.labels), self.dim),
                "bias": (len(head.labels),),
            }
            expected |= {f"heads.{number}.{name}": (np.float32, shape) for name, shape in shapes.items()}
        return {**expected, "seen": (np.uint8, ((self.num_rows + 7) // 8,))}


def write_model(path: str | Path, info: PooledInfo, arrays: Mapping[str, NumPyArray]) -> None:
    """Write a model, under its name when it is complete.

    Args:
        path: the file, usually ending in `.safetensors`; its folder is created.
        info: its description.
        arrays: the tensors that `info.tensors()` lists.

    Raises:
        AnnotatorError: the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {_KEY: info.model_dump_json()}}
    place = 0
    parts: list[bytes] = []
    for name, (dtype, shape) in info.tensors().items():
        array = np.ascontiguousarray(arrays[name], dtype)
        assert array.shape == shape, (name, array.shape, shape)
        end = place + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(shape), "data_offsets": [place, end]}
        parts.append(array.tobytes())
        place = end
    text = json.dumps(header, ensure_ascii=True).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    try:
        with replaced_file(Path(path)) as temporary:
            temporary.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror or error}") from None


def read_info(path: str | Path) -> PooledInfo:
    """The description of a model; reads the file's header alone.

    Raises:
        AnnotatorError: no such file, or not a pooled model.
    """
    return _header(path)[0]


def map_model(path: str | Path) -> tuple[PooledInfo, dict[str, NumPyArray]]:
    """A model and its tensors, mapped from the file and read-only: all processes of a machine share one copy.

    Raises:
        AnnotatorError: no such file, not a pooled model, or one that is damaged.
    """
    info, header, start = _header(path)
    data = np.memmap(path, np.uint8, "r")
    arrays: dict[str, NumPyArray] = {}
    for name, (dtype, shape) in info.tensors().items():
        begin, end = _extent(header.get(name), dtype, shape, path=f"{path}: {name}")
        if start + end > data.size:
            raise AnnotatorError(f"{path}: truncated: {name} is not complete")
        # A view of an ordinary array: compiled functions know no memmap.
        arrays[name] = np.asarray(data)[start + begin : start + end].view(dtype).reshape(shape)
    _check_values(info, arrays, path=path)
    return info, arrays


def _header(path: str | Path) -> tuple[PooledInfo, dict[str, Any], int]:
    """The description, the header and the place of the first tensor."""
    try:
        with Path(path).open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            text = file.read(size) if size <= _MOST_HEADER_BYTES else b""
        header = json.loads(text)
        info = PooledInfo.model_validate_json(header["__metadata__"][_KEY])
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AnnotatorError(f"{path}: not a usable pooled model: {where}: {first['msg']}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AnnotatorError(
            f"{path}: not a pooled model, as `colophon train-classifier --kind pooled` writes them"
        ) from None
    return info, header, 8 + size


def _extent(entry: Any, dtype: Any, shape: tuple[int, ...], *, path: str) -> tuple[int, int]:
    try:
        begin, end = map(int, entry["data_offsets"])
        found = (entry["dtype"], tuple(entry["shape"]), end - begin)
    except (KeyError, TypeError, ValueError):
        raise AnnotatorError(f"{path}: missing or damaged") from None
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if begin < 0 or found != (_NAMES[np.dtype(dtype)], shape, size):
        raise AnnotatorError(f"{path}: expected {_NAMES[np.dtype(dtype)]} {list(shape)}, got {found!r:.200}")
    return begin, end


def _check_values(info: PooledInfo, arrays: Mapping[str, NumPyArray], *, path: str | Path) -> None:
    """Check what compiled code would use as an index, and that all numbers are finite."""
    units = arrays["units"]
    if units.size and not (units.min() >= -1 and units.max() < info.num_units):
        raise AnnotatorError(f"{path}: units: outside of -1 to {info.num_units - 1}")
    for name, array in arrays.items():
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise AnnotatorError(f"{path}: {name}: holds NaN or infinite numbers")
