"""The table of characters that libraries sort into different classes equals that of the installed libraries."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from colophon.shards.tokenizer.engine_specs import SCHEMES
from colophon.shards.tokenizer.text_rows import text_rows
from colophon.shards.tokenizer.unicode_differences import (
    UNEQUAL_RANGES,
    sampled_characters,
    unequal_code_points,
    unequal_rows,
)

gigatoken = pytest.importorskip("gigatoken.gigatoken_rs")
awkward = pytest.importorskip("awkward")

CODE_POINTS = [c for c in (*range(0x40000), *range(0xE0000, 0xE1000)) if not 0xD800 <= c < 0xE000]
CODE_POINTS += range(0x40000, 0x110000, 17)
CODE_POINTS = sorted(set(CODE_POINTS))
"""All code points of the planes with characters, and a sample of the ten empty planes and the two for private use."""
ENCODED = [chr(c).encode() for c in CODE_POINTS]
CLASSES = (r"\p{Lu}|\p{Lt}", r"\p{Ll}", r"\p{Lm}|\p{Lo}", r"\p{M}", r"\p{N}", r"\s")
"""The classes that the patterns distinguish."""
NEIGHBOURS = ((b"A", b""), (b"a", b""), (b"1", b""), (b"!", b""), (b"!!", b""), (b"", b"a"), (b"", b"Aa"), (b"", b"\n"))
"""Texts before and after a character. Those with which it forms one piece identify its class."""


def by_tiktoken(expression: str) -> set[int]:
    """The characters that the expression matches: tiktoken drops the others."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("classes", pat_str=expression, mergeable_ranks=ranks, special_tokens={"<|x|>": 256})
    text = "".join(map(chr, CODE_POINTS))
    parts = (text[i : i + 65536] for i in range(0, len(text), 65536))
    ids = [encoding.encode_to_numpy(part, disallowed_special=()) for part in parts]
    return set(map(ord, np.concatenate(ids).astype(np.uint8).tobytes().decode()))


def by_tokenizers(expression: str) -> set[int]:
    """The same for the engine of `tokenizers`: a splitter removes the matches."""
    splitter = pre_tokenizers.Split(Regex(expression), "removed")
    text = "".join(map(chr, CODE_POINTS))
    parts = (text[i : i + 16384] for i in range(0, len(text), 16384))
    kept = {ord(char) for part in parts for piece, _ in splitter.pre_tokenize_str(part) for char in piece}
    return set(CODE_POINTS) - kept


@pytest.fixture(scope="module")
def classes() -> np.ndarray:
    """The class of each code point in tiktoken: 0, or 1 + its place in `CLASSES`."""
    result = np.zeros(0x110000, dtype=np.int64)
    for number, expression in enumerate(CLASSES, start=1):
        result[list(by_tiktoken(expression))] = number
    return result[CODE_POINTS]


