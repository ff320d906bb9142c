"""Asking about many documents at once: stored replies first, then the service, with retries and one repair each."""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from colophon.annotators.llm.account import Account
from colophon.annotators.llm.answer_log import AnswerLog
from colophon.annotators.llm.questions import DECLINED, Problem, Question
from colophon.annotators.llm.replies import BUSY, UNREACHABLE, Reply, Sent
from colophon.annotators.remote import ServiceError

if TYPE_CHECKING:  # it imports the HTTP library
    from colophon.annotators.llm.client import ChatClient

ANSWERED, REPAIRED = "answered", "repaired"
FAILURES_IN_A_ROW = 10
"""So many documents of a process one after the other without any reply mean that the service is at fault."""
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """The answer to the question about one document, or why there is none."""

    status: str
    values: Mapping[str, Any] | None = None


class _StoppedError(Exception):
    """Another document has ended the run; nothing more is sent."""


class _NoReplyError(Exception):
    """All attempts at a request failed for a reason that may be in its document."""

    def __init__(self, sent: Sent) -> None:
        super().__init__(sent.detail)
        self.status = sent.status


class Asker:
    """Asks one question about documents, with a number of threads that send requests.

    Threads, connections and files are closed when nothing refers to it any more.
    """

    def __init__(
        self,
        question: Question,
        *,
        client: ChatClient,
        log: AnswerLog,
        account: Account,
        concurrency: int,
        max_attempts: int,
    ) -> None:
        """Start nothing yet.

        Args:
            question: what is asked.
            client: the service.
            log: where replies are stored.
            account: where requests are counted.
            concurrency: the most requests at once.
            max_attempts: at one request, while the failure is transient.
        """
        self._question, self._client, self._log, self._account = question, client, log, account
        self._max_attempts = max_attempts
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="llm")
        weakref.finalize(self, _close, self._pool, client, log)
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._resume_at = 0.0

    def outcomes(self, messages: Sequence[str]) -> list[Outcome]:
        """The outcome of each message, in their order; equal ones are sent once.

        If the service or the budget ends the run, requests on their way are waited for, and their replies are kept.

        Raises:
            ServiceError: the service refuses requests, or gave no reply for `FAILURES_IN_A_ROW` documents.
            BudgetError: the budget is spent.
            CacheError: replies or counts cannot be stored.
        """
        self._log.refresh()
        found = {message: self._outcome(message, self._log.get) for message in dict.fromkeys(messages)}
        missing = [message for message, outcome in found.items() if outcome is None]
        found |= zip(missing, self._asked(missing), strict=True)
        return [outcome for message in messages if (outcome := found[message]) is not None]

    def _asked(self, messages: Sequence[str]) -> list[Outcome]:
        if not messages:
            return []
        stop = threading.Event()
        futures = [self._pool.submit(self._ask, message, stop) for message in messages]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # after an error or an interrupt nothing more is sent; the process ends when the threads have ended
            stop.set()
        wait(futures)
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in errors:
            if not isinstance(error, _StoppedError):
                raise error
        self._log.sync()
        return [future.result() for future in futures]

    def _ask(self, message: str, stop: threading.Event) -> Outcome:
        """The outcome of one message, by a thread of the pool."""
        try:
            outcome = self._outcome(message, lambda request: self._log.get(request) or self._reply(request, stop))
        except _NoReplyError as error:
            self._count_failure(str(error))
            return Outcome(error.status)
        assert outcome is not None
        return outcome

    def _outcome(self, message: str, reply_to: Callable[[bytes], Reply | None]) -> Outcome | None:
        """The outcome that the replies give; None where one is missing."""
        reply = reply_to(self._question.first(message))
        if reply is None:
            return None
        found = self._question.read(reply)
        if not isinstance(found, Problem):
            return Outcome(ANSWERED, found)
        if found.status == DECLINED:
            return Outcome(DECLINED)
        second = reply_to(self._question.repair(message, reply, found))
        if second is None:
            return None
        repaired = self._question.read(second)
        return Outcome(repaired.status) if isinstance(repaired, Problem) else Outcome(REPAIRED, repaired)

    def _reply(self, request: bytes, stop: threading.Event) -> Reply:
        """The reply to a request, which is sent until it has one or the attempts are exhausted, and is then stored."""
        for attempt in range(self._max_attempts):
            self._await_service(stop)
            sent = self._sent(request, stop)
            if sent.reply is not None:
                self._failures_in_a_row = 0
                return sent.reply
            if not sent.is_transient:
                break
            if attempt + 1 < self._max_attempts:
                self._pause(sent, attempt, stop)
        if sent.status in (BUSY, UNREACHABLE):
            raise ServiceError(f"{sent.detail} ({self._max_attempts} attempts)")
        raise _NoReplyError(sent)

    def _sent(self, request: bytes, stop: threading.Event) -> Sent:
        """Send a request once: counted before, and stored and counted after."""
        tokens = self._question.most_tokens(request)
        if not self._account.begin(tokens, stop=stop):
            raise _StoppedError
        begun, sent = time.monotonic(), None
        try:
            sent = self._client.send(request)
            if sent.reply is not None:
                self._log.add(request, sent.reply)
            return sent
        finally:
            self._account.end(tokens, sent, seconds=time.monotonic() - begun)

    def _await_service(self, stop: threading.Event) -> None:
        """Wait until the time before which the service wants no request."""
        while (seconds := self._resume_at - time.monotonic()) > 0:
            if stop.wait(seconds):
                break
        if stop.is_set():
            raise _StoppedError

    def _pause(self, sent: Sent, attempt: int, stop: threading.Event) -> None:
        """Wait before the next attempt, ever longer; what the service asks for holds for all threads."""
        if sent.retry_after is not None:
            with self._lock:
                self._resume_at = max(self._resume_at, time.monotonic() + sent.retry_after)
        pause = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
        stop.wait(pause * random.uniform(0.5, 1.0))  # chance spreads the threads; no output depends on it

    def _count_failure(self, detail: str) -> None:
        with self._lock:
            self._failures_in_a_row += 1
            number = self._failures_in_a_row
        if number >= FAILURES_IN_A_ROW:
            raise ServiceError(f"no reply for {number} documents in a row; the last failure: {detail}")


def _close(pool: ThreadPoolExecutor, client: ChatClient, log: AnswerLog) -> None:
    pool.shutdown(wait=False)
    client.close()
    log.close()
