"""Hard texts, on which a fast engine is compared with the reference when a vocabulary is loaded.

Splitting goes wrong at the borders of patterns, so the texts have runs of each kind beside each other kind; merging
goes wrong for rare tokens, so they have tokens of the very vocabulary, joined; classes of characters go wrong with
Unicode versions, so they have a sample of all planes. About 460 kB: a tenth of a second, most of it the reference's.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Protocol

import numpy as np
import pyarrow as pa

from colophon.shards.tokenizer.backends import Backend
from colophon.shards.tokenizer.text_rows import IdSink, Positions
from colophon.shards.tokenizer.unicode_differences import sampled_characters

_SPACES = (
    *(" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", " \r\n  ", "\u00a0", "\u3000 ", "\u2028"),
    *("\x85", "\x0b\x0c", "\u180e", "\x1c\x1f"),
)
_WORDS = (
    *("a", "A", "ab", "AB", "Ab", "aB", "ABc", "camelCaseWord", "don", "é", "e\u0301", "É", "ǅ", "ʰ", "ß", "ſ", "K"),
    *("漢字", "かな交じり", "ー", "हिन्दी", "กำ", "சென்னை", "עברית", "العربيّة", "한국어", "한", "ﬁ", "Ⅷ", "ⅷ"),
)
_NUMBERS = ("1", "12", "123", "1234", "1234567", "٣٤", "१२३४", "½", "²", "①②③④", "3.14", "1,000")
_SIGNS = (
    *(".", "...", "!?", "--", "/", "//\n", ".\n\n", "'", "''", '"', "’", "$", "€", "_", "\\", "<|", "|>", "#@", "\x00"),
    *("\x7f", "\u200b", "\u200d", "\ufeff", "\ufffd", "\u0301", "😀", "👩\u200d👩\u200d👧", "🏳️\u200d🌈", "🇩🇪", "\x01"),
    *("\U0010ffff", "\ue000"),
)
_CONTRACTIONS = [
    mark + suffix
    for mark in ("'", "’", " '")
    for word in ("s", "t", "re", "ve", "m", "ll", "d", "x", "sd", "lL")
    for suffix in dict.fromkeys((word, word.upper(), word.title(), word.replace("s", "ſ")))
]
_NAMES = ("<|endoftext|>", "<|im_start|>", "<s>", "</s>", "<pad>", "[INST]", "<unk>", "<|begin_of_text|>")
_LONG = (
    *("a" * 300, "A" * 300, "ab" * 200, " " * 300 + "x", "\n" * 300, "-" * 300, "9" * 300, "漢" * 100, "\u0301" * 100),
    "it's one long line of 12345 words, " * 8000,  # more than goes to an engine in one piece
)
_BESIDE = ("a", "A", "Aa", "1", "!!", " ", "\n", "'s")
_NUM_TOKENS = 3000


class _Encoder(Protocol):
    def encode_batch(self, texts: pa.Array, sink: IdSink) -> Positions: ...


def difference(encoder: _Encoder, reference: Backend) -> str | None:
    """What is wrong with `encoder`, in a few words; None if its ids of all hard texts are the reference's."""
    texts = list(hard_texts(reference))
    sink = IdSink(np.dtype(np.uint32), expected=100_000)
    found = sink.lists(encoder.encode_batch(pa.array(texts, pa.string()), sink))
    offsets, ids = found.offsets.to_numpy(), found.values.to_numpy()
    for row, text in enumerate(texts):
        if not np.array_equal(ids[offsets[row] : offsets[row + 1]], reference.encode(text)):
            return f"the fast engine gives other ids for {text[:40]!r}{'…' if len(text) > 40 else ''}"
    return None


def hard_texts(vocabulary: Backend) -> Iterator[str]:
    """Some thousand texts, always the same for one vocabulary."""
    yield from ("", *_LONG, *_SPACES, *vocabulary.special)
    kinds = (_SPACES, _WORDS, _NUMBERS, _SIGNS, _CONTRACTIONS, _NAMES)
    rng = random.Random(0)
    for first, second in product(kinds, repeat=2):
        # Each of one kind before some of the other, in lines of mixed length.
        yield from ("".join((a, rng.choice(second), rng.choice(first), rng.choice(second))) for a in first)
    for first, second in product(_WORDS[:12], _CONTRACTIONS):
        yield first + second + rng.choice(_WORDS[:12])
    everything = [piece for kind in kinds for piece in kind]
    yield from ("".join(rng.choices(everything, k=rng.randint(2, 60))) for _ in range(300))
    yield from _batched((char + rng.choice(_BESIDE) for char in sampled_characters()), 64)
    yield from _token_texts(vocabulary, rng)


def _token_texts(vocabulary: Backend, rng: random.Random) -> Iterator[str]:
    """Tokens joined as they are, so that merges have to find them again, and with spaces."""
    tokens = []
    for token_id in _sample(range(vocabulary.first_id, vocabulary.num_ids), rng):
        try:
            tokens.append(vocabulary.token_bytes(token_id).decode("utf-8", "ignore"))
        except KeyError:
            continue
    rng.shuffle(tokens)
    yield from _batched(tokens, 20)
    yield from _batched((f"{token} " for token in tokens), 20)


def _sample(ids: range, rng: random.Random) -> list[int]:
    return rng.sample(ids, k=min(len(ids), _NUM_TOKENS))


def _batched(pieces: Iterable[str], number: int) -> Iterator[str]:
    pieces = list(pieces)
    return ("".join(pieces[i : i + number]) for i in range(0, len(pieces), number))
