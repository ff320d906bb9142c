"""Likelihoods of continuations and whole texts under a trained model that reads a given context.

Every row is [prefix, text]: the prefix is bos and what the model reads before a text (`trainer.inference.contexts`), as
ids. A text is tokenized alone, so it has the same ids whatever stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import pyarrow as pa
import torch
from torch.nn.functional import log_softmax

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import PrependLayout
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.generation import Context, context_name, context_prefix, generate
from colophon.trainer.inference.sampling import SamplingSettings, TextStream
from colophon.trainer.inference.trained_model import TrainedModel

ContextSetting: TypeAlias = str | Mapping[str, str]
_META = "meta:"


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """What a model says of a continuation."""

    log_likelihood: float
    """Nats, summed over its tokens."""
    is_greedy: bool
    """Whether each of its tokens is the likeliest."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    ids: list[int]
    """Prefix, context and continuation."""
    num_scored: int
    """Ids at the end that are asked for."""


def prefix_of(
    setting: ContextSetting,
    *,
    layout: TrainedLayout,
    tokenizer: Tokenizer,
    report: Callable[[str], None] = lambda line: None,
) -> list[int]:
    """Ids that a context setting puts before every text.

    Args:
        setting: `none` (bos alone), `empty` (an empty wrapper), `meta_tokens`; `meta:field=value` for metadata of which
            one field of the layout is known, `meta:` and any other text for the metadata string itself; or a table of
            fields.
        layout: that the model was trained on.
        tokenizer: of the model.
        report: gets a line where metadata is cut to the layout's budget, as packing cuts it.

    Raises:
        TrainerError: a context that the layout does not have; the choices are listed.
    """
    if not isinstance(setting, str):
        return context_prefix(layout, context="meta", metadata=setting, encoder=tokenizer, report=report)
    if not setting.startswith(_META):
        known: Context = context_name(setting)
        return context_prefix(layout, context=known, metadata={}, encoder=tokenizer)
    given = setting.removeprefix(_META)
    field, equals, value = given.partition("=")
    if equals and field in layout.layout.fields:
        return context_prefix(layout, context="meta", metadata={field: value}, encoder=tokenizer, report=report)
    if not isinstance(layout.layout, PrependLayout):
        raise TrainerError(f"layout {layout.name!r} has no metadata before a text, so {setting!r} cannot stand there")
    (ids,) = _encode(tokenizer, [given])
    kept = ids[: layout.layout.max_metadata_tokens]
    layout.tell_cut(len(ids) - len(kept), report)
    return layout.prefix(kept)


