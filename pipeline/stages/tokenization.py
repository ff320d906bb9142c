"""tokenize: write the ids of a partition's texts once, for every layout."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import INPUT_IDS
from colophon.pipeline.concurrency import WriteBehind
from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.stages.tasks import Task
from colophon.pipeline.stages.timing import Clock
from colophon.pipeline.stages.token_ids import TokenSource, encoded_texts, is_rewritten
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.publication import Finished
from colophon.shards.arrow_files import growing_table, read_table, tokens_table
from colophon.shards.outputs import TOKENS
from colophon.shards.schema import tokens_schema
from colophon.shards.tokenizer.losses import NOTES
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, TokenizerError, load_tokenizer


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer of a recipe, loaded once, on first use."""

    config: TokenizerConfig | None
    num_meta_tokens: int
    where: str
    """The recipe's name in errors."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            UsageError: the recipe has none, or it cannot be loaded.
        """
        if self.config is None:
            raise UsageError(f"{self.where}: [tokenizer] is required to tokenize and pack")
        try:
            return load_tokenizer(self.config, num_meta_tokens=self.num_meta_tokens)
        except TokenizerError as error:
            raise UsageError(f"{self.where}: tokenizer: {error}") from error

    @property
    def origin(self) -> tuple[str, ...]:
        """A line with the commit, for a tokenizer of the Hugging Face Hub; its default branch may move."""
        config = self.tokenizer.config
        return (f"tokenizer {self.tokenizer.name}: {config.name}",) if config.is_in_hub else ()

    def check_losses(self) -> tuple[str, ...]:
        """Lines about characters that the vocabulary changes, to be shown; none for one that changes nothing.

        Raises:
            UsageError: it loses text, and the recipe does not allow that.
        """
        losses = self.tokenizer.find_losses()
        notes = [f"tokenizer {self.tokenizer.name}: {NOTES[key]}" for key in losses.notes]
        if not losses.any:
            return tuple(notes)
        if self.config is None or not self.config.allow_lossy:
            raise UsageError(
                f"{self.where}: tokenizer: {self.tokenizer.name} {losses.describe()}. Choose a vocabulary with a token "
                "for every byte; or --allow-lossy ([tokenizer] allow_lossy = true) accepts and counts the losses"
            )
        return (f"tokenizer {self.tokenizer.name} {losses.describe()} (allow_lossy)",)


@dataclass(frozen=True)
class TokenizeStage:
    """The recipe's tokenizer over the text column."""

    store: Store
    needs: tuple[ColumnNeed, ...]

    @property
    def name(self) -> str:
        """The stage's name in progress and summaries."""
        return "tokenize"

    def start(self) -> TokenizeWorker:
        """A worker."""
        return TokenizeWorker(self)


class TokenizeWorker:
    """Begins the token files of one process."""

    def __init__(self, stage: TokenizeStage) -> None:
        self._stage = stage

    def open(self, task: Task, *, tokens: TokenSource, clock: Clock, stack: ExitStack) -> TokenSink | None:
        """Begin a file of tokens, loading the tokenizer for the first; None if the task does not want tokens."""
        if TOKENS not in task.outputs:
            return None
        return TokenSink(self._stage, task, tokens.tokenizer(clock), stack=stack)


class TokenSink:
    """Writes the ids of a partition's texts to one row-aligned file."""

    reads_ids = True

    def __init__(self, stage: TokenizeStage, task: Task, tokenizer: Tokenizer, *, stack: ExitStack) -> None:
        self._tokenizer = tokenizer
        self._fingerprint = task.outputs[TOKENS]
        self._counts = Counter({"tokens": 0, "documents_empty": 0})
        self._draft = stack.enter_context(
            stage.store.draft(output=TOKENS, partition=task.partition.name, suffix=TOKENS.suffix)
        )
        self._file = stack.enter_context(ExitStack())
        self._write = self._file.enter_context(growing_table(self._draft.path, tokens_schema(tokenizer.dtype)))
        self.needs = stage.needs
        self.notes = (f"tokenizer {tokenizer.name}: {tokenizer.engine}",)

    def take(self, batch: pa.RecordBatch, *, first_row: int, clock: Clock, later: WriteBehind) -> None:
        """Count the ids of a batch, and queue them."""
        with clock.measure("tokenize"):
            texts, input_ids = encoded_texts(batch), batch.column(INPUT_IDS)
            if is_rewritten(batch):
                changed = pc.sum(pc.not_equal(batch.column("text"), texts)).as_py() or 0
                self._counts.update({"documents_rewritten": changed})
            self._counts.update(self._tokenizer.count_losses(texts, input_ids))
            table = tokens_table(batch.column("id"), input_ids, dtype=self._tokenizer.dtype)
            self._counts.update(token_counts(table))
        later(partial(clock.call, "write", self._write, table))

    def finish(self, reader: PartitionReader, *, rows: int) -> tuple[Finished, ...]:
        """The file."""
        self._file.close()
        text_counts = {
            **reader.counts(need.name for need in self.needs),
            "text_bytes": reader.text_bytes,
            "texts_null": reader.texts_null,
            "texts_repaired": reader.texts_repaired,
        }
        content = reader.content
        finished = self._draft.finish(
            check=lambda path: _check_rows(path, rows),
            rows=rows,
            fingerprint=self._fingerprint,
            counts={**self._counts, **text_counts, "lines_bad": reader.excluded.count},
            problems=reader.problems,
            content={need.name: content[need.name] for need in self.needs},
        )
        return (finished,)


def token_counts(table: pa.Table) -> dict[str, int]:
    """The counts of a token file that its rows give."""
    lengths = pc.list_value_length(table.column(INPUT_IDS))
    return {
        "tokens": pc.sum(lengths).as_py() or 0,
        "documents_empty": int(np.count_nonzero(lengths.to_numpy() == 0)),
    }


def _check_rows(path: Path, rows: int) -> None:
    found = read_table(path).num_rows
    if found != rows:
        raise InputError(f"{path} has {found} rows; expected {rows}")
