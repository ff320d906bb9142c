"""Likelihoods of continuations and whole texts under a trained model that reads a given context.

Every row is [prefix, text]. The prefix is bos and the context before the text (`trainer.inference.contexts`), as ids.
A text is tokenized alone, so its ids do not depend on the prefix.
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
from colophon.trainer.inference.generation import context_name, context_prefix, generate
from colophon.trainer.inference.sampling import SamplingSettings, TextStream
from colophon.trainer.inference.trained_model import TrainedModel

ContextSetting: TypeAlias = str | Mapping[str, str]
_META = "meta:"


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """The likelihood of a continuation."""

    log_likelihood: float
    """Nats, summed over its tokens."""
    is_greedy: bool
    """Whether each of its tokens is the likeliest."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    ids: list[int]
    """Prefix, context and continuation."""
    num_scored: int
    """Ids at the end that are scored."""


def prefix_of(
    setting: ContextSetting,
    *,
    layout: TrainedLayout,
    tokenizer: Tokenizer,
    report: Callable[[str], None] = lambda line: None,
) -> list[int]:
    """Ids that a context setting puts before every text.

    Args:
        setting: `none` (bos alone), `empty` (an empty wrapper) or `meta_tokens`; `meta:field=value` for metadata with
            one field of the layout; `meta:` and any other text for the metadata string itself; or a mapping of fields.
        layout: the one that the model was trained on.
        tokenizer: the model's.
        report: receives a line if metadata is cut to the layout's budget, as in packing.

    Raises:
        TrainerError: the layout has no such context; the choices are listed.
    """
    if not isinstance(setting, str):
        return context_prefix(layout, context="meta", metadata=setting, encoder=tokenizer, report=report)
    if not setting.startswith(_META):
        return context_prefix(layout, context=context_name(setting), metadata={}, encoder=tokenizer)
    given = setting.removeprefix(_META)
    field, equals, value = given.partition("=")
    if equals and field in layout.layout.fields:
        return context_prefix(layout, context="meta", metadata={field: value}, encoder=tokenizer, report=report)
    if not isinstance(layout.layout, PrependLayout):
        raise TrainerError(f"layout {layout.name!r} has no metadata before a text, so {setting!r} is no context of it")
    (ids,) = _encode(tokenizer, [given])
    kept = ids[: layout.layout.max_metadata_tokens]
    layout.report_cut(len(ids) - len(kept), report)
    return layout.prefix(kept)


class LikelihoodScorer:
    """Scores and continues texts with a trained model that reads one context before each of them."""

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
        """Encode the context.

        Args:
            trained: the model.
            layout: the one that the model was trained on.
            tokenizer: the one that encoded its shards.
            context: see `prefix_of`.
            batch_size: rows at a time.
            max_length: inputs of a row; None: as in training.
            report: see `prefix_of`.

        Raises:
            TrainerError: the layout has no such context, or a row has no room for text after it.
        """
        self.layout, self.tokenizer, self._trained = layout, tokenizer, trained
        self.prefix = prefix_of(context, layout=layout, tokenizer=tokenizer, report=report)
        self.batch_size = batch_size
        self.max_length = layout.sequence_length if max_length is None else max_length
        self.max_text_tokens = self.max_length + 1 - len(self.prefix)
        """Text ids in a row; the last one is only a label."""
        self.num_cut = 0
        """Contexts and prompts that were too long for a row and were cut at their start."""
        if self.max_text_tokens < 2:
            raise TrainerError(f"the context has {len(self.prefix)} tokens, and rows have {self.max_length}")

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """The likelihood of each continuation after its context, from (context, continuation); contexts may be empty.

        As in lm_eval, a continuation has the ids of the joint text beyond as many as the context has alone, where
        white space at the context's end does not count. If none are left (`th` and `e` are one token), the
        continuation is tokenized alone. A context too long for a row is cut at its start; the prefix is kept.

        Raises:
            TrainerError: a continuation does not fit in a row.
        """
        contexts = _encode(self.tokenizer, [context.rstrip() for context, _ in pairs])
        wholes = _encode(self.tokenizer, [context + continuation for context, continuation in pairs])
        alone = _encode(self.tokenizer, [continuation for _, continuation in pairs])
        rows = zip(contexts, wholes, alone, strict=True)
        return self._score([self._row(context, whole[len(context) :] or own) for context, whole, own in rows])

    def text_likelihoods(self, texts: Sequence[str]) -> list[float]:
        """Log-likelihood of each whole text in nats, every token scored once.

        A text longer than a row is read in several rows, each after the prefix. The last row starts earlier, with
        tokens that are read and not scored, as lm_eval's rolling windows do.
        """
        rows = [list(self._windows(ids)) for ids in _encode(self.tokenizer, texts)]
        scores = iter(self._score([row for of_text in rows for row in of_text]))
        return [sum((next(scores).log_likelihood for _ in of_text), 0.0) for of_text in rows]

    def generate(self, prompt: str, *, settings: SamplingSettings, until: Sequence[str] = ()) -> str:
        """The model's continuation of `prompt`, up to eos or to the first string of `until`, which is excluded.

        Raises:
            TrainerError: more tokens than fit in a row.
        """
        wanted = settings.max_tokens or 1
        if wanted >= self.max_text_tokens:
            raise TrainerError(
                f"{wanted} tokens to generate; rows hold {self.max_text_tokens} beside the context: set max_gen_toks"
            )
        ids = _encode(self.tokenizer, [prompt])[0]
        kept = ids[-(self.max_text_tokens - wanted) :]
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
        if len(continuation) > self.max_text_tokens:
            raise TrainerError(
                f"a continuation of {len(continuation)} tokens; rows hold {self.max_text_tokens} of text"
            )
        kept = context[max(0, len(context) + len(continuation) - self.max_text_tokens) :]
        self.num_cut += len(kept) < len(context)
        return _Row(ids=[*self.prefix, *kept, *continuation], num_scored=len(continuation))

    def _windows(self, ids: list[int]) -> Iterator[_Row]:
        """Rows that score each id once: 10 ids with room for 4 give [0:4], [4:8] and [6:10], which scores 2."""
        for start in range(0, len(ids), self.max_text_tokens):
            end = min(start + self.max_text_tokens, len(ids))
            read_from = max(0, end - self.max_text_tokens)
            yield _Row(ids=[*self.prefix, *ids[read_from:end]], num_scored=end - start)

    def _score(self, rows: Sequence[_Row]) -> list[Likelihood]:
        """Score in batches of similar length, the longest first, so that a lack of memory shows at once."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids), reverse=True)
        found: dict[int, Likelihood] = {}
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            found |= zip(batch, self._score_batch([rows[i] for i in batch]), strict=True)
        return [found[i] for i in range(len(rows))]

    @torch.no_grad()
    def _score_batch(self, rows: Sequence[_Row]) -> list[Likelihood]:
        length = max(len(row.ids) for row in rows) - 1
        # Padding is after all that a token may see.
        inputs = torch.zeros((len(rows), max(length, 1)), dtype=torch.int64)
        for padded, row in zip(inputs, rows, strict=True):
            padded[: len(row.ids) - 1] = torch.tensor(row.ids[:-1])
        states = self._trained.hidden_states(inputs.to(self._trained.device))
        return [self._likelihood(states[i], row) for i, row in enumerate(rows)]

    def _likelihood(self, states: torch.Tensor, row: _Row) -> Likelihood:
        """The likelihood of one row's continuation from its last states, [L, hidden_size]."""
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
