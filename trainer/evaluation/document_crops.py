"""The first tokens of a run's documents, the same ids for every layout, with their annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from colophon.shards.annotations import AnnotationColumn, find_column
from colophon.shards.arrow_files import list_chunks, read_table
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.differences import differences
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import checked_path, read_manifest
from colophon.shards.outputs import TOKENS
from colophon.shards.records import Record
from colophon.shards.schema import TokenizerInfo
from colophon.shards.stores.places import RunPlace
from colophon.shards.stores.tokens import stored_lists
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.codec import Decode

_MAX_CUT_TOKENS = 3  # a character has at most four bytes, so a crop leaves at most three tokens of it


@dataclass(frozen=True, kw_only=True)
class DocumentCrops:
    """The first tokens of some documents."""

    text: list[NumPyArray]
    """uint16 or uint32 [num_tokens] of each document, at least one."""
    num_bytes: NumPyArray
    """int64 [num_documents]: UTF-8 bytes of each text."""
    columns: dict[str, pa.Array]
    """Annotation columns by name, each [num_documents]."""

    def __len__(self) -> int:
        return len(self.text)

    @property
    def num_tokens(self) -> NumPyArray:
        """int64 [num_documents]: length of each text."""
        return np.array([len(ids) for ids in self.text], np.int64)


class RunDocuments:
    """The documents of a run: its token files and annotations, as its manifest lists them."""

    def __init__(self, output: RunPlace, *, only: Mapping[str, Sequence[int]] | None = None) -> None:
        """Read the manifest under `output`.

        Args:
            output: the `output.path` of the run.
            only: rows of the documents to draw from, by partition; None: all.

        Raises:
            ShardError: the manifest is missing, or lists no token files.
        """
        self.output = output
        self._manifest = read_manifest(output)
        tokens = self._manifest.outputs.get(TOKENS)
        if tokens is None:
            raise ShardError(f"{output} has no tokens: run `colophon run` first")
        self._tokenizer_settings, self._records = tokens.settings.get("tokenizer", {}), tokens.records
        self._first_rows = np.cumsum([0, *(record.rows for record in self._records)])
        self._opened: dict[int, tuple[NumPyArray, Sequence[Any]]] = {}
        self.is_held_out = only is not None
        """Whether the models were not trained on the documents, which are of their own run."""
        self._candidates = None if only is None else self._rows_of(only)

    def check_tokenizer(self, tokenizer: TokenizerInfo) -> None:
        """Check that the documents have the tokenizer of a model.

        Raises:
            TrainerError: they were encoded with a different tokenizer.
        """
        before = {"name": tokenizer.name, "sha256": tokenizer.sha256}
        if self._tokenizer_settings.get("sha256") != tokenizer.sha256:
            now = {key: self._tokenizer_settings.get(key) for key in before}
            raise TrainerError(
                f"{self.output} was tokenized with a different tokenizer than the model's: "
                f"{'; '.join(differences(before, now))}. Tokenize the documents with the model's tokenizer into "
                "another output, and give it as --output"
            )

    def crops(
        self, *, count: int, crop: int, seed: int, columns: Sequence[str], tokenizer: TokenizerInfo, decode: Decode
    ) -> DocumentCrops:
        """The first `crop` tokens of `count` documents drawn by `seed`, or of all with text if they are fewer.

        A character that the crop would cut in two is dropped as a whole, so that bytes can be counted.

        Args:
            count: documents to draw.
            crop: most tokens of each.
            seed: the draw's random seed.
            columns: annotation columns to read.
            tokenizer: the model's.
            decode: from ids to text.

        Raises:
            ShardError: a file does not match its record, a token file has an id that the tokenizer does not have, or no
                annotator has a column (the choices are listed).
            TrainerError: no document has text.
        """
        annotations = {name: find_column(self.output, self._manifest, name) for name in columns}
        rows = self._draw(count, seed=seed)
        if not len(rows):
            raise TrainerError(f"{self.output}: no document has text")
        text: list[NumPyArray] = []
        num_bytes: list[int] = []
        for ids in self._texts(rows):
            if ids.max() >= tokenizer.num_ids:
                raise ShardError(
                    f"{self.output}: a token file has id {ids.max()}; the tokenizer has {tokenizer.num_ids} ids"
                )
            whole, decoded = _whole_characters(ids[:crop], is_cut=len(ids) > crop, decode=decode)
            text.append(whole)
            num_bytes.append(len(decoded.encode()))
        found = {name: self._column(column, rows) for name, column in annotations.items()}
        return DocumentCrops(text=text, num_bytes=np.array(num_bytes, np.int64), columns=found)

    def _rows_of(self, documents: Mapping[str, Sequence[int]]) -> NumPyArray:
        """int64, ascending: rows over all partitions of documents given by partition."""
        known = {record.partition: first for record, first in zip(self._records, self._first_rows, strict=False)}
        rows = [known[partition] + np.asarray(found, np.int64) for partition, found in documents.items()]
        return np.sort(np.concatenate([np.empty(0, np.int64), *rows]))

    def _draw(self, count: int, *, seed: int) -> NumPyArray:
        """int64, ascending: rows of documents with text. Opens only the token files that the draws fall in."""
        candidates = self._candidates
        total, size = int(self._first_rows[-1]) if candidates is None else len(candidates), 2 * count
        while True:
            size = min(size, total)
            drawn = np.random.default_rng(seed).choice(total, size, replace=False)
            drawn = drawn if candidates is None else candidates[drawn]
            kept = drawn[self._lengths(drawn) > 0][:count]
            if len(kept) == count or size == total:
                return np.sort(kept)
            size *= 4

    def _by_partition(self, rows: NumPyArray) -> Iterator[tuple[int, NumPyArray]]:
        """Yield the number of each partition that has some of `rows` [n], with their indices into `rows`."""
        partitions = np.searchsorted(self._first_rows, rows, side="right") - 1
        for partition in np.unique(partitions):
            yield int(partition), np.flatnonzero(partitions == partition)

    def _lengths(self, rows: NumPyArray) -> NumPyArray:
        """int64 [n]: number of tokens of the documents at `rows`, in any order."""
        lengths = np.zeros(len(rows), np.int64)
        for partition, index in self._by_partition(rows):
            local, (offsets, _) = rows[index] - self._first_rows[partition], self._tokens(partition)
            lengths[index] = offsets[local + 1] - offsets[local]
        return lengths

    def _texts(self, rows: NumPyArray) -> Iterator[NumPyArray]:
        """Yield the ids of the documents with text at ascending `rows`, as views of the mapped files."""
        for partition, index in self._by_partition(rows):
            offsets, chunks = self._tokens(partition)
            firsts = np.cumsum([0, *map(len, chunks)])
            for row in rows[index] - self._first_rows[partition]:
                chunk = int(np.searchsorted(firsts, offsets[row], side="right")) - 1
                yield chunks[chunk][offsets[row] - firsts[chunk] : offsets[row + 1] - firsts[chunk]]

    def _tokens(self, partition: int) -> tuple[NumPyArray, Sequence[Any]]:
        """The documents' offsets into all chunks, int64 [num_documents + 1], and the ids by chunk, read by slices."""
        if partition not in self._opened:
            self._opened[partition] = _token_lists(self.output, self._records[partition])
        return self._opened[partition]

    def _column(self, column: AnnotationColumn, rows: NumPyArray) -> pa.Array:
        """The annotation values of the documents at ascending `rows`, [n]."""
        chunks = []
        for partition, index in self._by_partition(rows):
            record = self._records[partition]
            values = column.read(record.partition)
            if len(values) != record.rows:
                raise ShardError(
                    f"{self.output}: annotator {column.annotator!r} has {len(values)} rows on partition "
                    f"{record.partition}, which has {record.rows} documents"
                )
            chunks.append(values.take(pa.array(rows[index] - self._first_rows[partition])).combine_chunks())
        return pa.concat_arrays(chunks)


def _whole_characters(ids: NumPyArray, *, is_cut: bool, decode: Decode) -> tuple[NumPyArray, str]:
    """`ids` without the start of a character that the crop has cut, and their text."""
    text = decode(ids)
    if not is_cut or not text.endswith("\ufffd"):
        return ids, text
    for end in range(len(ids) - 1, max(len(ids) - 1 - _MAX_CUT_TOKENS, 0), -1):
        shorter = decode(ids[:end])
        if not shorter.endswith("\ufffd"):
            return ids[:end], shorter
    return ids, text


def _token_lists(output: RunPlace, record: Record) -> tuple[NumPyArray, Sequence[Any]]:
    if not isinstance(output, Path):
        return stored_lists(output / record.path, record, column="input_ids")
    path = checked_path(output, record)
    table = read_table(path)
    if "input_ids" not in table.column_names or not pa.types.is_list(table.schema.field("input_ids").type):
        raise ShardError(f"{path}: not a token file: it has no list column input_ids")
    return list_chunks(table.column("input_ids"))
