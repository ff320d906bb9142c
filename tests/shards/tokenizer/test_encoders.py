"""The fast engine gives the reference's ids, and the reference replaces it when it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.shards.tokenizer import encoders as tokenizer_encoders
from colophon.shards.tokenizer.encoders import FastEncoder, first_difference
from colophon.shards.tokenizer.engine_specs import SCHEMES
from colophon.shards.tokenizer.fast_engine import Gigatoken
from colophon.shards.tokenizer.files import load_file
from colophon.shards.tokenizer.hard_texts import hard_texts
from colophon.shards.tokenizer.patterns import PATTERNS
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.shards.tokenizer.unicode_differences import UNEQUAL_RANGES
from tests.shards.tokenizer.vocabularies import (
    CORPUS,
    SPECIAL_STRINGS,
    assert_fast_and_equal,
    load,
    reference_ids,
    write_byte_level_json,
    write_trained,
)

pytest.importorskip("gigatoken.gigatoken_rs")


@pytest.fixture(scope="module", params=[*PATTERNS, "json"])
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    if request.param == "json":
        return load(write_byte_level_json(folder / "bytes.json"))
    return load(write_trained(folder / f"{request.param}.tiktoken", pattern=request.param))


# Equal ids


def test_the_fast_engine_encodes(tokenizer: Tokenizer) -> None:
    library = tokenizer.backend.library
    assert tokenizer.engine == f"gigatoken 0.10.0, ids checked against {library}"


unequal = st.sampled_from([chr(c) for pair in UNEQUAL_RANGES for c in pair])
signs = st.sampled_from([*"aAbB1 \n\r\t'.-/!_\x00\x85\xa0", "\u0301", "\u200d", "ſ", "ʕ", "ǅ", "ʰ", "漢", "ह", "😀"])
pieces = st.sampled_from(
    ["'s", "'S", "'ſ", "'LL", "'re", "n't", "  ", "\r\n", "\n\n ", "123", *SPECIAL_STRINGS, *CORPUS]
)
texts = st.one_of(
    st.text(signs, max_size=40),
    st.lists(st.one_of(signs, pieces, st.characters(), unequal), max_size=20).map("".join),
    st.text(max_size=60),
)


@given(batch=st.lists(st.one_of(st.none(), texts), max_size=8))
def test_ids_are_the_references(tokenizer: Tokenizer, batch: list[str | None]) -> None:
    assert_fast_and_equal(tokenizer, *batch)


LONG = {
    "one line of 5 MB": "it's a very long line of 12345 words, ünï and 漢字 " * 95_000,
    "a million spaces": " " * 1_000_000,
    "spaces between words": "a " + " " * 1_500_000 + " b",
    "no place to be cut at": "漢字かな" * 50_000,
    "one letter": "a" * 600_000,
    "a place at every limit": ("x" * 262_143 + " ") * 3,
    "line ends": "word\r\n\r\n" * 60_000,
    "an unequal character at the end": "the lazy dog " * 40_000 + "\u0295",
}


@pytest.mark.parametrize("tokenizer", ["gpt2", "o200k_base", "json"], indirect=True)
@pytest.mark.parametrize("kind", LONG)
def test_long_texts_have_the_references_ids(tokenizer: Tokenizer, kind: str) -> None:
    assert_fast_and_equal(tokenizer, "before", LONG[kind], None, "after", "")


def test_many_texts_are_encoded_in_several_calls(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_encoders, "CALL_BYTES", 100)
    monkeypatch.setattr(tokenizer_encoders, "PART_BYTES", 60)
    assert_fast_and_equal(tokenizer, *(CORPUS[k % 3] * (k % 4) + ("\u088f" if k % 7 == 0 else "") for k in range(60)))


# Columns of all types

ROWS = ["one", None, "", "two words", CORPUS[2], "\u0295", None, "x" * 50, "end"]


def columns() -> dict[str, Any]:
    array = pa.array(ROWS)
    hidden = pa.Array.from_buffers(
        pa.string(), 3, [pa.py_buffer(bytes([0b101])), pa.array([0, 1, 5, 6], pa.int32()).buffers()[1], b_("agonyb")]
    )
    return {
        "string": array,
        "large_string": array.cast(pa.large_string()),
        "string_view": array.cast(pa.string_view()),
        "dictionary": array.dictionary_encode(),
        "sliced": pa.concat_arrays([pa.array(["before"]), array, pa.array(["after"])]).slice(1, len(array)),
        "empty slice": array.slice(3, 0),
        "chunked": pa.chunked_array([array.slice(0, 4), array.slice(4, 0), array.slice(4)]),
        "chunked dictionary": pa.chunked_array([array.slice(0, 4), array.slice(4)]).dictionary_encode(),
        "no chunks": pa.chunked_array([], pa.string()),
        "no rows": pa.array([], pa.string()),
        "nulls": pa.nulls(4),
        "null strings": pa.nulls(4, pa.string()),
        "empty strings": pa.array(["", "", ""]),
        "nulls over bytes": hidden,
    }


def b_(text: str) -> pa.Buffer:
    return pa.py_buffer(text.encode())


@pytest.mark.parametrize("kind", columns())
def test_columns_of_all_types(tokenizer: Tokenizer, kind: str) -> None:
    column = columns()[kind]
    ids = tokenizer.encode_batch(column)
    assert ids.to_pylist() == reference_ids(tokenizer, column.to_pylist())
    assert ids.type == pa.list_(pa.from_numpy_dtype(tokenizer.dtype))
    assert ids.null_count == 0
    ids.validate(full=True)


# The reference instead of the engine


@pytest.fixture(autouse=True)
def nothing_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process compares a vocabulary once; the tests change the engine between."""
    monkeypatch.setattr(tokenizer_encoders, "_COMPARED", {})


