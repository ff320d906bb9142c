"""Generation from a trained model, conditioned on metadata and optionally guided by it.

Guidance follows "URLs Help, Topics Guide" (arXiv 2505.16570): logits(empty) + g x (logits(context) - logits(empty)),
where `empty` has the empty wrapper before the text. g = 0 ignores the context, 1 is conditioned, above 1 is guided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import AppendLayout, PrependLayout
from colophon.shards.metadata import TextEncoder
from colophon.shards.templates import template_of
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.kv_cache import CachedDecoder
from colophon.trainer.inference.sampling import Sampler, SamplingSettings
from colophon.trainer.inference.trained_model import TrainedModel

DEFAULT_TOKENS = 100
GenerationContext: TypeAlias = Literal["none", "empty", "meta", "meta_tokens"]
_CONTEXTS_BY_POSITION: dict[str, tuple[GenerationContext, ...]] = {
    "plain": ("none",),
    "prepend": ("empty", "meta", "none"),
    "append": ("none",),
    "meta_tokens": ("meta_tokens", "empty", "none"),
}
"""The contexts of each position of a layout; the first is the default where no metadata is given."""


def context_name(name: str) -> GenerationContext:
    """The context called `name`.

    Raises:
        TrainerError: the name is unknown; the choices are listed.
    """
    known: tuple[GenerationContext, ...] = get_args(GenerationContext)
    for context in known:
        if context == name:
            return context
    raise TrainerError(f"unknown condition {name!r}; available: {', '.join(known)}")


def context_prefix(
    layout: TrainedLayout,
    *,
    context: GenerationContext | None,
    metadata: Mapping[str, str],
    encoder: TextEncoder,
    report: Callable[[str], None] = lambda line: None,
) -> list[int]:
    """Ids before the prompt.

    Args:
        layout: the model's.
        context: the kind of context. None: the metadata if any is given, else the layout's default: an empty wrapper,
            meta tokens or bos alone.
        metadata: values of the layout's fields, numbers and dates as text; a missing field is written as nothing, as
            for a document without it.
        encoder: the recipe's tokenizer.
        report: receives a line if metadata is cut to the layout's budget, as in packing.

    Raises:
        TrainerError: the layout has no such context or field, a value does not have the type that the template
            formats, or metadata is given without a use or is missing.
    """
    known = _CONTEXTS_BY_POSITION[layout.layout.position]
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
        problem = f"needs metadata: {', '.join(fields)}" if chosen == "meta" else "has no place for metadata"
        raise TrainerError(f"context {chosen!r} {problem}")
    if chosen == "meta":
        columns = {name: _column(layout, name, metadata.get(name)) for name in fields}
        return layout.prefix(layout.metadata(columns, num_documents=1, encoder=encoder, report=report)[0])
    return layout.prefix({"none": None, "empty": (), "meta_tokens": layout.meta_tokens}[chosen])


def _column(layout: TrainedLayout, name: str, text: str | None) -> pa.Array:
    assert isinstance(layout.layout, PrependLayout)  # reads_metadata
    try:
        return template_of(layout.layout.template).column_of_text(name, text)
    except ValueError as error:
        raise TrainerError(f"layout {layout.name!r}: {error}") from None


def generate(
    trained: TrainedModel,
    layout: TrainedLayout,
    *,
    prefix: Sequence[int],
    prompt: Sequence[int],
    settings: SamplingSettings,
    text_ids: NumPyArray | None = None,
) -> Iterator[list[int | None]]:
    """Yield the next token of each sample, step by step; None for a sample that has ended. Ends when all have.

    Errors are raised by the call itself, not by the first step. The only special id that can be drawn is eos, which
    ends a sample; in a layout with metadata after the text, boc ends it too.

    Args:
        trained: the model.
        layout: the one that it was trained on.
        prefix: ids before the prompt, bos first, see `context_prefix`.
        prompt: ids at the start of every sample; may be empty.
        settings: how tokens are drawn. With `guidance` the model also reads the same text after an empty wrapper.
        text_ids: bool [num_ids], ids that text can have. None: all but the special ones.

    Raises:
        TrainerError: guidance without a context, or more tokens than a training row of the model holds.
    """
    max_tokens = _max_tokens(layout, len(prefix) + len(prompt), asked=settings.max_tokens)
    starts = [[*start, *prompt] for start in _prefixes(layout, prefix, guided=settings.guidance is not None)]
    end_ids = _end_ids(layout)
    forbidden_ids = _forbidden_ids(trained, end_ids=end_ids, text_ids=text_ids)
    return _steps(
        trained, starts, settings=settings, max_tokens=max_tokens, end_ids=end_ids, forbidden_ids=forbidden_ids
    )


def _steps(
    trained: TrainedModel,
    starts: Sequence[Sequence[int]],
    *,
    settings: SamplingSettings,
    max_tokens: int,
    end_ids: Set[int],
    forbidden_ids: Tensor,
) -> Iterator[list[int | None]]:
    decoders = [
        CachedDecoder(trained, num_rows=settings.num_samples, capacity=len(start) + max_tokens) for start in starts
    ]
    unread = [torch.tensor([start] * settings.num_samples, device=trained.device) for start in starts]
    samplers = [Sampler(settings, sample=i) for i in range(settings.num_samples)]
    ended = [False] * settings.num_samples
    for _ in range(max_tokens):
        logits = [decoder.read(ids) for decoder, ids in zip(decoders, unread, strict=True)]
        rows = guided_logits(logits, settings.guidance).index_fill(-1, forbidden_ids, float("-inf")).cpu().numpy()
        drawn = [sampler.draw(row) for sampler, row in zip(samplers, rows, strict=True)]
        ended = [was or token in end_ids for was, token in zip(ended, drawn, strict=True)]
        if all(ended):
            return
        yield [None if has else token for has, token in zip(ended, drawn, strict=True)]
        unread = [torch.tensor(drawn, device=trained.device)[:, None]] * len(decoders)


def guided_logits(logits: Sequence[Tensor], guidance: float | None) -> Tensor:
    """The only logits, or the second ones guided away from the first; exactly one of the two at guidance 0 and 1.

    The result is NaN where an id is impossible in both.
    """
    if guidance is None:
        return logits[0]
    empty, context = logits
    return torch.lerp(empty, context, guidance)


def _prefixes(layout: TrainedLayout, prefix: Sequence[int], *, guided: bool) -> list[Sequence[int]]:
    """The context's prefix; with guidance, the empty wrapper's before it."""
    if not guided:
        return [prefix]
    empty = layout.prefix(())
    if len(prefix) <= len(empty):
        raise TrainerError("guidance goes from the empty wrapper to a context: give metadata, or use meta tokens")
    return [empty, prefix]


def _max_tokens(layout: TrainedLayout, num_read: int, *, asked: int | None) -> int:
    """How many tokens to draw. The last one is never read, so a row has room for one more than the model's inputs."""
    room = layout.sequence_length + 1 - num_read
    if room < (asked or 1):
        raise TrainerError(
            f"context and prompt have {num_read} tokens; the model was trained on rows of {layout.sequence_length}, "
            f"which leaves {max(room, 0)} to generate"
        )
    return min(DEFAULT_TOKENS, room) if asked is None else asked


def _end_ids(layout: TrainedLayout) -> set[int]:
    special = layout.special
    return {special.eos, special.boc} if isinstance(layout.layout, AppendLayout) else {special.eos}


def _forbidden_ids(trained: TrainedModel, *, end_ids: set[int], text_ids: NumPyArray | None) -> Tensor:
    """int64: ids that are never drawn. Impossible ids are among them, since guidance turns their logits into NaN."""
    special = trained.tokenizer.special
    allowed = np.ones(trained.tokenizer.num_ids, bool) if text_ids is None else text_ids.copy()
    allowed[[special.bos, special.pad, special.boc, special.eoc, *special.meta]] = False
    allowed[list(end_ids)] = True
    forbidden = torch.from_numpy(np.flatnonzero(~allowed)).to(trained.device)
    return torch.cat([forbidden, trained.model.impossible_ids])
