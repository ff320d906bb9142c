"""The counted cost of a question's requests, and its limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Counts:
    """The requests of one question, of all runs."""

    requests: int = 0
    """Sent, but for those that the server refused or that did not reach it."""
    tokens: int = 0
    """Tokens of these requests: as the server counted them, or an upper bound where it did not."""
    replies: int = 0
    """Replies of which the server counted the tokens."""
    prompt_tokens: int = 0
    """Tokens of these replies' prompts."""
    output_tokens: int = 0
    seconds: float = 0.0
    """Between sending these requests and their replies, summed."""
    open: int = 0
    """Requests that are on their way, those of killed processes included."""
    changed: float = 0.0
    """The time of the last change, in seconds since 1970."""
    next_slot: float = 0.0
    """The earliest time at which a request may be sent under a rate."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The budget and the rate of one question."""

    max_requests: int | None = None
    max_tokens: int | None = None
    requests_per_minute: float | None = None

    def shortage(self, counts: Counts, *, requests: int, tokens: int) -> str | None:
        """A line on what the budgets do not allow of so many further requests and tokens; None if they allow all."""
        if self.max_requests is not None and requests > (left := max(self.max_requests - counts.requests, 0)):
            return f"max_requests = {self.max_requests:,} leaves {left:,} requests"
        if self.max_tokens is not None and tokens > (left := max(self.max_tokens - counts.tokens, 0)):
            return f"max_tokens = {self.max_tokens:,} leaves {left:,} tokens"
        return None

    @property
    def is_any_set(self) -> bool:
        """Whether requests must be counted before they are sent."""
        return any(limit is not None for limit in asdict(self).values())

    def spent(self, counts: Counts, *, tokens: int) -> str | None:
        """The budget that one more request of so many tokens would exceed; None if there is room."""
        if self.max_requests is not None and counts.requests >= self.max_requests:
            return f"max_requests = {self.max_requests:,}"
        if self.max_tokens is not None and counts.tokens + tokens > self.max_tokens:
            return f"max_tokens = {self.max_tokens:,}"
        return None
