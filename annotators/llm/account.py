"""The cost of the requests of one question, counted for all processes that share a directory; budgets and rates.

The counts are one small file, read and replaced under a lock of the system (flock). A request is counted with its upper
bound before it is sent, and with what the server counted afterwards: so the sum is never less than what was spent,
whatever is killed, and no process sends a request that would exceed a budget.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from colophon.annotators.llm.limits import Counts, Limits
from colophon.annotators.llm.replies import Sent
from colophon.annotators.remote import BudgetError
from colophon.shards.common.cache_directory import CacheError
from colophon.shards.common.durable import TEMPORARY_SUFFIX
from colophon.shards.common.file_locks import flock_within

_LOCK_SECONDS = 60.0
_POLL_SECONDS = 0.1
_COUNTS = "counts.json"
_REMEDY = "set `cache` to a directory on a file system with locks"


class Account:
    """The counts of one question, and its limits; for any number of threads and processes."""

    def __init__(self, directory: Path, limits: Limits, *, patience_seconds: float) -> None:
        """Count in a directory, which exists and is private.

        Args:
            directory: that of the question's replies.
            limits: the budget and the rate.
            patience_seconds: without any change for so long, requests that are on their way count as lost.
        """
        self._directory, self._limits, self._patience = directory, limits, patience_seconds
        self._lock = threading.Lock()

    def begin(self, tokens: int, *, stop: threading.Event) -> bool:
        """Count a request of at most so many tokens, and wait for its turn; False if `stop` is set before it.

        Near the end of a budget this waits for the requests that are on their way: they may leave room.

        Raises:
            BudgetError: the budget has no room for it, and no request is on its way.
            CacheError: the counts cannot be read or written.
        """
        while not stop.is_set():
            with self._changing() as change:
                spent = self._limits.spent(change.counts, tokens=tokens)
                now = time.time()
                if spent is None:
                    slot = max(change.counts.next_slot, now)
                    change.counts = self._begun(change.counts, tokens, slot=slot)
                elif not change.counts.open or now - change.counts.changed > self._patience:
                    raise BudgetError(self._message(spent, change.counts))
            if spent is None:
                if not stop.wait(max(slot - now, 0.0)):
                    return True
                self.end(tokens, None, seconds=0.0)
            stop.wait(_POLL_SECONDS)
        return False

    def end(self, tokens: int, sent: Sent | None, *, seconds: float) -> None:
        """Count the outcome of a request for which `begin` counted so many tokens; None: it was not sent."""
        is_free = sent is None or not sent.may_be_billed
        usage = None if sent is None else sent.usage
        spent = 0 if is_free else tokens if usage is None else usage.prompt_tokens + usage.output_tokens
        with self._changing() as change:
            counts = change.counts
            change.counts = replace(
                counts,
                requests=counts.requests - is_free,
                tokens=counts.tokens - tokens + spent,
                open=max(counts.open - 1, 0),
                replies=counts.replies + (usage is not None),
                prompt_tokens=counts.prompt_tokens + (usage.prompt_tokens if usage else 0),
                output_tokens=counts.output_tokens + (usage.output_tokens if usage else 0),
                seconds=counts.seconds + (seconds if usage else 0.0),
            )

    def _begun(self, counts: Counts, tokens: int, *, slot: float) -> Counts:
        rate = self._limits.requests_per_minute
        return replace(
            counts,
            requests=counts.requests + 1,
            tokens=counts.tokens + tokens,
            open=counts.open + 1,
            next_slot=slot + 60.0 / rate if rate is not None else 0.0,
        )

    @contextmanager
    def _changing(self) -> Iterator[_Change]:
        """The counts, locked for this thread alone; they are stored if they were changed."""
        path = self._directory / _COUNTS
        with self._lock, self._errors():
            handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                if not flock_within(handle, path, seconds=_LOCK_SECONDS) and self._limits.is_any_set:
                    raise CacheError(
                        f"{self._directory}: its file system has no locks, which a budget needs; {_REMEDY}"
                    )
                before = read_counts(self._directory)
                change = _Change(before)
                yield change
                if change.counts != before:
                    _write(path, replace(change.counts, changed=time.time()))
            finally:
                os.close(handle)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(f"{self._directory}: {error.strerror or error}") from None

    def _message(self, spent: str, counts: Counts) -> str:
        key = spent.partition(" ")[0]
        return (
            f"{spent} is spent: {counts.requests:,} requests and {counts.tokens:,} tokens of this question are counted "
            f"in {self._directory}. Files and replies are kept: with a larger {key} the same command resumes"
        )


@dataclass
class _Change:
    counts: Counts


def read_counts(directory: Path) -> Counts:
    """The counts in a question's directory; zeros if it has none.

    Raises:
        CacheError: they cannot be read, or are damaged.
    """
    path = directory / _COUNTS
    try:
        found: Any = orjson.loads(path.read_bytes())
        counts = Counts(**found)
        if all(isinstance(value, int | float) for value in found.values()):
            return counts
    except FileNotFoundError:
        return Counts()
    except OSError as error:
        raise CacheError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError):
        pass
    raise CacheError(f"{path}: damaged. Delete it, and lower the budget by what was spent")


def _write(path: Path, counts: Counts) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(orjson.dumps(asdict(counts)))
    temporary.replace(path)
