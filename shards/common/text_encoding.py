"""Text files are UTF-8, perhaps after a byte order mark; a file that is something else is named as what it is."""

from __future__ import annotations

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_REMEDY = "Convert it, if it is Latin-1: iconv -f LATIN1 -t UTF-8"
NOT_UTF8 = f"not UTF-8. {_REMEDY}"
_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_FORMATS = {
    b"\x1f\x8b": ("gzip", "Let its name end in .gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "Let its name end in .zst"),
    b"\xfd7zXZ\0": ("xz", "Let its name end in .xz"),
    b"BZh91AY&SY": ("bzip2", "Let its name end in .bz2"),
    b"PK\3\4": ("a zip archive", "Unpack it"),
    b"PAR1\x15": ("Parquet", "Let its name end in .parquet"),
    b"ARROW1\0\0": ("Arrow", "Let its name end in .arrow"),
}
"""Formats and remedies by the first bytes."""
_OF_ZEROS = {"x000": "UTF-32LE", "000x": "UTF-32BE", "x0x0": "UTF-16LE", "0x0x": "UTF-16BE"}
"""By the places of zeros in the first four bytes, as ASCII characters leave them."""


def encoding_problem(start: bytes) -> str | None:
    """Why a file with these first bytes, ten or more, is not UTF-8, and what to do; None if nothing shows it."""
    for mark, (form, remedy) in _FORMATS.items():
        if start.startswith(mark):
            return f"{form}, not text. {remedy}"
    marked = (name for mark, name in _MARKS.items() if start.startswith(mark))
    zeros = "".join("x" if byte else "0" for byte in start[:4])
    encoding = next(marked, None) or _OF_ZEROS.get(zeros)
    return None if encoding is None else f"{encoding}, not UTF-8. Convert it: iconv -f {encoding} -t UTF-8"


def utf8_text(content: bytes) -> str:
    """The text of a whole file, without its byte order mark.

    Raises:
        ValueError: it is not UTF-8; the message has its encoding, or the line of the first wrong byte, and what to do.
    """
    if problem := encoding_problem(content):
        raise ValueError(problem)
    try:
        return content.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(error, line=error.object.count(b"\n", 0, error.start) + 1)) from None


def not_utf8(error: UnicodeDecodeError, *, line: int | None = None) -> str:
    """The reason that an error of a decoder stands for, and what to do."""
    byte = f"the byte 0x{error.object[error.start]:02x}{'' if line is None else f' in line {line:,}'}"
    return f"not UTF-8: {byte}. {_REMEDY}"
