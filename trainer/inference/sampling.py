"""Sampling of the next token from logits, and decoding of a stream of tokens to text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.errors import TrainerError


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How tokens are drawn."""

    max_tokens: int | None = None
    """None: 100, or as many as fit in a training row of the model."""
    temperature: float = 0.8
    """0: always the likeliest token."""
    top_k: int | None = None
    """Draw from this many of the likeliest tokens."""
    top_p: float | None = None
    """Draw from the likeliest tokens that together have this probability; always at least one."""
    guidance: float | None = None
    """0: the empty wrapper; 1: the context; above 1: beyond it. None: the context alone."""
    seed: int = 0
    num_samples: int = 1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            TrainerError: a number is out of its range.
        """
        ranges = {
            "max_tokens": (self.max_tokens is None or self.max_tokens >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < np.inf, "0 or more"),
            "top_k": (self.top_k is None or self.top_k >= 1, "at least 1"),
            "top_p": (self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            "guidance": (self.guidance is None or bool(np.isfinite(self.guidance)), "a finite number"),
            "seed": (self.seed >= 0, "0 or more"),
            "num_samples": (self.num_samples >= 1, "at least 1"),
        }
        for name, (fits, range_) in ranges.items():
            if not fits:
                raise TrainerError(f"{name} must be {range_}, got {getattr(self, name)}")


class Sampler:
    """Draws one sample's tokens: a function of (seed, number of the sample), independent of other samples."""

    def __init__(self, settings: SamplingSettings, *, sample: int) -> None:
        self._settings = settings
        self._random = np.random.default_rng([settings.seed, sample])

    def draw(self, logits: NumPyArray) -> int:
        """The next token, from logits float [vocabulary_size]; -inf where it is impossible."""
        if not self._settings.temperature:
            return int(logits.argmax())
        probabilities = sampling_probabilities(logits, self._settings)
        return int(self._random.choice(len(probabilities), p=probabilities))


def sampling_probabilities(logits: NumPyArray, settings: SamplingSettings) -> NumPyArray:
    """float64 [vocabulary_size]: probabilities at the temperature, after top_k and then top_p.

    Probabilities [0.1, 0.4, 0.25, 0.25] with top_k = 2 become [0, 0.62, 0.38, 0].
    """
    scaled = logits.astype(np.float64) / settings.temperature
    probabilities: NumPyArray = np.exp(scaled - scaled.max())
    order = np.argsort(-probabilities, kind="stable")
    if settings.top_k is not None:
        probabilities[order[settings.top_k :]] = 0.0
    probabilities /= probabilities.sum()
    if settings.top_p is not None:
        before = np.cumsum(probabilities[order]) - probabilities[order]
        probabilities[order[before >= settings.top_p]] = 0.0
        probabilities /= probabilities.sum()
    return probabilities


class TextStream:
    """Decodes tokens as they arrive. A character whose bytes are spread over tokens is held back until it is whole."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """`decode` gives U+FFFD for bytes that are not UTF-8."""
        self._decode = decode
        self._ids: list[int] = []
        self._emitted, self._start = 0, 0

    def push(self, token_id: int) -> str:
        """The text that is complete now that a token has arrived."""
        self._ids.append(token_id)
        return self._emit(hold=True)

    def finish(self) -> str:
        """The text that was held back, although its last character is not whole."""
        return self._emit(hold=False)

    def _emit(self, *, hold: bool) -> str:
        # Decoded together with the tokens before: some vocabularies spell a token otherwise at the start of a text.
        before = self._decode(self._ids[self._start : self._emitted])
        text = self._decode(self._ids[self._start :])
        if hold and text.endswith("\ufffd"):
            return ""
        self._start, self._emitted = self._emitted, len(self._ids)
        return text[len(before) :]


def sample_texts(
    steps: Iterable[Sequence[int | None]], *, sample: int, decode: Callable[[Sequence[int]], str]
) -> Iterator[str]:
    """Yield pieces of one sample's text as tokens arrive in `steps`, see `trainer.inference.generation.generate`."""
    stream = TextStream(decode)
    for tokens in steps:
        token = tokens[sample]
        if token is not None:
            yield stream.push(token)
    yield stream.finish()
