"""Needed besides a question: the key, the directory of its replies and counts, the cost of a request."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from colophon.annotators.base import AnnotatorError
from colophon.annotators.llm.limits import Counts
from colophon.annotators.llm.questions import Question
from colophon.shards.common.cache_directory import REMEDY, cache_dir, cache_part, private_directory
from colophon.shards.common.digests import fingerprint

_PART = "llm"
_REMEDY = "choose another directory for `cache`, which is then created"
_TYPICAL_SECONDS = 2.0
_TYPICAL_OUTPUT_TOKENS = 40
_CHARACTERS_OF_A_TOKEN = 4


def key_from_environment(variable: str | None, *, where: str) -> str | None:
    """The key in an environment variable; None without a variable.

    It is read where it is used, and is never part of a message, of settings or of a pickled annotator.

    Raises:
        AnnotatorError: the variable is not set, or has what no header can have.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise AnnotatorError(f"{where}: {variable} is not set in the environment of the process that annotates")
    if not (key.isascii() and key.isprintable()):
        raise AnnotatorError(f"{where}: {variable} in the environment has characters that no key can have")
    return key


def question_directory(question: Question, cache: str | None) -> Path:
    """The directory of a question's replies and counts, whether it exists or not.

    Questions whose requests are the same but for the document share it: other limits of an answer, another endpoint.

    Args:
        question: the question.
        cache: the directory that the recipe names; None: this machine's cache.
    """
    name = fingerprint(question.first(question.prompt).decode())[:32]
    return (cache_dir() / _PART if cache is None else Path(cache)) / name


def created_directory(question: Question, cache: str | None) -> Path:
    """`question_directory`, created if it is missing, for this user alone.

    Raises:
        CacheError: it cannot be written, or is not private.
    """
    remedy = REMEDY if cache is None else _REMEDY
    _ = cache_part(_PART) if cache is None else private_directory(Path(cache), remedy=remedy)
    return private_directory(question_directory(question, cache), remedy=remedy)


@dataclass(frozen=True)
class RequestCost:
    """The mean cost of one request."""

    prompt_tokens: float
    output_tokens: float
    seconds: float
    source: str
    """Where the numbers come from."""


def cost_of_request(counts: Counts, question: Question, *, mean_characters: float) -> RequestCost:
    """The mean of the requests that a question has had; before the first, a typical one with so long a text."""
    if counts.replies:
        return RequestCost(
            prompt_tokens=counts.prompt_tokens / counts.replies,
            output_tokens=counts.output_tokens / counts.replies,
            seconds=counts.seconds / counts.replies,
            source=f"{counts.replies:,} earlier requests",
        )
    return RequestCost(
        prompt_tokens=(len(question.prompt) + mean_characters) / _CHARACTERS_OF_A_TOKEN,
        output_tokens=_TYPICAL_OUTPUT_TOKENS,
        seconds=_TYPICAL_SECONDS,
        source=f"assuming {_CHARACTERS_OF_A_TOKEN} characters a token and {_TYPICAL_SECONDS:g} s a request",
    )
