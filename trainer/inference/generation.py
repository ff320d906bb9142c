"""`colophon generate`: a model writes on, conditioned on metadata, and guided by it.

Guidance follows "URLs Help, Topics Guide" (arXiv 2505.16570): logits(empty) + g x (logits(context) - logits(empty)),
where `empty` has the empty wrapper before the text. g = 0 is free, 1 conditioned, above 1 guided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import AppendLayout
from colophon.shards.metadata import Encoder
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.kv_cache import Reader
from colophon.trainer.inference.sampling import Sampler, SamplingSettings
from colophon.trainer.inference.trained_model import TrainedModel

DEFAULT_TOKENS = 100
Context: TypeAlias = Literal["none", "empty", "meta", "meta_tokens"]
_OF_POSITION: dict[str, tuple[Context, ...]] = {
    "plain": ("none",),
    "prepend": ("empty", "meta", "none"),
    "append": ("none",),
    "meta_tokens": ("meta_tokens", "empty", "none"),
}
"""What may stand before a text, by the layout's position; the first is the default where no metadata is given."""


def context_name(name: str) -> Context:
    """The context that `name` says.

    Raises:
        TrainerError: there is none of the name; the choices are listed.
    """
    found = [context for context in get_args(Context) if context == name]
    if not found:
        raise TrainerError(f"unknown condition {name!r}; available: {', '.join(get_args(Context))}")
    chosen: Context = found[0]
    return chosen


def context_prefix(
    layout: TrainedLayout,
    *,
    context: Context | None,
    metadata: Mapping[str, str],
    encoder: Encoder,
    report: Callable[[str], None] = lambda line: None,
) -> list[int]:
    """Ids before the prompt.

    Args:
        layout: of the model.
        context: what stands there. None: the metadata if any is given, else what the layout has: an empty wrapper,
            meta tokens or nothing.
        metadata: values of the layout's fields; those left out are written as nothing, as for a document without them.
        encoder: the recipe's tokenizer.
        report: gets a line where metadata is cut to the layout's budget, as packing cuts it.

    Raises:
        TrainerError: a context or a field that the layout does not have, or metadata without a use.
    """
    known = _OF_POSITION[layout.layout.position]
    fields = layout.layout.fields if layout.reads_metadata else ()
    unknown = [name for name in metadata if name not in fields]
    if unknown:
        raise TrainerError(
            f"layout {layout.name!r} has no metadata field {unknown[0]!r} before a text; "
            f"available: {', '.join(fields) or 'none'}"
        )
    chosen = context or ("meta" if metadata else known[0])
    if chosen not in known:
        raise TrainerError(f"layout {layout.name!r} has no context {chosen!r}; available: {', '.join(known)}")
    if (chosen == "meta") != bool(metadata):
        raise TrainerError(f"context {chosen!r} {'needs' if chosen == 'meta' else 'has no place for'} metadata")
    if chosen == "meta":
        columns = {name: pa.array([metadata.get(name)], pa.string()) for name in fields}
        return layout.prefix(layout.metadata(columns, num_documents=1, encoder=encoder, report=report)[0])
    return layout.prefix({"none": None, "empty": (), "meta_tokens": layout.meta_tokens}[chosen])


def generate(
    trained: TrainedModel,
    layout: TrainedLayout,
    *,
    prefix: Sequence[int],
    prompt: Sequence[int],
    settings: SamplingSettings,
    text_ids: NumPyArray | None = None,
) -> Iterator[list[int | None]]:
    """The samples' next tokens, step by step; None where a sample has ended. Ends when all have.

    What cannot be is refused at once, before the first step is asked for. No special id is ever drawn but eos, which
    ends a sample; in a layout with metadata behind the text, boc ends it too.

    Args:
        trained: the model.
        layout: that it was trained on.
        prefix: ids before the prompt, bos first, see `context_prefix`.
        prompt: ids that samples begin with; none is fine.
        settings: how tokens are drawn. With `guidance` the model also reads the same text behind an empty wrapper.
        text_ids: bool [num_ids], ids that text can have. None: all but the special ones.

    Raises:
        TrainerError: guidance without a context to be guided by, or more tokens than the rows the model was trained on.
    """
    max_tokens = _room(layout, len(prefix) + len(prompt), asked=settings.max_tokens)
    starts = [[*start, *prompt] for start in _prefixes(layout, prefix, guided=settings.guidance is not None)]
    ends = _ends(layout)
    never = _never(trained, ends=ends, text_ids=text_ids)
    return _steps(trained, starts, settings=settings, max_tokens=max_tokens, ends=ends, never=never)


