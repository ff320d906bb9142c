"""From logits to the next token, and from tokens to text."""

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
    """None: 100, or as many as the rows hold that the model was trained on."""
    temperature: float = 0.8
    """0: always the likeliest token."""
    top_k: int | None = None
    """Only so many of the likeliest tokens."""
    top_p: float | None = None
    """Only the likeliest tokens that together have this probability; always one at least."""
    guidance: float | None = None
    """How far to go from the empty wrapper (0) to the context (1) and beyond. None: the context alone."""
    seed: int = 0
    num_samples: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            TrainerError: a number out of its range.
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
    """Draws one sample's tokens: a function of (seed, number of the sample), whatever other samples there are."""

    def __init__(self, settings: SamplingSettings, *, sample: int) -> None:
        self._settings = settings
        self._random = np.random.default_rng([settings.seed, sample])

    def draw(self, logits: NumPyArray) -> int:
        """The next token, from logits float [vocabulary_size]; -inf where it cannot be."""
        if not self._settings.temperature:
            return int(logits.argmax())
        probabilities = likely(logits, self._settings)
        return int(self._random.choice(len(probabilities), p=probabilities))


def likely(logits: NumPyArray, settings: SamplingSettings) -> NumPyArray:
    """float64 [vocabulary_size]: probabilities at the temperature, of the tokens that top_k and then top_p leave."""
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
    """Text of tokens as they come: a character whose bytes are spread over tokens is held until it is whole."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """`decode` gives U+FFFD for bytes that are no UTF-8."""
        self._decode = decode
        self._ids: list[int] = []
        self._told, self._start = 0, 0

    def push(self, token_id: int) -> str:
        """What can be told now that a token has come."""
        self._ids.append(token_id)
        return self._tell(hold=True)

    def finish(self) -> str:
        """What was held, though it is not whole."""
        return self._tell(hold=False)

    def _tell(self, *, hold: bool) -> str:
        # Told together with the tokens before: some vocabularies spell a token otherwise at the beginning of a text.
        before = self._decode(self._ids[self._start : self._told])
        text = self._decode(self._ids[self._start :])
        if hold and text.endswith("\ufffd"):
            return ""
        self._start, self._told = self._told, len(self._ids)
        return text[len(before) :]


def texts_of(
    steps: Iterable[Sequence[int | None]], *, sample: int, decode: Callable[[Sequence[int]], str]
) -> Iterator[str]:
    """Pieces of one sample's text, as its tokens come in `steps` (see `trainer.inference.generation.generate`)."""
    stream = TextStream(decode)
    for tokens in steps:
        token = tokens[sample]
        if token is not None:
            yield stream.push(token)
    yield stream.finish()