class Scorer:
    """A trained model with a context before every text."""

    def __init__(
        self,
        trained: TrainedModel,
        *,
        layout: TrainedLayout,
        tokenizer: Tokenizer,
        context: ContextSetting = "none",
        batch_size: int = 8,
        max_length: int | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Make the prefix.

        Args:
            trained: the model.
            layout: that it was trained on.
            tokenizer: that made its shards.
            context: see `prefix_of`.
            batch_size: rows at a time.
            max_length: inputs of a row; None: as in training.
            report: see `prefix_of`.

        Raises:
            TrainerError: no such context, or no room for text behind it.
        """
        self.layout, self.tokenizer, self._trained = layout, tokenizer, trained
        self.prefix = prefix_of(context, layout=layout, tokenizer=tokenizer, report=report)
        self.batch_size = batch_size
        self.max_length = layout.sequence_length if max_length is None else max_length
        self.room = self.max_length + 1 - len(self.prefix)
        """Ids of text in a row; the last one is a label alone."""
        self.num_cut = 0
        """Contexts that lost their beginning, since they were too long."""
        if self.room < 2:
            raise TrainerError(f"the context has {len(self.prefix)} tokens, and rows have {self.max_length}")

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """Of each continuation behind its context, (context, continuation); contexts may be empty.

        As in lm_eval a continuation has the ids that the joint text has beyond as many as its context has alone, where
        white space at the context's end does not count. Where none are left (`th` and `e` are one token), it is
        tokenized alone. A context too long for the row loses its beginning; the prefix stays.

        Raises:
            TrainerError: a continuation that does not fit a row.
        """
        contexts = _encode(self.tokenizer, [context.rstrip() for context, _ in pairs])
        wholes = _encode(self.tokenizer, [context + continuation for context, continuation in pairs])
        alone = _encode(self.tokenizer, [continuation for _, continuation in pairs])
        rows = zip(contexts, wholes, alone, strict=True)
        return self._score([self._row(context, whole[len(context) :] or own) for context, whole, own in rows])

    def text_likelihoods(self, texts: Sequence[str]) -> list[float]:
        """Nats of each whole text, every token once. A text longer than a row is read in rows behind the prefix; the
        last one begins earlier, with tokens that are read and not scored: so are lm_eval's rolling windows."""
        rows = [list(self._windows(ids)) for ids in _encode(self.tokenizer, texts)]
        scores = iter(self._score([row for of_text in rows for row in of_text]))
        return [sum((next(scores).log_likelihood for _ in of_text), 0.0) for of_text in rows]

    def generate(self, prompt: str, *, settings: SamplingSettings, until: Sequence[str] = ()) -> str:
        """How the model goes on after `prompt`, up to eos or the first string of `until`, which is left out.

        Raises:
            TrainerError: more tokens than a row holds.
        """
        wanted = settings.max_tokens or 1
        if wanted >= self.room:
            raise TrainerError(
                f"{wanted} tokens to generate; rows hold {self.room} beside the context: set max_gen_toks"
            )
        ids = _encode(self.tokenizer, [prompt])[0]
        kept = ids[-(self.room - wanted) :]
        self.num_cut += len(kept) < len(ids)
        steps = generate(
            self._trained,
            self.layout,
            prefix=self.prefix,
            prompt=kept,
            settings=settings,
            text_ids=self._text_ids,
        )
        stream, text = TextStream(self.tokenizer.decode), ""
        for (token,) in steps:
            text += stream.push(token) if token is not None else ""
            if any(stop in text for stop in until):
                break
        else:
            text += stream.finish()
        return text[: min((text.index(stop) for stop in until if stop in text), default=len(text))]

    @cached_property
    def _text_ids(self) -> NumPyArray:
        return self.tokenizer.text_ids()

    def _row(self, context: list[int], continuation: list[int]) -> _Row:
        if len(continuation) > self.room:
            raise TrainerError(f"a continuation of {len(continuation)} tokens; rows hold {self.room} of text")
        kept = context[max(0, len(context) + len(continuation) - self.room) :]
        self.num_cut += len(kept) < len(context)
        return _Row(ids=[*self.prefix, *kept, *continuation], num_scored=len(continuation))

    def _windows(self, ids: list[int]) -> Iterator[_Row]:
        for start in range(0, len(ids), self.room):
            end = min(start + self.room, len(ids))
            read_from = max(0, end - self.room)
            yield _Row(ids=[*self.prefix, *ids[read_from:end]], num_scored=end - start)

    def _score(self, rows: Sequence[_Row]) -> list[Likelihood]:
        """In batches of about equal lengths, the longest first: memory that runs out does so at once."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids), reverse=True)
        found: dict[int, Likelihood] = {}
        for first in range(0, len(order), self.batch_size):
            some = order[first : first + self.batch_size]
            found |= zip(some, self._score_batch([rows[i] for i in some]), strict=True)
        return [found[i] for i in range(len(rows))]

    @torch.no_grad()
    def _score_batch(self, rows: Sequence[_Row]) -> list[Likelihood]:
        length = max(len(row.ids) for row in rows) - 1
        # Padding stands behind all that a token may see.
        inputs = torch.zeros((len(rows), max(length, 1)), dtype=torch.int64)
        for padded, row in zip(inputs, rows, strict=True):
            padded[: len(row.ids) - 1] = torch.tensor(row.ids[:-1])
        states = self._trained.hidden_states(inputs.to(self._trained.device))
        return [self._likelihood(states[i], row) for i, row in enumerate(rows)]

    def _likelihood(self, states: torch.Tensor, row: _Row) -> Likelihood:
        """From the last states of one row, [L, hidden_size]."""
        end = len(row.ids) - 1
        labels = torch.tensor(row.ids[len(row.ids) - row.num_scored :], dtype=torch.int64, device=states.device)
        logits = self._trained.model.logits(states[end - row.num_scored : end])
        chosen = log_softmax(logits, dim=-1).gather(-1, labels[:, None])
        return Likelihood(
            log_likelihood=float(chosen.double().sum()), is_greedy=bool((logits.argmax(dim=-1) == labels).all())
        )


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer.encode_batch(pa.array(texts, pa.large_string())).to_pylist()
    return found