def _steps(
    trained: TrainedModel,
    starts: Sequence[Sequence[int]],
    *,
    settings: SamplingSettings,
    max_tokens: int,
    ends: Set[int],
    never: Tensor,
) -> Iterator[list[int | None]]:
    readers = [Reader(trained, num_rows=settings.num_samples, capacity=len(start) + max_tokens) for start in starts]
    unread = [torch.tensor([start] * settings.num_samples, device=trained.device) for start in starts]
    samplers = [Sampler(settings, sample=i) for i in range(settings.num_samples)]
    ended = [False] * settings.num_samples
    for _ in range(max_tokens):
        logits = [reader.read(ids) for reader, ids in zip(readers, unread, strict=True)]
        rows = guided(logits, settings.guidance).index_fill(-1, never, float("-inf")).cpu().numpy()
        drawn = [sampler.draw(row) for sampler, row in zip(samplers, rows, strict=True)]
        ended = [was or token in ends for was, token in zip(ended, drawn, strict=True)]
        if all(ended):
            return
        yield [None if has else token for has, token in zip(ended, drawn, strict=True)]
        unread = [torch.tensor(drawn, device=trained.device)[:, None]] * len(readers)


def guided(logits: Sequence[Tensor], guidance: float | None) -> Tensor:
    """Logits of the one context, or of the second guided from the first; exactly one of them at guidance 0 and 1.

    Where an id is impossible in both, the result is no number.
    """
    if guidance is None:
        return logits[0]
    empty, context = logits
    return torch.lerp(empty, context, guidance)


def _prefixes(layout: TrainedLayout, prefix: Sequence[int], *, guided: bool) -> list[Sequence[int]]:
    """The context's, after the empty wrapper's where it guides."""
    if not guided:
        return [prefix]
    empty = layout.prefix(())
    if len(prefix) <= len(empty):
        raise TrainerError("guidance goes from the empty wrapper to a context: give metadata, or use meta tokens")
    return [empty, prefix]


def _room(layout: TrainedLayout, num_read: int, *, asked: int | None) -> int:
    """Tokens to draw. The last one is not read, so a row may have one more than the model's inputs."""
    room = layout.sequence_length + 1 - num_read
    if room < (asked or 1):
        raise TrainerError(
            f"context and prompt have {num_read} tokens; the model was trained on rows of {layout.sequence_length}, "
            f"which leaves {max(room, 0)} to generate"
        )
    return min(DEFAULT_TOKENS, room) if asked is None else asked


def _ends(layout: TrainedLayout) -> set[int]:
    special = layout.special
    return {special.eos, special.boc} if isinstance(layout.layout, AppendLayout) else {special.eos}


def _never(trained: TrainedModel, *, ends: set[int], text_ids: NumPyArray | None) -> Tensor:
    """int64: ids that are never drawn. What is impossible is among them, since guidance makes it no number."""
    special = trained.tokenizer.special
    allowed = np.ones(trained.tokenizer.num_ids, bool) if text_ids is None else text_ids.copy()
    allowed[[special.bos, special.pad, special.boc, special.eoc, *special.meta]] = False
    allowed[list(ends)] = True
    never = torch.from_numpy(np.flatnonzero(~allowed)).to(trained.device)
    return torch.cat([never, trained.model.impossible_ids])
