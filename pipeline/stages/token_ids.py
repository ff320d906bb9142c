"""The ids of a partition's texts, encoded once for all that read them: the token file, and annotators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from colophon.annotators.base import INPUT_IDS, TextRewriter
from colophon.annotators.plugin_files import ImportsPlugins, PluginFile
from colophon.pipeline.errors import InputError
from colophon.pipeline.stages.annotation import load_annotator
from colophon.pipeline.stages.tasks import Task
from colophon.pipeline.stages.timing import Clock
from colophon.pipeline.stages.vocabulary import PlannedTokenizer
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.run_files import damage_as_error
from colophon.shards.arrow_files import read_table
from colophon.shards.outputs import TOKENS
from colophon.shards.tokenizer.tokenizer import Tokenizer

WithIds = Callable[[pa.RecordBatch, int], pa.RecordBatch]
"""Returns a batch, which begins at that row of its partition, with the column `input_ids`: list<uint16|uint32>."""
_REWRITTEN = "rewritten text"


@dataclass(frozen=True)
class TokenEncoding(ImportsPlugins):
    """How texts become ids: rewritten by annotators, one after the other, and encoded."""

    tokenizer: PlannedTokenizer
    rewriters: tuple[TextRewriter, ...] = ()
    """They read the text alone, so that ids do not depend on whether annotations exist."""
    plugins: tuple[PluginFile, ...] = ()
    """The files that define some of them."""


class TokenSource:
    """The tokenizer of one process, loaded when it is first needed."""

    def __init__(self, store: Store, encoding: TokenEncoding | None) -> None:
        self._store = store
        self._encoding = encoding
        self._tokenizer: Tokenizer | None = None

    def tokenizer(self, clock: Clock) -> Tokenizer:
        """The tokenizer; loading it is measured with `clock`.

        Raises:
            NodeError: see `PlannedTokenizer.load`.
        """
        if self._tokenizer is None:
            assert self._encoding is not None  # `resolve` refuses a recipe that needs a tokenizer and has none
            with clock.measure("load"):
                self._tokenizer = self._encoding.tokenizer.load()
                for rewriter in self._encoding.rewriters:
                    load_annotator(rewriter)
                _ = self._tokenizer.engine  # built on first use: its time counts as loading, not as tokenizing
        return self._tokenizer

    def ids_of(self, task: Task, *, clock: Clock, stack: ExitStack) -> WithIds:
        """The ids of a partition's batches: those in its token file if that is up to date, else encoded."""
        stored = task.upstream.get(TOKENS)
        if stored is not None and TOKENS not in task.outputs:
            path = stack.enter_context(self._store.files.local_copy(stored.path))
            with clock.measure("read"), damage_as_error(f"{self._store.root}/{stored.path}"):
                ids = read_table(path).column(INPUT_IDS).combine_chunks()
            return lambda batch, first_row: batch.append_column(
                INPUT_IDS, _rows(ids, first_row, batch.num_rows, path=stored.path)
            )
        return self.encoder(clock)

    def encoder(self, clock: Clock) -> WithIds:
        """The ids of any batches, encoded."""
        tokenizer = self.tokenizer(clock)
        rewriters = self._encoding.rewriters if self._encoding is not None else ()

        def encode(batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
            if rewriters:
                with clock.measure("annotate"):
                    batch = batch.append_column(_REWRITTEN, rewritten(batch.column("text"), rewriters))
            with clock.measure("tokenize"):
                return batch.append_column(INPUT_IDS, tokenizer.encode_batch(encoded_texts(batch)))

        return encode


def rewritten(texts: pa.Array, rewriters: Sequence[TextRewriter]) -> pa.Array:
    """The texts as all rewriters leave them, one after the other."""
    for rewriter in rewriters:
        texts = rewriter.rewrite(texts)
    return texts


def encoded_texts(batch: pa.RecordBatch) -> pa.Array:
    """The texts whose ids a batch has: the rewritten ones if there are any."""
    return batch.column(_REWRITTEN if is_rewritten(batch) else "text")


def is_rewritten(batch: pa.RecordBatch) -> bool:
    """Whether the texts of a batch were rewritten before they were encoded."""
    return _REWRITTEN in batch.schema.names


def _rows(ids: pa.Array, first_row: int, num_rows: int, *, path: str) -> pa.Array:
    rows = ids.slice(first_row, num_rows)
    if len(rows) != num_rows:
        raise InputError(f"{path} has {len(ids)} rows; its partition has more")
    return rows
