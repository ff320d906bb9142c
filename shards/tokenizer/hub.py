"""Tokenizers of the Hugging Face Hub: `hf:org/model` and `hf:org/model@revision`.

`huggingface_hub` downloads and caches them, with its own variables: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`,
`HF_HUB_CACHE`. A revision that moves, such as `main`, is asked for once for each command. Where the Hub does not
answer, the last known commit is taken from the cache. Workers get the name with the commit, see `HubFile.name`, and so
the same content on every machine; for a commit in the cache nothing is asked.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colophon.shards.common.errors import TokenizerError, listed, short_reason

HUB_PREFIX = "hf:"
FILE_NAMES = ("tokenizer.json", "tekken.json")
"""The files that are looked for, the first before the others; then a single `*.tiktoken`."""

_NAME = re.compile(r"hf:(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_PATTERNS = [*FILE_NAMES, "*.tiktoken", "*.tiktoken.json"]


@dataclass(frozen=True)
class HubFile:
    """A tokenizer file in the cache of `huggingface_hub`."""

    repository: str
    """`org/model`."""
    commit: str
    path: Path

    @property
    def name(self) -> str:
        """The name that means this content on every machine: `hf:org/model@<commit>`."""
        return f"{HUB_PREFIX}{self.repository}@{self.commit}"


def find_in_hub(name: str) -> HubFile:
    """Download the tokenizer file of a repository, unless it is in the cache.

    Args:
        name: `hf:org/model`, with `@` and a branch, tag or commit if it is not `main`.

    Raises:
        TokenizerError: the name has another form; the repository or revision does not exist, is not readable, or holds
            no tokenizer file; or the Hub does not answer and the cache has no file.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise TokenizerError(f"{name}: expected hf:ORGANIZATION/MODEL or hf:ORGANIZATION/MODEL@REVISION")
    repository, revision = found["repository"], found["revision"]
    snapshot = _snapshot(repository, revision, name=name)
    return HubFile(repository, snapshot.name, _tokenizer_file(snapshot, name=name))


def _snapshot(repository: str, revision: str | None, *, name: str) -> Path:
    """The directory of a commit in the cache, with the tokenizer files of the repository."""
    from huggingface_hub import constants, errors, snapshot_download

    try:
        with _quiet():
            return Path(
                snapshot_download(repository, revision=revision, allow_patterns=_PATTERNS, tqdm_class=_no_progress())
            )
    except errors.GatedRepoError as error:
        raise TokenizerError(
            f"{name}: the repository is gated. Ask for access on its page, and set HF_TOKEN to a token of your account"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise TokenizerError(
            f"{name}: the Hub has no such repository, or it is private: then set HF_TOKEN to a token that may read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise TokenizerError(f"{name}: the repository has no revision {revision or 'main'!r}") from error
    except errors.HFValidationError as error:
        raise TokenizerError(f"{name}: not the name of a repository: {short_reason(error)}") from error
    except Exception as error:  # of the connection, of the disk, of the library: their types differ between versions
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"cannot be downloaded ({_reason(error)})"
        raise TokenizerError(
            f"{name}: {reason}, and the cache does not have it. Run once with a network, or set the path of a "
            "tokenizer file"
        ) from error


def _reason(error: BaseException) -> str:
    """The first cause of an error: the library wraps those of the connection in long advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return short_reason(error)


def _tokenizer_file(snapshot: Path, *, name: str) -> Path:
    for path in (snapshot / file_name for file_name in FILE_NAMES):
        if path.is_file():
            return path
    ranks = sorted(snapshot.glob("*.tiktoken"))
    if len(ranks) > 1:
        names = listed([path.name for path in ranks], most=5)
        raise TokenizerError(f"{name}: the repository holds {names}: download one and set its path")
    if not ranks:
        raise TokenizerError(
            f"{name}: the repository holds no tokenizer.json, tekken.json or .tiktoken file (commit {snapshot.name}). "
            "Convert its tokenizer with transformers, and set the path of the tokenizer.json"
        )
    return ranks[0]


def _no_progress() -> Any:
    """The library's progress bar, switched off: a run's own lines would be mixed with it."""
    from huggingface_hub import utils

    bar: Any = utils.tqdm  # type: ignore[attr-defined]

    class NoProgress(bar):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **{**settings, "disable": True})

    return NoProgress


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's warnings, such as one that no token is set: our errors name what is missing."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
