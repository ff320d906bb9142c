"""The `duplicate_keys` annotator: numbers that equal or similar texts share, for `colophon duplicates`.

Exact: a hash of the words. MinHash (Broder 1997): of each of `bands` groups of `rows` hash functions, the smallest
values over the text's n-grams, hashed to one number. Texts whose sets of n-grams have the Jaccard similarity s share
one of them with probability 1 - (1 - s^rows)^bands. The hash functions are datatrove's, (a x + b mod 2^64) mod
(2^61 - 1). Cost: see docs/annotators.md.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from colophon.annotators.base import DOCUMENT_FILE, DOCUMENT_PLACE, Annotator, AnnotatorConfig
from colophon.annotators.columns import number_column, string_column
from colophon.annotators.ngrams.folding import UNICODE_VERSION
from colophon.shards.common.arrays import NumPyArray

_CODE_VERSION = 1


class DuplicateKeysConfig(AnnotatorConfig):
    """Computes the keys of duplicates; `colophon duplicates` runs it for the annotators of type `duplicates`.

    Example:

        [annotators.duplicate_keys]
        method = "exact"
    """

    type_name: ClassVar[str] = "duplicate_keys"
    reads: ClassVar[tuple[str, ...]] = ("text", "the columns of within and score")
    writes: ClassVar[tuple[str, ...]] = ("NAME_file", "NAME_place", "NAME_keys", "NAME_rank")

    method: Literal["minhash", "exact"] = "minhash"
    """`exact`: texts of the same words are duplicates. `minhash`: those with similar sets of n-grams."""
    ngram: int = Field(default=5, ge=1, le=100)
    """With `minhash`: words of an n-gram. A text of fewer words is one n-gram."""
    bands: int = Field(default=14, ge=1, le=1000)
    """With `minhash`: groups of hash functions; texts that agree in one group are duplicates."""
    rows: int = Field(default=8, ge=1, le=1000)
    """With `minhash`: hash functions of a group. Half of the pairs with similarity (1 / bands)^(1 / rows) or a little
    more are found: 0.72 by default."""
    seed: int = Field(default=1, ge=0, lt=1 << 32)
    """With `minhash`: the seed of the hash functions."""
    within: str | None = Field(default=None, min_length=1)
    """A column of text, of the input or of an annotator, such as `language`: only documents with the same value in it
    are compared."""
    keep: Literal["first", "longest", "highest"] = "first"
    """The document of a cluster that is kept: the first in the input, the one with most characters, or with the
    highest `score`; of equals the first."""
    score: str | None = Field(default=None, min_length=1)
    """With `keep = "highest"`: a column of numbers, of the input or of an annotator. Null is the lowest."""

    @model_validator(mode="after")
    def _score_of_highest(self) -> DuplicateKeysConfig:
        if (self.score is not None) != (self.keep == "highest"):
            raise ValueError('give score with keep = "highest", and only then')
        return self

    def build(self, name: str) -> Annotator:
        """The annotator under `name`."""
        return DuplicateKeysAnnotator(name, config=self)


class DuplicateKeysAnnotator(Annotator):
    """Computes the keys of `text`.

    Output columns under the name NAME:
      - `NAME_file` (string), `NAME_place` (int64): where the document is, see `base.DOCUMENT_FILE`;
      - `NAME_keys` (list of uint64): `bands` numbers, or one with exact; null for a text without a word;
      - `NAME_rank` (float64): the largest of a cluster is kept; null with `keep = "first"`, and where it is unknown.
    """

    def __init__(self, name: str, *, config: DuplicateKeysConfig) -> None:
        self.name = name
        self._config = config
        read = (DOCUMENT_FILE, DOCUMENT_PLACE, "text", config.within, config.score)
        self.columns = tuple(dict.fromkeys(column for column in read if column is not None))
        readers = {config.within: string_column, config.score: number_column}
        self.read_by = {column: read for column, read in readers.items() if column is not None}
        columns = [
            ("file", pa.string()),
            ("place", pa.int64()),
            ("keys", pa.list_(pa.uint64())),
            ("rank", pa.float64()),
        ]
        self.schema = pa.schema([(f"{name}_{column}", kind) for column, kind in columns])
        self.settings: dict[str, Any] = {
            "type": DuplicateKeysConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": name,
            "unicode": UNICODE_VERSION,
            "config": config.model_dump(mode="json"),
        }

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the config."""
        texts = string_column(batch, "text")
        keys, has_words = self._keys(texts, self._salts(batch))
        columns = [
            string_column(batch, DOCUMENT_FILE).cast(pa.string()),
            batch.column(DOCUMENT_PLACE).cast(pa.int64()),
            _lists(keys, has_words),
            self._ranks(batch, texts),
        ]
        return pa.record_batch(columns, schema=self.schema)

    def _keys(self, texts: pa.Array, salts: NumPyArray) -> tuple[NumPyArray, NumPyArray]:
        """uint64 [texts, keys], and bool [texts]: whether a text has a word."""
        from colophon.annotators.ngrams.signatures import band_keys, hash_functions, smallest_hashes
        from colophon.annotators.ngrams.texts import ngrams_of, words_of

        config = self._config
        if config.method == "exact":
            words, has_words = words_of(texts)
            return band_keys(words[:, np.newaxis], salts, rows=1), has_words
        ngrams = ngrams_of(texts, length=config.ngram, whole=True)
        functions = hash_functions(config.bands * config.rows, seed=config.seed)
        return band_keys(smallest_hashes(ngrams, functions), salts, rows=config.rows), ngrams.num_words > 0

    def _salts(self, batch: pa.RecordBatch) -> NumPyArray:
        """uint64 [documents]: a number for each value of `within`, so that different values have no key in common."""
        if self._config.within is None:
            return np.zeros(batch.num_rows, np.uint64)
        encoded = string_column(batch, self._config.within).fill_null("").dictionary_encode()
        digests = [hashlib.blake2b(value.encode(), digest_size=8).digest() for value in encoded.dictionary.to_pylist()]
        numbers = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
        return np.asarray(numbers[encoded.indices.to_numpy()])

    def _ranks(self, batch: pa.RecordBatch, texts: pa.Array) -> pa.Array:
        if self._config.keep == "longest":
            return pc.utf8_length(texts).cast(pa.float64())
        if self._config.score is None:
            return pa.nulls(batch.num_rows, pa.float64())
        scores = number_column(batch, self._config.score).cast(pa.float64())
        return pc.if_else(pc.is_nan(scores), pa.scalar(None, pa.float64()), scores)


def _lists(keys: NumPyArray, has_keys: NumPyArray) -> pa.Array:
    """list<uint64>: the rows of `keys`, null where there are none."""
    offsets = np.concatenate([[0], np.cumsum(has_keys * keys.shape[1])]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, keys[has_keys].ravel(), mask=pa.array(~has_keys))
