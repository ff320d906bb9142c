"""The probabilities of all labels of a fastText model for a column of texts, and its labels as names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model_file import read_header
from colophon.annotators.fasttext.model_layout import FastTextHeader
from colophon.annotators.fasttext.text_preparation import TextPreparation

if TYPE_CHECKING:  # numba takes half a second to import; only scoring needs it
    from colophon.annotators.fasttext.kernel.model import ClassifierKernel

LABEL_PREFIX = "__label__"

# fastText ends a word at these characters, so they would split a label in a training file; `%` begins an escape.
_SEPARATORS = re.compile(r"[ \n\r\t\v\f\0%]")
_RAW = TextPreparation()
_SLICE_BYTES = 4 << 20
_ESCAPE = re.compile(r"%(20|0A|0D|09|0B|0C|00|25)")


def encode_label(name: str) -> str:
    """A label as one fastText token: `__label__` and `name`, with white space, NUL and `%` as `%20` and so on.

    Raises:
        AnnotatorError: the name is empty.
    """
    if not name:
        raise AnnotatorError("a label is empty")
    return LABEL_PREFIX + _SEPARATORS.sub(lambda match: f"%{ord(match[0]):02X}", name)


def decode_label(label: str) -> str:
    """The inverse of `encode_label`: `__label__Q%20A` gives `Q A`, and `__label__eng_Latn` gives `eng_Latn`."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), label.removeprefix(LABEL_PREFIX))


class FastTextModel:
    """A supervised model. The first call of `probabilities`, or `load`, maps its tables or builds them."""

    def __init__(self, path: str | Path, *, header: FastTextHeader | None = None, cached: bool = True) -> None:
        """Read the header.

        Args:
            path: a `.bin` or `.ftz` file.
            header: the result of `read_header` for the same file; None reads it.
            cached: store the tables in this machine's cache, where all processes share them; otherwise in memory.
        """
        self.path = str(path)
        self.header = read_header(path) if header is None else header
        self._cached = cached
        self._kernel: ClassifierKernel | None = None

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The labels as names, in the order of `header.labels`."""
        return tuple(decode_label(label) for label in self.header.labels)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kernel": None}

    def load(self) -> None:
        """Map the model's tables, after building them if this machine does not have them (1 to 8 s a GB).

        Raises:
            AnnotatorError: the file has changed since its header was read, its matrices hold NaN, or the cache cannot
                be written.
        """
        if self._kernel is None:
            from colophon.annotators.fasttext.kernel.model import ClassifierKernel

            self._kernel = ClassifierKernel(self.path, self.header, cached=self._cached)

    def slices(self, texts: pa.Array, *, preparation: TextPreparation = _RAW) -> Iterator[npt.NDArray[np.float32]]:
        """`probabilities` for one slice of the texts after the other, so that memory does not grow with them."""
        start, most = 0, self.header.rows_at_once
        while start < len(texts):
            part = texts.slice(start, most)
            while len(part) > 1 and part.nbytes > _SLICE_BYTES:
                part = part.slice(0, len(part) // 2)
            yield self.probabilities(part, preparation=preparation)
            start += len(part)

    def probabilities(self, texts: pa.Array, *, preparation: TextPreparation = _RAW) -> npt.NDArray[np.float32]:
        """float32 [len(texts), num_labels], in the order of `header.labels`; cost: see `annotators.fasttext.kernel`.

        A row is NaN for a null text, a text without a word, and a text none of whose features the model has. Other
        rows are the library's probabilities without the 1e-5 that it adds to each; those of hierarchical softmax, with
        the 1e-5 that it adds to each turn of its tree, can be a little above 1.

        Args:
            texts: string or large_string, as they are in the document.
            preparation: how each becomes one line.

        Raises:
            AnnotatorError: see `load`.
        """
        self.load()
        assert self._kernel is not None
        return self._kernel.probabilities(texts, preparation)
