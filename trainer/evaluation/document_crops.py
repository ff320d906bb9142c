"""The beginnings of a run's documents: the same ids whatever the layout, with their annotations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from colophon.shards.annotations import AnnotationColumn, find_column
from colophon.shards.arrow_files import list_chunks, read_table
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import checked_path, read_manifest
from colophon.shards.outputs import TOKENS
from colophon.shards.schema import TokenizerInfo
from colophon.trainer.errors import TrainerError

Decode = Callable[[NumPyArray], str]
_CUT_TOKENS = 3  # a character has at most four bytes: a crop leaves at most three tokens of one


@dataclass(frozen=True, kw_only=True)
class DocumentCrops:
    """The first tokens of some documents."""

    text: list[NumPyArray]
    """uint16 or uint32 [num_tokens] of each document, at least one."""
    num_bytes: NumPyArray
    """int64 [num_documents]: bytes of UTF-8 that each text stands for."""
    columns: dict[str, pa.Array]
    """Annotation columns by name, each [num_documents]."""

    def __len__(self) -> int:
        return len(self.text)

    @property
    def num_tokens(self) -> NumPyArray:
        """int64 [num_documents]."""
        return np.array([len(ids) for ids in self.text], np.int64)


class RunDocuments:
    """The documents of a run: its token files and annotations, as its manifest names them."""

    def __init__(self, output: Path) -> None:
        """Read the manifest under `output`.

        Raises:
            ShardError: there is none, or it names no token file.
        """
        self.output = output
        self._manifest = read_manifest(output)
        tokens = self._manifest.outputs.get(TOKENS)
        if tokens is None:
            raise ShardError(f"{output} has no tokens: run `colophon run` first")
        self._tokenizer_settings, self._records = tokens.settings.get("tokenizer", {}), tokens.records
        self._first_rows = np.cumsum([0, *(record.rows for record in self._records)])
        self._opened: dict[int, tuple[NumPyArray, list[NumPyArray]]] = {}

    def check_tokenizer(self, tokenizer: TokenizerInfo) -> None:
        """Whether the ids are those that a model reads.

        Raises:
            TrainerError: they are another tokenizer's.
        """
        found = self._tokenizer_settings
        if found.get("sha256") != tokenizer.sha256:
            name = found.get("name", "another tokenizer")
            raise TrainerError(f"{self.output} was tokenized with {name}, not with the model's {tokenizer.name}")

    def crops(
        self, *, count: int, crop: int, seed: int, columns: Sequence[str], tokenizer: TokenizerInfo, decode: Decode
    ) -> DocumentCrops:
        """The first `crop` tokens of `count` documents drawn by `seed`; of all with text, where there are fewer.

        A character that the crop cuts in two is left out whole, so that bytes can be counted.

        Args:
            count: how many documents to draw.
            crop: tokens of each.
            seed: of the draw.
            columns: annotation columns to read.
            tokenizer: of the ids.
            decode: its text of ids.

        Raises:
            ShardError: a file does not fit its record, or holds ids that the tokenizer does not have; no annotator has
                a column (the choices are listed).
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
                raise ShardError(f"{self.output}: id {ids.max()} in a token file, of {tokenizer.num_ids} ids")
            whole, decoded = _whole_characters(ids[:crop], is_cut=len(ids) > crop, decode=decode)
            text.append(whole)
            num_bytes.append(len(decoded.encode()))
        found = {name: self._column(column, rows) for name, column in annotations.items()}
        return DocumentCrops(text=text, num_bytes=np.array(num_bytes, np.int64), columns=found)

    def _draw(self, count: int, *, seed: int) -> NumPyArray:
        """int64, ascending: rows of documents that have text. Reads the token files they are in, not all of them."""
        total, size = int(self._first_rows[-1]), 2 * count
        while True:
            size = min(size, total)
            drawn = np.random.default_rng(seed).choice(total, size, replace=False)
            kept = drawn[self._lengths(drawn) > 0][:count]
            if len(kept) == count or size == total:
                return np.sort(kept)
            size *= 4

    def _parts(self, rows: NumPyArray) -> Iterator[tuple[int, NumPyArray]]:
        """Which of `rows` [n] are in each partition that has any: its number, and indices into `rows`."""
        partitions = np.searchsorted(self._first_rows, rows, side="right") - 1
        for partition in np.unique(partitions):
            yield int(partition), np.flatnonzero(partitions == partition)

    def _lengths(self, rows: NumPyArray) -> NumPyArray:
        """int64 [n]: tokens of the documents at `rows`, in any order."""
        lengths = np.zeros(len(rows), np.int64)
        for partition, index in self._parts(rows):
            local, (offsets, _) = rows[index] - self._first_rows[partition], self._tokens(partition)
            lengths[index] = offsets[local + 1] - offsets[local]
        return lengths

    def _texts(self, rows: NumPyArray) -> Iterator[NumPyArray]:
        """The ids of the documents at ascending `rows`, which have some; views of the mapped files."""
        for partition, index in self._parts(rows):
            offsets, chunks = self._tokens(partition)
            firsts = np.cumsum([0, *map(len, chunks)])
            for row in rows[index] - self._first_rows[partition]:
                chunk = int(np.searchsorted(firsts, offsets[row], side="right")) - 1
                yield chunks[chunk][offsets[row] - firsts[chunk] : offsets[row + 1] - firsts[chunk]]

    def _tokens(self, partition: int) -> tuple[NumPyArray, list[NumPyArray]]:
        """Offsets of a partition's documents, int64 [num_documents + 1], into the ids of all chunks."""
        if partition not in self._opened:
            self._opened[partition] = _token_lists(checked_path(self.output, self._records[partition]))
        return self._opened[partition]

    def _column(self, column: AnnotationColumn, rows: NumPyArray) -> pa.Array:
        """An annotation of the documents at ascending `rows`, [n]."""
        parts = []
        for partition, index in self._parts(rows):
            record = self._records[partition]
            values = column.read(record.partition)
            if len(values) != record.rows:
                raise ShardError(
                    f"{self.output}: annotator {column.annotator!r} has {len(values)} rows on partition "
                    f"{record.partition}, of {record.rows} documents"
                )
            parts.append(values.take(pa.array(rows[index] - self._first_rows[partition])).combine_chunks())
        return pa.concat_arrays(parts)


def _whole_characters(ids: NumPyArray, *, is_cut: bool, decode: Decode) -> tuple[NumPyArray, str]:
    """`ids` without the beginning of a character that ends behind them, and their text."""
    text = decode(ids)
    if not is_cut or not text.endswith("\ufffd"):
        return ids, text
    for end in range(len(ids) - 1, max(len(ids) - 1 - _CUT_TOKENS, 0), -1):
        shorter = decode(ids[:end])
        if not shorter.endswith("\ufffd"):
            return ids[:end], shorter
    return ids, text


def _token_lists(path: Path) -> tuple[NumPyArray, list[NumPyArray]]:
    table = read_table(path)
    if "input_ids" not in table.column_names or not pa.types.is_list(table.schema.field("input_ids").type):
        raise ShardError(f"{path}: not a token file: it has no lists input_ids")
    return list_chunks(table.column("input_ids"))
