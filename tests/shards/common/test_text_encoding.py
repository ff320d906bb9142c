"""Text files of users: UTF-8 with or without a byte order mark; any other encoding is named, never read as text."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard

from colophon.shards.common.text_encoding import encoding_problem, utf8_text

SUFFIXES = {"gzip": "gz", "bzip2": "bz2", "xz": "xz", "zstd": "zst"}
TEXTS = ["a", "größe\n", "word " * 100, "[input]\n", '{"text": "中"}', "", "a\0b", "\0", "日本"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_byte_order_mark_is_no_text(text: str) -> None:
    assert utf8_text(text.encode()) == utf8_text(codecs.BOM_UTF8 + text.encode()) == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_other_encodings_of_unicode_are_named_with_the_command_that_converts(encoding: str) -> None:
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    for content in ("text,id\n", "[input]\n", "example.org\n", "ab", '{"größe": 1}'):
        problem = encoding_problem(content.encode(encoding)[:4])
        assert problem == f"{name}, not UTF-8. Convert it: iconv -f {name} -t UTF-8", content


@pytest.mark.parametrize(
    ("compress", "form"),
    [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz"), (zstandard.compress, "zstd")],
)
def test_compressed_text_without_its_suffix_is_named(compress: Callable[[bytes], bytes], form: str) -> None:
    problem = encoding_problem(compress(b'{"text": "a"}\n' * 100)[:10])
    assert problem == f"{form}, not text. Let its name end in .{SUFFIXES[form]}"


def test_the_line_of_a_byte_of_latin_1_is_named() -> None:
    with pytest.raises(ValueError, match=r"^not UTF-8: the byte 0xe9 in line 3\. Convert it, if it is Latin-1: iconv"):
        utf8_text("one\ntwo\ncafé\n".encode("latin-1"))
