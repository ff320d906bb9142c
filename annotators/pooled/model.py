"""The probabilities of all heads of a `pooled` model for a column of ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colophon.annotators.heads.head import Floats, HeadInfo, head_probabilities
from colophon.annotators.heads.tensor_file import read_info
from colophon.annotators.pooled.model_file import PooledInfo, map_model
from colophon.shards.common.arrays import NumPyArray

if TYPE_CHECKING:  # numba takes half a second to import; only scoring needs it
    from colophon.annotators.pooled.compiled import Features


class PooledModel:
    """A model. The first call of `probabilities`, or `load`, maps its file: all processes share one copy."""

    def __init__(self, path: str | Path) -> None:
        """Read the description.

        Raises:
            AnnotatorError: see `read_info`.
        """
        self.path = str(path)
        self.info: PooledInfo = read_info(path, PooledInfo)
        self._arrays: dict[str, NumPyArray] | None = None

    @property
    def heads(self) -> Sequence[HeadInfo]:
        """Its heads, in the order of their probabilities."""
        return self.info.heads

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": None}

    def load(self) -> None:
        """Map the file and check it; reads the small tensors.

        Raises:
            AnnotatorError: see `map_model`.
        """
        if self._arrays is None:
            self.info, self._arrays = map_model(self.path)

    def probabilities(self, input_ids: pa.Array) -> list[Floats]:
        """For each head float32 [len(input_ids), num_labels]; NaN for a text without an n-gram that training has seen.

        A row depends on its ids alone, bit by bit, whatever the batch. Cost: 75 to 110 MB of English text a second and
        core for bigrams of 64 columns, and about 10 µs a text for a head with 128 hidden units and 24 labels.

        Args:
            input_ids: list<uint16> or list<uint32>; ids outside of the vocabulary are refused.

        Raises:
            AnnotatorError: see `load`.
            ValueError: an id is outside of the model's vocabulary.
        """
        from colophon.annotators.pooled.compiled import mean_rows, pool_rows

        self.load()
        assert self._arrays is not None
        arrays, info = self._arrays, self.info
        ids, offsets = ids_and_offsets(input_ids)
        if ids.size and int(ids[offsets[0] : offsets[-1]].max(initial=0)) >= info.tokenizer.num_ids:
            raise ValueError(f"{self.path}: an id is outside of the {info.tokenizer.num_ids} of its vocabulary")
        num_texts = len(offsets) - 1
        sums, counts = np.zeros((num_texts, info.dim), np.int32), np.zeros(num_texts, np.int64)
        pool_rows(ids, offsets, features_of(info, arrays), arrays["rows"], sums, counts)
        vectors = np.empty((num_texts, info.dim), np.float32)
        mean_rows(sums, counts, arrays["scale"], vectors)
        return head_probabilities(vectors, info.heads, arrays, is_known=counts > 0)


def features_of(info: PooledInfo, arrays: dict[str, NumPyArray]) -> Features:
    """The rows of n-grams, from the tensors `units` and `seen`."""
    from colophon.annotators.pooled.compiled import Features

    return Features(arrays["units"], arrays["seen"], info.num_units, 64 - info.bucket_bits, info.ngrams)


def ids_and_offsets(input_ids: pa.Array) -> tuple[NumPyArray, npt.NDArray[np.int32]]:
    """The ids of all texts, uint16 or uint32, and int32 [len(input_ids) + 1] where each text begins in them.

    A null is a text without ids.
    """
    if pa.types.is_null(input_ids.type):
        return np.empty(0, np.uint16), np.zeros(len(input_ids) + 1, np.int32)
    if input_ids.null_count:
        input_ids = input_ids.fill_null([])
    ids = input_ids.values.to_numpy(zero_copy_only=True)
    return ids, input_ids.offsets.to_numpy(zero_copy_only=True)
