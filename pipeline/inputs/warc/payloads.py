"""The text of a record, or why it has none.

Documents are records of type `response` with status 200 and an HTML payload, and records of type `conversion` (WET) and
`resource` with HTML or plain text. The text of HTML is its source: nothing is extracted. A payload's type is the one in
the record's headers, else libmagic's guess.
"""

from __future__ import annotations

import zlib
from typing import Any

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.warc.records import Record

MAX_PAYLOAD_BYTES = 64 << 20
"""A larger payload, decompressed, is excluded."""

_HTML = ("text/html", "application/xhtml+xml")
_KINDS = ("request", "metadata", "warcinfo", "revisit", "resource", "continuation", "conversion", "response")
_PAGES = ("http:", "https:", "ftp:", "file:")
_IDENTITY = ("", "identity", "none")


class NoDocumentError(Exception):
    """A record that is no document; it is counted by its kind."""

    def __init__(self, kind: str) -> None:
        """Name the kind: the end of a key of counts."""
        super().__init__(kind)
        self.kind = kind


def text_of(record: Record) -> str:
    """The text of a record, whose content is read.

    Raises:
        NoDocumentError: the record is of a type, status or media type that is no document.
        InputError: the record is a document, and cannot be decoded or is too large.
    """
    kind = record.type if record.type in _KINDS else "other"
    if kind == "response":
        return _decoded(_html(_response_body(record), record))
    if kind not in ("conversion", "resource"):
        raise NoDocumentError(kind)
    if kind == "resource" and not (record.header("WARC-Target-URI") or "").strip("<").lower().startswith(_PAGES):
        raise NoDocumentError(kind)  # logs and manifests of the crawler: `metadata:`, `urn:`
    media_type = _media_type(record.header("WARC-Identified-Payload-Type") or record.header("Content-Type"))
    if media_type and media_type not in (*_HTML, "text/plain"):
        raise NoDocumentError(f"{kind}_of_other_media_type")
    body = _limited(record.parsed.raw_stream)
    if not media_type and _guess(body) not in (*_HTML, "text/plain"):
        raise NoDocumentError(f"{kind}_of_other_media_type")
    return _decoded(body)


def _response_body(record: Record) -> bytes:
    """The payload of a response without the encodings of HTTP."""
    from warcio.bufferedreaders import ChunkedDataReader
    from warcio.statusandheaders import StatusAndHeadersParser

    stream = record.parsed.raw_stream
    if not (record.header("WARC-Target-URI") or "").strip("<").lower().startswith(("http:", "https:")):
        raise NoDocumentError("response_of_other_protocol")
    try:
        http = StatusAndHeadersParser(["HTTP/1.0", "HTTP/1.1"], verify=False).parse(stream)
    except EOFError:
        raise NoDocumentError("response_empty") from None
    status = http.get_statuscode()
    if status != "200":
        first = status[:1] if status[:1] in ("1", "2", "3", "4", "5") and len(status) == 3 else "other"
        raise NoDocumentError(f"response_with_status_{first}xx" if first != "other" else "response_without_status")
    if (http.get_header("transfer-encoding") or "").strip().lower() == "chunked":
        stream = ChunkedDataReader(stream)
    return _without_encoding(_limited(stream), (http.get_header("content-encoding") or "").strip().lower())


def _limited(stream: Any) -> bytes:
    """All bytes of a stream.

    Raises:
        InputError: there are more than `MAX_PAYLOAD_BYTES`.
    """
    parts, size = [], 0
    while part := stream.read(1 << 20):
        size += len(part)
        if size > MAX_PAYLOAD_BYTES:
            raise InputError(f"a payload of more than {MAX_PAYLOAD_BYTES >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def _without_encoding(body: bytes, encoding: str) -> bytes:
    """The body decompressed; crawlers often store it so, and leave the header as it was."""
    if encoding in _IDENTITY:
        return body
    window = {"gzip": 31, "x-gzip": 31, "deflate": 47}.get(encoding)
    is_plain = body[:512].lstrip()[:1] == b"<"
    if is_plain or (window == 31 and not body.startswith(b"\x1f\x8b")):
        return body
    if window is None:
        raise InputError(f"content encoding {encoding[:20]!r}; can be read: gzip, deflate")
    try:
        decoder = zlib.decompressobj(window)
        decoded = decoder.decompress(body, MAX_PAYLOAD_BYTES + 1)
    except zlib.error as error:
        if encoding != "deflate":
            raise InputError(f"content encoding {encoding}: {error}") from error
        decoder = zlib.decompressobj(-15)  # some servers send it without zlib's header
        try:
            decoded = decoder.decompress(body, MAX_PAYLOAD_BYTES + 1)
        except zlib.error:
            raise InputError(f"content encoding {encoding}: {error}") from error
    if len(decoded) > MAX_PAYLOAD_BYTES:
        raise InputError(f"a payload of more than {MAX_PAYLOAD_BYTES >> 20} MiB")
    if not decoder.eof:
        raise InputError(f"content encoding {encoding}: the payload is cut")
    return decoded


def _html(body: bytes, record: Record) -> bytes:
    media_type = _media_type(record.header("WARC-Identified-Payload-Type")) or _guess(body)
    if media_type not in _HTML:
        raise NoDocumentError("response_of_other_media_type")
    return body


def _media_type(value: str | None) -> str:
    return (value or "").partition(";")[0].strip().lower()


def _guess(body: bytes) -> str:
    import magic

    guess: str = magic.from_buffer(body, mime=True)
    return guess


def _decoded(body: bytes) -> str:
    """UTF-8, else the encoding that cchardet detects."""
    import cchardet

    try:
        return body.decode()
    except UnicodeDecodeError:
        encoding = cchardet.detect(body)["encoding"]
    try:
        return body.decode(encoding or "utf-8")
    except (UnicodeDecodeError, LookupError):
        raise InputError(f"text in an unknown encoding (not UTF-8, guess: {encoding})") from None