@pytest.fixture(scope="module")
def ranks_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes, and tokens of a neighbour and the first or last byte of a character; they merge if they are one piece."""
    tokens = [bytes([byte]) for byte in range(256)]
    for before, after in NEIGHBOURS:
        tokens += [before[-1:] + bytes([byte]) + after[:1] for byte in range(128, 256)]
    path = tmp_path_factory.mktemp("classes") / "classes.tiktoken"
    ranked = enumerate(dict.fromkeys(tokens))
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in ranked))
    return path


@pytest.fixture(scope="module")
def documents() -> list[tuple[np.ndarray, np.ndarray]]:
    """For each neighbour, the bytes and bounds of texts with each non-ASCII character beside it."""
    encoded = ENCODED[128:]
    lengths = np.array([len(e) for e in encoded])
    result = []
    for before, after in NEIGHBOURS:
        data = before + (after + before).join(encoded) + after
        bounds = np.concatenate([[0], np.cumsum(lengths + len(before + after))])
        result.append((np.frombuffer(data, np.uint8), bounds))
    return result


def joins(tokenizer: Any, documents: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    """For each neighbour, whether each non-ASCII character forms one piece with it."""
    for data, bounds in documents:
        contents = awkward.contents.ListOffsetArray(awkward.index.Index64(bounds), awkward.contents.NumpyArray(data))
        layout = tokenizer.encode_batch(awkward.Array(contents), parallel=False).layout
        yield np.diff(layout.offsets.data) < np.diff(bounds)


@pytest.mark.parametrize("scheme", sorted(set(SCHEMES.values())))
def test_the_table_holds_every_character_of_unequal_class(
    scheme: str, classes: np.ndarray, ranks_file: Path, documents: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    tokenizer = gigatoken.BPETokenizer.from_tiktoken(str(ranks_file), scheme)
    signatures = np.zeros(len(CODE_POINTS) - 128, dtype=np.int64)
    for bit, joined in enumerate(joins(tokenizer, documents)):
        signatures |= joined.astype(np.int64) << bit
    unequal = set()
    usual = []
    for number in range(len(CLASSES) + 1):
        members = classes[128:] == number
        values, counts = np.unique(signatures[members], return_counts=True)
        usual.append(int(values[counts.argmax()]))
        unequal |= {CODE_POINTS[128 + i] for i in np.flatnonzero(members & (signatures != usual[-1]))}
    # Every pattern distinguishes letters, numbers, white space and the rest; some distinguish cases and marks.
    assert len(set(usual)) == (7 if scheme in ("o200k", "nemotron") else 4), usual
    assert sorted(unequal - unequal_code_points()) == []
    if scheme == "o200k":
        assert unequal == unequal_code_points()  # the table has no superfluous character


def test_tokenizers_has_the_classes_of_tiktoken(classes: np.ndarray) -> None:
    for number, expression in enumerate(CLASSES, start=1):
        assert by_tokenizers(expression) == {CODE_POINTS[i] for i in np.flatnonzero(classes == number)}


def test_ascii_has_the_same_classes_everywhere(classes: np.ndarray) -> None:
    kinds = {number: "".join(map(chr, np.flatnonzero(classes[:128] == number))) for number in range(1, 7)}
    upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert list(kinds.values()) == [upper, upper.lower(), "", "", "0123456789", "\t\n\x0b\x0c\r "]


def test_ranges_are_ascending_and_do_not_touch() -> None:
    flat = [c for pair in UNEQUAL_RANGES for c in pair]
    assert flat == sorted(flat)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(UNEQUAL_RANGES))


def test_the_sample_has_the_neighbours_of_ranges_and_no_character_of_a_range() -> None:
    sample = set(map(ord, sampled_characters()))
    assert not sample & unequal_code_points()
    assert {c for first, last in UNEQUAL_RANGES for c in (first - 1, last + 1)} - unequal_code_points() <= sample
    assert len(sample) > 10_000


def found(texts: pa.Array) -> list[int]:
    return unequal_rows(texts, text_rows(texts)).tolist()


def test_exactly_the_characters_of_the_table_are_found() -> None:
    texts = pa.array([chr(c) for c in CODE_POINTS])
    assert [CODE_POINTS[row] for row in found(texts)] == sorted(unequal_code_points())


edges = st.sampled_from([chr(c + d) for pair in UNEQUAL_RANGES for c in pair for d in (-1, 0, 1)])


@given(
    texts=st.lists(st.one_of(st.none(), st.lists(st.one_of(edges, st.characters(), st.text())).map("".join))),
    start=st.integers(0, 5),
    kind=st.sampled_from([pa.string(), pa.large_string()]),
)
def test_rows_are_found_at_every_place(texts: list[str | None], start: int, kind: pa.DataType) -> None:
    array = pa.array(texts, kind).slice(start)
    bad = set(map(chr, unequal_code_points()))
    assert found(array) == [row for row, text in enumerate(texts[start:]) if text and bad & set(text)]


def test_a_character_across_two_blocks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colophon.shards.tokenizer.unicode_differences._BLOCK", 4)
    texts = ["x" * n + "\u088f" for n in range(9)] + ["xyz", "\u088e"]
    assert found(pa.array(texts)) == list(range(9))
