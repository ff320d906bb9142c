"""Hard texts, on which a fast engine is compared with the reference when a vocabulary is loaded.

Splitting errors occur at the borders of patterns, so the texts put characters of each kind beside each other kind.
Merging errors occur for rare tokens, so the texts join tokens of the vocabulary itself. Errors of character classes
come with Unicode versions, so the texts sample all planes. About 460 kB: 0.1 s, most of it for the reference.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import product

from colophon.shards.tokenizer.backends import Backend
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
    "it's one long line of 12345 words, " * 8000,  # longer than one part (`encoders.PART_BYTES`)
)
_BESIDE = ("a", "A", "Aa", "1", "!!", " ", "\n", "'s")
_NUM_TOKENS = 3000


def hard_texts(vocabulary: Backend) -> Iterator[str]:
    """About 3,000 texts, the same at every call for one vocabulary."""
    yield from ("", *_LONG, *_SPACES, *vocabulary.special)
    kinds = (_SPACES, _WORDS, _NUMBERS, _SIGNS, _CONTRACTIONS, _NAMES)
    rng = random.Random(0)
    for first, second in product(kinds, repeat=2):
        # a b a' b': each text a of one kind, then texts drawn from the other kind and both kinds in turn.
        yield from ("".join((a, rng.choice(second), rng.choice(first), rng.choice(second))) for a in first)
    for first, second in product(_WORDS[:12], _CONTRACTIONS):
        yield first + second + rng.choice(_WORDS[:12])
    everything = [piece for kind in kinds for piece in kind]
    yield from ("".join(rng.choices(everything, k=rng.randint(2, 60))) for _ in range(300))
    yield from _batched((char + rng.choice(_BESIDE) for char in sampled_characters()), 64)
    yield from _token_texts(vocabulary, rng)


def _token_texts(vocabulary: Backend, rng: random.Random) -> Iterator[str]:
    """A sample of tokens, joined directly, so that merges must find them again, and joined with spaces."""
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
