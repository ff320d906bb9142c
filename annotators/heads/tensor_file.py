"""Safetensors files: mapped and checked, and written with a model's description in their metadata.

The header is padded to 64 bytes, so that rows of a multiple of 64 bytes begin with a cache line of the mapped file.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from colophon.annotators.base import AnnotatorError
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.durable import replaced_file

SUFFIX = ".safetensors"
_KEY = "colophon"
_ALIGNMENT = 64
_MOST_HEADER_BYTES = 64 << 20
_DTYPES = {
    "I8": np.int8,
    "U8": np.uint8,
    "I32": np.int32,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


class ModelInfo(BaseModel, ABC):
    """The description of a model, as JSON under the key `colophon` of its file's metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]
    """As in `colophon train-classifier --kind`."""

    @abstractmethod
    def tensors(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """The dtype and the shape of each tensor, in the order of the file."""


Info = TypeVar("Info", bound=ModelInfo)


class TensorFile:
    """The header of a safetensors file, and its tensors, mapped and read-only: all processes share one copy."""

    def __init__(self, path: str | Path) -> None:
        """Read the header.

        Raises:
            AnnotatorError: no such file.
            ValueError: not a safetensors file.
        """
        self.path = str(path)
        try:
            with Path(path).open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                text = file.read(size) if size <= _MOST_HEADER_BYTES else b""
        except OSError as error:
            raise AnnotatorError(f"{path}: {error.strerror or error}") from None
        try:
            header = json.loads(text)
        except RecursionError:
            raise ValueError("not a safetensors file") from None
        if not isinstance(header, dict):
            raise ValueError("not a safetensors file")
        self.metadata: Any = header.pop("__metadata__", {})
        self.entries: dict[str, Any] = header
        self._start = 8 + size

    @cached_property
    def _bytes(self) -> NumPyArray:
        # A view of an ordinary array: compiled functions know no memmap.
        return np.asarray(np.memmap(self.path, np.uint8, "r"))

    def tensor(self, name: str) -> NumPyArray:
        """The tensor of that name, in the dtype and shape of the header.

        Raises:
            AnnotatorError: there is none, it is of a dtype that numpy lacks, or the file is damaged.
        """
        dtype, shape, begin, end = self._entry(name)
        if self._start + end > self._bytes.size:
            raise AnnotatorError(f"{self.path}: truncated: {name} is not complete")
        found: NumPyArray = self._bytes[self._start + begin : self._start + end].view(dtype).reshape(shape)
        return found

    def _entry(self, name: str) -> tuple[Any, tuple[int, ...], int, int]:
        try:
            entry = self.entries[name]
            begin, end = map(int, entry["data_offsets"])
            kind, shape = str(entry["dtype"]), tuple(map(int, entry["shape"]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise AnnotatorError(f"{self.path}: {name}: missing or damaged") from None
        if kind not in _DTYPES:
            raise AnnotatorError(f"{self.path}: {name}: has type {kind!r:.40}; expected one of {', '.join(_DTYPES)}")
        dtype = np.dtype(_DTYPES[kind])
        size = dtype.itemsize
        for length in shape:  # of Python's integers, which do not overflow
            size *= length
        if begin < 0 or min(shape, default=0) < 0 or end - begin != size:
            raise AnnotatorError(f"{self.path}: {name}: missing or damaged")
        return dtype, shape, begin, end


def write_model(path: str | Path, info: ModelInfo, arrays: Mapping[str, NumPyArray]) -> None:
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


def read_info(path: str | Path, kind: type[Info]) -> Info:
    """The description of a model; reads the file's header alone.

    Raises:
        AnnotatorError: no such file, or not a model of this kind.
    """
    return _described(path, kind)[0]


def map_model(path: str | Path, kind: type[Info]) -> tuple[Info, dict[str, NumPyArray]]:
    """A model and its tensors, mapped from the file.

    Raises:
        AnnotatorError: no such file, not a model of this kind, or one that is damaged.
    """
    info, file = _described(path, kind)
    arrays = {name: file.tensor(name) for name in info.tensors()}
    for name, (dtype, shape) in info.tensors().items():
        found = arrays[name]
        if found.dtype != dtype or found.shape != shape:
            expected = f"{_NAMES[np.dtype(dtype)]} {list(shape)}"
            raise AnnotatorError(f"{path}: {name}: expected {expected}, got {_NAMES[found.dtype]} {list(found.shape)}")
        if found.dtype == np.float32 and not np.isfinite(found).all():
            raise AnnotatorError(f"{path}: {name}: holds NaN or infinite numbers")
    return info, arrays


def _described(path: str | Path, kind: type[Info]) -> tuple[Info, TensorFile]:
    try:
        file = TensorFile(path)
        return kind.model_validate_json(file.metadata[_KEY]), file
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AnnotatorError(f"{path}: not a usable {kind.kind} model: {where}: {first['msg']}") from None
    except AnnotatorError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AnnotatorError(
            f"{path}: not {_article(kind.kind)} model, as `colophon train-classifier --kind {kind.kind}` writes them"
        ) from None


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
