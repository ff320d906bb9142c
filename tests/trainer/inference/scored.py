"""Contexts of small models, and likelihoods computed by hand."""

from __future__ import annotations

from typing import Any

import torch

from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.inference.likelihood import ContextSetting, LikelihoodScorer
from colophon.trainer.inference.trained_model import TrainedModel
from tests.trainer.models import PREPEND, layout_for

META_TOKENS = {"position": "meta_tokens", "num_meta_tokens": 2}
CONTEXTS: dict[str, tuple[dict[str, Any], ContextSetting, str]] = {
    "none": (PREPEND, "none", ""),
    "empty": (PREPEND, "empty", "boc eoc"),
    "a field": (PREPEND, "meta:topic=art", "boc 'art ' eoc"),
    "a string": (PREPEND, "meta:https://a.b/?c=d", "boc 'https:' eoc"),
    "fields": (PREPEND, {"topic": "art", "level": "3"}, "boc 'art 3' eoc"),
    "meta_tokens": (META_TOKENS, "meta_tokens", "boc meta1 meta2 eoc"),
}


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text without special tokens."""
    return [int(i) for i in tokenizer.backend.encode(text)]


def expected_prefix(tokenizer: Tokenizer, described: str) -> list[int]:
    """Bos and the ids of a description such as `boc 'art 3' eoc`."""
    special = tokenizer.special
    named = {"boc": [special.boc], "eoc": [special.eoc], "meta1": [special.meta[0]], "meta2": [special.meta[1]]}
    words = [word for k, part in enumerate(described.split("'")) for word in ([f"'{part}"] if k % 2 else part.split())]
    ids = [named[w] if w in named else ids_of(tokenizer, w.removeprefix("'")) for w in words]
    return [special.bos, *(i for some in ids for i in some)]


def by_hand(
    trained: TrainedModel, prefix: list[int], context: list[int], continuation: list[int]
) -> tuple[float, bool]:
    """Log-likelihood and greediness of one row, token by token."""
    ids = [*prefix, *context]
    total, greedy = 0.0, True
    for token in continuation:
        logits = trained.logits(torch.tensor([ids]))[0, -1].double()
        total += float(logits[token] - logits.logsumexp(0))
        greedy &= int(logits.argmax()) == token
        ids.append(token)
    return total, greedy


def scorer_of(trained: TrainedModel, tokenizer: Tokenizer, case: str, **settings: Any) -> LikelihoodScorer:
    """A scorer with one of `CONTEXTS`."""
    layout, context, _ = CONTEXTS[case]
    return LikelihoodScorer(
        trained, layout=layout_for(tokenizer, layout), tokenizer=tokenizer, context=context, **settings
    )
