"""The labelled texts of a classifier's training, and the training file that fastText reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import decode_label, encode_label
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.shards.common.errors import one_line

Strings: TypeAlias = pa.Array | Sequence[str | None]

_BATCH_ROWS = 1024
# A word that begins with `__label__` would be a label in a training file. A model that reads a text skips such words.
_LABEL_LIKE = r"(^|[ \n\r\t\v\f\x00])__label__[^ \n\r\t\v\f\x00]*"


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """Texts and encoded labels of equal length, without nulls."""

    texts: pa.Array
    labels: pa.Array
    """One label a text, or several with a space between them."""
    num_dropped: int = 0
    """Rows of the input without a text or a label."""

    @staticmethod
    def from_columns(texts: Strings, labels: Strings) -> LabelledRows:
        """The rows that have both a text and a label.

        Raises:
            AnnotatorError: columns of unequal length or of other types than strings, or an empty label.
        """
        texts, labels = _string_array(texts), _label_array(labels)
        if len(texts) != len(labels):
            raise AnnotatorError(f"{len(texts)} texts have {len(labels)} labels")
        complete = pc.and_(pc.fill_null(pc.greater(pc.binary_length(texts), 0), False), labels.is_valid())
        kept = texts.filter(complete)
        return LabelledRows(texts=kept, labels=_encoded(labels.filter(complete)), num_dropped=len(texts) - len(kept))

    def __len__(self) -> int:
        return len(self.texts)

    def shuffled(self, seed: int) -> LabelledRows:
        """The same rows in an order that depends on `seed` alone."""
        order = pa.array(np.random.default_rng(seed).permutation(len(self)))
        return LabelledRows(texts=self.texts.take(order), labels=self.labels.take(order), num_dropped=self.num_dropped)

    def split(self, size: int) -> tuple[LabelledRows, LabelledRows]:
        """All rows but the first `size`, and those."""
        rest = LabelledRows(texts=self.texts.slice(size), labels=self.labels.slice(size), num_dropped=self.num_dropped)
        return rest, LabelledRows(texts=self.texts.slice(0, size), labels=self.labels.slice(0, size))

    def check(self) -> None:
        """Check that there is something to tell apart.

        Raises:
            AnnotatorError: fewer than two labels.
        """
        counts = self.count_by_label()
        if len(counts) < 2:
            names = ", ".join(counts) or "none"
            raise AnnotatorError(f"a classifier needs at least two labels; labels of the {len(self)} texts: {names}")

    def write(self, path: Path, normalize: TextPreparation) -> None:
        """Write one line a row: the label, a space, the prepared text."""
        with path.open("wb") as file:
            for start in range(0, len(self), _BATCH_ROWS):
                prepared = normalize(self.texts.slice(start, _BATCH_ROWS))
                prepared = pc.replace_substring_regex(prepared, _LABEL_LIKE, r"\1")
                lines = pc.binary_join_element_wise(
                    self.labels.slice(start, _BATCH_ROWS), prepared, pa.scalar(" ", pa.large_string())
                )
                file.writelines(line + b"\n" for line in lines.cast(pa.large_binary()).to_pylist())

    def label_names(self) -> list[str]:
        """The decoded label of each row."""
        return [decode_label(label) for label in self.labels.to_pylist()]

    def count_by_label(self) -> dict[str, int]:
        """The number of rows with each label, by name."""
        counts = Counter[str]()
        for row in self.labels.value_counts().to_pylist():
            counts.update({decode_label(label): row["counts"] for label in row["values"].split(" ")})
        return dict(sorted(counts.items()))


def _label_array(values: Strings) -> pa.Array:
    """Labels as large_string, or list<string> for several a text; an empty list is null."""
    if isinstance(values, pa.Array) and pa.types.is_list(values.type):
        return pc.if_else(pc.greater(pc.list_value_length(values), 0), values, None)
    return _string_array(values)


def _encoded(labels: pa.Array) -> pa.Array:
    """The labels as fastText reads them: large_string, several of a text with a space between them."""
    is_list = pa.types.is_list(labels.type)
    flat = (labels.flatten() if is_list else labels).dictionary_encode()
    names = pa.array([encode_label(name) for name in flat.dictionary.to_pylist()], pa.string())
    encoded = names.take(flat.indices)
    if is_list:
        offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(labels).to_numpy())]).astype(np.int32)
        encoded = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), encoded), " ")
    return encoded.cast(pa.large_string())


def _string_array(values: Strings) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    try:
        return values.cast(pa.large_string()) if isinstance(values, pa.Array) else pa.array(values, pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise AnnotatorError(f"texts and labels must be strings: {one_line(error)}") from None
