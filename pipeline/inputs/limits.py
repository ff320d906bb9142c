"""The sizes at which a document, a line or a value is too large to be read, and how they are reported."""

from __future__ import annotations

from colophon.pipeline.errors import InputError

MAX_VALUE_BYTES = 64 << 10
"""The most UTF-8 bytes of a string in a column other than the text, such as a URL or an id; a longer one is null."""
TOO_LARGE = "too large"
"""The kind by which documents that are too large are counted together."""
_REMEDY = "Raise input.max_document_bytes to read it"


class TooLargeError(InputError):
    """A document of more than `max_document_bytes`."""


def line_limit(max_document_bytes: int) -> int:
    """The most bytes of a JSON line, or characters of a CSV row, with the text, its escapes and all other fields.

    A quarter and 2 MiB above the limit of the text: 82,097,152 for 64,000,000. At least two blocks of 1 MiB.
    """
    return max_document_bytes + max_document_bytes // 4 + (2 << 20)


def text_too_large(num_bytes: int, max_document_bytes: int, *, document: str | None = None) -> str:
    """The reason for a document whose text has more than `max_document_bytes`; `document` is its id if it has one."""
    name = "" if document is None else f" (id {document[:100]!r})"
    return f"a text of {num_bytes:,} bytes{name}, more than max_document_bytes = {max_document_bytes:,}. {_REMEDY}"


def line_too_large(what: str, max_document_bytes: int) -> str:
    """The reason for a line, record or page that is too large to hold a text of `max_document_bytes`.

    Args:
        what: the thing and its size, such as `a line of 3,200,000,000 bytes`.
        max_document_bytes: the limit.
    """
    return f"{what}, too large for max_document_bytes = {max_document_bytes:,}. {_REMEDY}"


def utf8_bytes(text: str) -> int:
    """The number of UTF-8 bytes of a text; half surrogate pairs count three, as Arrow stores their replacement."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def is_above(text: str, limit: int) -> bool:
    """Whether a text has more than `limit` UTF-8 bytes; encodes it only if its length leaves that open."""
    return len(text) > limit or (len(text) * 4 > limit and utf8_bytes(text) > limit)
