"""Files whose content is of a different kind than their names state, recognised by their first bytes."""

from __future__ import annotations

from colophon.pipeline.inputs.compression import open_as
from colophon.pipeline.inputs.search.formats import compression_of
from colophon.pipeline.recipe.schema import InputFormat

_START_BYTES = 64
_SKIPPABLE_FRAMES = {bytes([first]) + b"\x2a\x4d\x18": "zstd" for first in range(0x50, 0x60)}
_COMPRESSIONS = {
    **{b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bz2"},
    **_SKIPPABLE_FRAMES,
}
_FORMATS: dict[bytes, InputFormat] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"WARC/": "warc"}
_OTHERS = {
    b"version https://git-lfs.github.com/": "it is a Git LFS pointer in place of the data. Fetch it: git lfs pull",
    b"pk\x03\x04": "it is a zip archive. Unpack it",
    b"<!doctype html": "it is a web page in place of the data. Download it again",
    b"<html": "it is a web page in place of the data. Download it again",
}
"""By the first bytes, in lower case and after white space."""


def disguise_of(url: str, format: InputFormat) -> str | None:
    """The reason why a file is not of the kind that its name states, with a remedy; None if unknown. Reads 64 bytes.

    Args:
        url: an absolute path or a URL of a file that cannot be read.
        format: the one in which it was read.
    """
    try:
        with open_as(url, None) as file:
            start: bytes = file.read(_START_BYTES)
    except Exception:  # the error that led here is the one to report
        return None
    beginning = start.lstrip().lower()
    other = next((text for mark, text in _OTHERS.items() if beginning.startswith(mark)), None)
    if other is not None or not start:
        return other
    compression = next((name for mark, name in _COMPRESSIONS.items() if start.startswith(mark)), None)
    expected = compression_of(url)
    if compression not in (None, expected):
        return f"it is compressed with {compression}, and its name does not end so. Rename it"
    inside = next((name for mark, name in _FORMATS.items() if start.startswith(mark)), None)
    if inside not in (None, format):
        return f"it is a file of format {inside}, read as {format}. Rename it, or set input.format"
    is_cut = any(mark.startswith(start) for mark, name in _COMPRESSIONS.items() if name == expected)
    if compression is None and expected is not None and not is_cut:
        return f"its name ends as that of a {expected} file, and it is none. Rename it, or download it again"
    return None
