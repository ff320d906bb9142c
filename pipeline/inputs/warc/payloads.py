"""The text of a record, or why it has none.

Documents are records of type `response` with status 200 and an HTML payload, and records of type `conversion` (WET) and
`resource` with HTML or plain text. The text of HTML is its source: nothing is extracted. A payload's type is the one in
the record's headers, else libmagic's guess.
"""

from __future__ import annotations

import zlib
from typing import Any

from colophon.pipeline.errors import InputError
from colophon.pipeline.inputs.limits import TooLargeError, is_above, line_too_large, text_too_large, utf8_bytes
from colophon.pipeline.inputs.warc.records import MAX_HEADER_BYTES, Record, header_room

_BLOCK_BYTES = 1 << 20
_MAX_CHUNK_BYTES = 1 << 31
_GUESSED_BYTES = 7 << 20
"""libmagic reads no more."""

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


def text_of(record: Record, *, max_document_bytes: int) -> str:
    """The text of a record, whose content is read.

    Args:
        record: the record.
        max_document_bytes: UTF-8 bytes of the longest text, and of the longest payload with and without encoding.

    Raises:
        NoDocumentError: the record is of a type, status or media type that is no document.
        TooLargeError: the record is a document of more bytes.
        InputError: the record is a document, and cannot be decoded.
    """
    text = _text_of(record, max_document_bytes)
    if is_above(text, max_document_bytes):  # another encoding may have fewer bytes than UTF-8
        document = record.header("WARC-Record-ID")
        raise TooLargeError(text_too_large(utf8_bytes(text), max_document_bytes, document=document))
    return text


def _text_of(record: Record, limit: int) -> str:
    kind = record.type if record.type in _KINDS else "other"
    if kind == "response":
        return _decoded(_html(_response_body(record, limit), record))
    if kind not in ("conversion", "resource"):
        raise NoDocumentError(kind)
    if kind == "resource" and not (record.header("WARC-Target-URI") or "").strip("<").lower().startswith(_PAGES):
        raise NoDocumentError(kind)  # logs and manifests of the crawler: `metadata:`, `urn:`
    media_type = _media_type(record.header("WARC-Identified-Payload-Type") or record.header("Content-Type"))
    if media_type and media_type not in (*_HTML, "text/plain"):
        raise NoDocumentError(f"{kind}_of_other_media_type")
    body = _limited(record.parsed.raw_stream, limit)
    if not media_type and _guess(body) not in (*_HTML, "text/plain"):
        raise NoDocumentError(f"{kind}_of_other_media_type")
    return _decoded(body)


def _response_body(record: Record, limit: int) -> bytes | bytearray:
    """The payload of a response without the encodings of HTTP."""
    from warcio.statusandheaders import StatusAndHeadersParser

    stream = record.parsed.raw_stream
    if not (record.header("WARC-Target-URI") or "").strip("<").lower().startswith(("http:", "https:")):
        raise NoDocumentError("response_of_other_protocol")
    try:
        http = StatusAndHeadersParser(["HTTP/1.0", "HTTP/1.1"], verify=False).parse(_HeaderLines(stream))
    except EOFError:
        raise NoDocumentError("response_empty") from None
    status = http.get_statuscode()
    if status != "200":
        first = status[:1] if status[:1] in ("1", "2", "3", "4", "5") and len(status) == 3 else "other"
        raise NoDocumentError(f"response_with_status_{first}xx" if first != "other" else "response_without_status")
    is_chunked = (http.get_header("transfer-encoding") or "").strip().lower() == "chunked"
    body = _without_chunks(stream, limit) if is_chunked else _limited(stream, limit)
    return _without_encoding(body, (http.get_header("content-encoding") or "").strip().lower(), limit)


class _HeaderLines:
    """The headers at the beginning of a record's content."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._room = stream, MAX_HEADER_BYTES

    def readline(self) -> bytes:
        line: bytes = self._stream.readline(self._room + 1)
        self._room = header_room(self._room, line)
        return line


def _limited(stream: Any, limit: int, start: bytearray | None = None) -> bytearray:
    """All bytes of a stream, after those of `start`.

    Raises:
        TooLargeError: there are more than `limit`.
    """
    body = bytearray() if start is None else start
    while part := stream.read(_BLOCK_BYTES):
        body += part  # grows in place
        if len(body) > limit:
            raise _payload_too_large(limit)
    return body


def _payload_too_large(limit: int) -> TooLargeError:
    return TooLargeError(line_too_large(f"a payload of more than {limit:,} bytes", limit))


def _without_chunks(stream: Any, limit: int) -> bytearray:
    """The content of a chunked payload. As browsers do, it is taken as it is from where it is not chunked.

    warcio's reader holds whole chunks, of up to 2 GiB, and copies them for each part that it reads.

    Raises:
        TooLargeError: there are more than `limit` bytes.
    """
    body = bytearray()
    while True:
        header = stream.readline(64)
        num_bytes = _chunk_bytes(header)
        if num_bytes is None:
            return _limited(stream, limit, body + header)
        begin, remaining = len(body), num_bytes
        while remaining and (part := stream.read(min(_BLOCK_BYTES, remaining))):
            body += part
            remaining -= len(part)
            if len(body) > limit:
                raise _payload_too_large(limit)
        if remaining:
            return body  # the record ends in the chunk
        if stream.read(2) != b"\r\n":
            body[begin:begin] = header
            return _limited(stream, limit, body)
        if not num_bytes:
            return body


def _chunk_bytes(header: bytes) -> int | None:
    """The size in a chunk's header, `1a2b;extension` in hexadecimal; None if it is none."""
    try:
        num_bytes = int(header[:-2].split(b";")[0], 16)
    except ValueError:
        return None
    return num_bytes if header.endswith(b"\r\n") and 0 <= num_bytes <= _MAX_CHUNK_BYTES else None


def _without_encoding(body: bytearray, encoding: str, limit: int) -> bytes | bytearray:
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
        decoded = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        if encoding != "deflate":
            raise InputError(f"content encoding {encoding}: {error}") from error
        decoder = zlib.decompressobj(-15)  # some servers send it without zlib's header
        try:
            decoded = decoder.decompress(body, limit + 1)
        except zlib.error:
            raise InputError(f"content encoding {encoding}: {error}") from error
    if len(decoded) > limit:
        raise _payload_too_large(limit)
    if not decoder.eof:
        raise InputError(f"content encoding {encoding}: the payload is cut")
    return decoded


def _html(body: bytes | bytearray, record: Record) -> bytes | bytearray:
    media_type = _media_type(record.header("WARC-Identified-Payload-Type")) or _guess(body)
    if media_type not in _HTML:
        raise NoDocumentError("response_of_other_media_type")
    return body


def _media_type(value: str | None) -> str:
    return (value or "").partition(";")[0].strip().lower()


def _guess(body: bytes | bytearray) -> str:
    import magic

    guess: str = magic.from_buffer(bytes(body[:_GUESSED_BYTES]), mime=True)
    return guess


def _decoded(body: bytes | bytearray) -> str:
    """UTF-8, else the encoding that cchardet detects."""
    import cchardet

    try:
        return body.decode()
    except UnicodeDecodeError:
        encoding = cchardet.detect(bytes(body))["encoding"]
    try:
        return body.decode(encoding or "utf-8")
    except (UnicodeDecodeError, LookupError):
        raise InputError(f"text in an unknown encoding (not UTF-8, guess: {encoding})") from None