def test_the_reference_encodes_without_the_package(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = load(small_path)
    for module in ("gigatoken.gigatoken_rs", "awkward"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            slow = load(small_path)
            assert slow.engine.startswith("tiktoken: gigatoken is not installed (ModuleNotFoundError")
        assert slow.settings == fast.settings
        assert slow.encode_batch(pa.array(ROWS)) == fast.encode_batch(pa.array(ROWS))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_engine_with_a_different_pattern_is_rejected(
    folder: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_trained(folder / f"{pattern}.tiktoken", pattern=pattern)
    right = SCHEMES[PATTERNS[pattern]]
    # The engine has a second scheme whose expression is equivalent to that of cl100k_base.
    others = set(SCHEMES.values()) - {right} - ({"olmo3"} if right == "gpt4" else set())
    for scheme in sorted(others):
        monkeypatch.setitem(SCHEMES, PATTERNS[pattern], scheme)
        tokenizer_encoders._COMPARED.clear()
        assert load(path).engine.startswith("tiktoken: the fast engine gives other ids for "), scheme


@pytest.mark.parametrize("wrong", ["one id", "one count"])
def test_an_engine_that_gives_a_wrong_id_is_rejected(
    small_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Gigatoken._call

    def call(self: Gigatoken, data: Any, bounds: Any) -> Any:
        counts, ids = right(self, data, bounds)
        if wrong == "one id":
            return counts, np.where(ids == ids[ids.size // 2], 7, ids).astype(np.uint32)
        return np.roll(counts, 1), ids

    monkeypatch.setattr(Gigatoken, "_call", call)
    tokenizer = load(small_path)
    assert tokenizer.encode_batch(pa.array([CORPUS[0]])).to_pylist() == reference_ids(tokenizer, [CORPUS[0]])
    assert tokenizer.engine.startswith("tiktoken: the fast engine gives other ids for ")


def test_an_engine_with_a_different_unicode_version_is_rejected(
    small_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that lacks characters stands for an engine newer than the table."""
    monkeypatch.setattr("colophon.shards.tokenizer.unicode_differences.UNEQUAL_RANGES", ((0x0295, 0x0295),))
    monkeypatch.setattr("colophon.shards.tokenizer.encoders.unequal_rows", lambda texts, rows: np.empty(0, np.int64))
    assert load(small_path).engine.startswith("tiktoken: the fast engine gives other ids for ")


def test_an_engine_that_fails_later_is_replaced(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load(small_path)
    assert tokenizer.engine.startswith("gigatoken 0.10")
    monkeypatch.setattr(tokenizer_encoders, "CALL_BYTES", 100)
    right, calls = Gigatoken._call, []

    def call(self: Gigatoken, data: Any, bounds: Any) -> Any:
        calls.append(bounds)
        if len(calls) == 3:
            raise RuntimeError("out of order")
        return right(self, data, bounds)

    monkeypatch.setattr(Gigatoken, "_call", call)
    rows = [*CORPUS, *ROWS] * 3
    assert tokenizer.encode_batch(pa.array(rows)).to_pylist() == reference_ids(tokenizer, rows)
    assert tokenizer.engine == "tiktoken: gigatoken failed: RuntimeError: out of order"
    assert tokenizer.encode_batch(pa.array(rows)).to_pylist() == reference_ids(tokenizer, rows)
    assert len(calls) == 3


def test_a_vocabulary_is_checked_with_its_own_tokens(small_path: Path) -> None:
    backend = load_file(small_path, pattern=None)
    texts = list(hard_texts(backend))
    assert texts == list(hard_texts(backend))
    given = {i for text in texts for i in backend.encode(text).tolist()}
    assert len(given) > 0.9 * backend.num_ids
    assert first_difference(FastEncoder(backend), backend) is None


def test_decoding_and_settings_build_no_engine(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("an engine was built")

    monkeypatch.setattr("colophon.shards.tokenizer.tokenizer.choose_encoder", fail)
    tokenizer = load(small_path)
    assert tokenizer.decode([104, 105]) == "hi"
    assert tokenizer.settings["name"] == "small"
