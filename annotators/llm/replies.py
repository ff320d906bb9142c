"""The outcome of a request to a language model: a reply with its tokens, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

CUT = "length"
CONTENT_FILTER = "content_filter"
"""Two of the reasons for which a reply ends; all others count as complete."""
UNREACHABLE, BUSY = "unreachable", "busy"
"""Statuses of which no document is ever the reason."""


@dataclass(frozen=True)
class Reply:
    """The text that a model generated."""

    content: str
    finish: str
    """`stop`, `length`, `content_filter`, or a server's own word."""


@dataclass(frozen=True)
class Usage:
    """The tokens of a request as the server counted them."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Sent:
    """The outcome of one request: a reply, or why there is none."""

    reply: Reply | None = None
    usage: Usage | None = None
    """None: the server did not count, or gave no reply."""
    status: str = ""
    """The document's status if this is the last attempt: `timeout`, `unreachable`, `server_error`, ..."""
    detail: str = ""
    """One line about it, without the key."""
    is_transient: bool = False
    """Whether the same request may succeed later."""
    may_be_billed: bool = True
    """Whether the server may have generated something."""
    retry_after: float | None = None
    """The seconds that the server asks to wait."""
