"""tokenize: encode a partition's texts once, for every layout."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import TextRewriter
from colophon.annotators.plugin_files import ImportsPlugins, PluginFile
from colophon.pipeline.concurrency import WriteBehind
from colophon.pipeline.errors import InputError, UsageError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.stages.annotation import load_annotator
from colophon.pipeline.stages.tasks import Task
from colophon.pipeline.stages.timing import Clock
from colophon.pipeline.stages.vocabulary import load_planned_tokenizer
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
class TokenizeStage(ImportsPlugins):
    """The recipe's tokenizer over the text column."""

    store: Store
    tokenizer: TokenizerConfig
    num_meta_tokens: int
    tokenizer_sha256: str
    """The vocabulary with which the run was planned; see `Tokenizer.sha256`."""
    needs: tuple[ColumnNeed, ...]
    rewriters: tuple[TextRewriter, ...] = ()
    """The annotators whose replaced text is encoded, one after the other. They read the text alone, so that tokens do
    not depend on whether annotations exist."""
    plugins: tuple[PluginFile, ...] = ()
    """The files that define some of them."""

    @property
    def name(self) -> str:
        """The stage's name in progress and summaries."""
        return "tokenize"

    def start(self) -> TokenizeWorker:
        """A worker; the vocabulary is loaded when a task first needs it."""
        return TokenizeWorker(self)


class TokenizeWorker:
    """Holds the tokenizer of one process."""

    def __init__(self, stage: TokenizeStage) -> None:
        self._stage = stage
        self._tokenizer: Tokenizer | None = None

    def open(self, task: Task, *, clock: Clock, stack: ExitStack) -> TokenSink | None:
        """Begin a file of tokens, loading the tokenizer for the first; None if the task does not want tokens."""
        if TOKENS not in task.outputs:
            return None
        if self._tokenizer is None:
            with clock.measure("load"):
                self._tokenizer = load_planned_tokenizer(
                    self._stage.tokenizer,
                    num_meta_tokens=self._stage.num_meta_tokens,
                    sha256=self._stage.tokenizer_sha256,
                )
                for rewriter in self._stage.rewriters:
                    load_annotator(rewriter)
                _ = self._tokenizer.engine  # built on first use: its time counts as loading, not as tokenizing
        return TokenSink(self._stage, task, self._tokenizer, stack=stack)


class TokenSink:
    """Encodes a partition's texts and writes their ids to one row-aligned file."""

    def __init__(self, stage: TokenizeStage, task: Task, tokenizer: Tokenizer, *, stack: ExitStack) -> None:
        self._tokenizer = tokenizer
        self._rewriters = stage.rewriters
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
        """Encode the texts of a batch."""
        texts = batch.column("text")
        if self._rewriters:
            with clock.measure("annotate"):
                texts = self._rewritten(texts)
        with clock.measure("tokenize"):
            input_ids = self._tokenizer.encode_batch(texts)
            self._counts.update(self._tokenizer.count_losses(texts, input_ids))
            table = tokens_table(batch.column("id"), input_ids, dtype=self._tokenizer.dtype)
            self._counts.update(token_counts(table))
        later(partial(clock.call, "write", self._write, table))

    def _rewritten(self, texts: pa.Array) -> pa.Array:
        """The texts as all rewriters leave them; changed ones are counted."""
        replaced = texts
        for rewriter in self._rewriters:
            replaced = rewriter.rewrite(replaced)
        changed = pc.sum(pc.not_equal(texts, replaced)).as_py() or 0
        self._counts.update({"documents_rewritten": changed})
        return replaced

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
    lengths = pc.list_value_length(table.column("input_ids"))
    return {
        "tokens": pc.sum(lengths).as_py() or 0,
        "documents_empty": int(np.count_nonzero(lengths.to_numpy() == 0)),
    }


def _check_rows(path: Path, rows: int) -> None:
    found = read_table(path).num_rows
    if found != rows:
        raise InputError(f"{path} has {found} rows; expected {rows}")
