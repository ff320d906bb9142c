"""The texts of documents, decoded from the token files.

A vocabulary whose text is the bytes of its tokens, one after the other, is decoded by one gather over all tokens of a
batch: 150 to 300 MB/s on one core. Others are decoded document by document by their own library.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa

from colophon.shards.arrow_files import list_values, read_table
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError, TokenizerError
from colophon.shards.manifest import checked_path
from colophon.shards.outputs import TOKENS
from colophon.shards.records import Record
from colophon.shards.run_output import RunOutput
from colophon.shards.tokenizer.tokenizer import Tokenizer


class Decoder:
    """Texts of many documents at once, from their ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def decoded(self, documents: pa.Array) -> pa.Array:
        """large_string [documents]: the texts of a list column of ids; bytes that are not UTF-8 become U+FFFD.

        Raises:
            TokenizerError: the tokenizer does not have an id.
        """
        offsets, ids = list_values(documents)
        if not self._tokenizer.backend.joins_bytes:
            decode = self._tokenizer.decode
            texts = [decode(ids[start:end]) for start, end in pairwise(offsets.tolist())]
            return pa.array(texts, pa.large_string())
        joined = self._token_bytes(ids)
        ends = np.frombuffer(joined.buffers()[1], np.int64, len(joined) + 1)[offsets]
        text_bytes = joined.buffers()[2] or pa.py_buffer(b"")
        return _valid(
            pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(documents), [None, pa.py_buffer(ends), text_bytes])
        )

    def _token_bytes(self, ids: NumPyArray) -> pa.Array:
        """large_binary [ids]: the bytes of each."""
        known = ids < len(self._vocabulary)
        joined = self._vocabulary.take(pa.array(ids)) if known.all() else None
        if joined is None or joined.null_count:
            missing = ids[~known] if joined is None else ids[joined.is_null().to_numpy(zero_copy_only=False)]
            raise TokenizerError(f"no token of {self._tokenizer.name} has the id {missing[0]}")
        return joined

    @cached_property
    def _vocabulary(self) -> pa.Array:
        """large_binary [ids]: the bytes of each token, null where there is none."""
        backend = self._tokenizer.backend

        def token_bytes(token_id: int) -> bytes | None:
            try:
                return backend.token_bytes(token_id)
            except KeyError:
                return None

        return pa.array(map(token_bytes, range(self._tokenizer.num_base_ids)), pa.large_binary())


class Texts:
    """The ids and texts of a run's documents.

    Raises:
        ShardError: the run has no tokens, or a different tokenizer wrote them.
    """

    def __init__(self, run: RunOutput, tokenizer: Tokenizer) -> None:
        tokens = run.manifest.outputs.get(TOKENS)
        if tokens is None:
            raise ShardError(f"{run.directory} has no tokens, which texts are decoded from: run `colophon tokenize`")
        recorded = tokens.settings.get("tokenizer")
        if not isinstance(recorded, dict) or recorded.get("sha256") != tokenizer.sha256:
            raise ShardError(f"{run.directory}: tokenizer {tokenizer.name} is not the one that wrote the tokens")
        self._run, self._decoder = run, Decoder(tokenizer)
        self._records: dict[str, Record] = {record.partition: record for record in tokens.records}

    def table(self, partition: str) -> pa.Table:
        """A partition's `id` and `input_ids`, memory-mapped.

        Raises:
            ShardError: the file cannot be read or differs from its record.
        """
        if partition not in self._records:
            raise ShardError(f"{self._run.directory} has no tokens of partition {partition}")
        return read_table(checked_path(self._run.directory, self._records[partition]))

    def whole(self, ids: NumPyArray) -> str:
        """The text of a document's ids."""
        documents = pa.LargeListArray.from_arrays([0, len(ids)], pa.array(ids))
        return str(self._decoder.decoded(documents)[0])

    def beginning(self, ids: NumPyArray, *, tokens: int) -> str:
        """The text of a document's first tokens, without a character that they do not have whole."""
        text = self.whole(ids[:tokens])
        return text if len(ids) <= tokens else text.rstrip("\ufffd")

    def batches(self, partition: str, rows: NumPyArray) -> Iterator[tuple[NumPyArray, pa.Array]]:
        """Yield parts of the ascending `rows` with their texts, about 4 MB or one document at a time.

        Raises:
            ShardError: the file cannot be read or differs from its record.
            TokenizerError: the tokenizer does not have an id.
        """
        first = 0
        for chunk in self.table(partition).column("input_ids").chunks:
            own = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + len(chunk))]
            if len(own):
                chosen = chunk if len(own) == len(chunk) else chunk.take(pa.array(own - first))
                yield own, self._decoder.decoded(chosen)
            first += len(chunk)


def _valid(texts: pa.LargeBinaryArray) -> pa.Array:
    """The texts as large_string. A vocabulary that loses text can give bytes that are not UTF-8."""
    try:
        return texts.cast(pa.large_string())
    except pa.ArrowInvalid:
        return pa.array([text.decode("utf-8", "replace") for text in texts.to_pylist()], pa.large_string())
