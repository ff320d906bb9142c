"""The contract of `Tokenizer` over Arrow columns, for each type of vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, TokenizerError, load_tokenizer
from tests.shards.tokenizer.vocabularies import (
    CORPUS,
    SPECIAL_STRINGS,
    edit_json,
    read_encoding,
    write_byte_level_json,
    write_ranks,
    write_trained,
    write_unigram_json,
)

TEXTS = [*CORPUS, "", "x", " ", "\n", "\x00", "é", "😀" * 3]


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    return write_trained(folder / "small.tiktoken")


@pytest.fixture(scope="module")
def small(trained: Path) -> Tokenizer:
    return load_tokenizer(TokenizerConfig(path=str(trained)))


@pytest.fixture(scope="module")
def byte_level(folder: Path) -> Tokenizer:
    return load_tokenizer(TokenizerConfig(path=str(write_byte_level_json(folder / "bytes.json"))))


@pytest.fixture(scope="module")
def unigram(folder: Path) -> Tokenizer:
    return load_tokenizer(TokenizerConfig(path=str(write_unigram_json(folder / "unigram.json"))))


@pytest.fixture(scope="module")
def tekken() -> Tokenizer:
    return load_tokenizer(TokenizerConfig(name="tekken"))


def encode(tokenizer: Tokenizer, *texts: str) -> list[list[int]]:
    return tokenizer.encode_batch(pa.array(texts, pa.string())).to_pylist()


def special_ids(tokenizer: Tokenizer) -> set[int]:
    special = tokenizer.special
    return {special.bos, special.eos, special.pad, special.boc, special.eoc, *special.meta}


@given(text=st.text())
def test_a_byte_level_vocabulary_decodes_to_the_text(small: Tokenizer, text: str) -> None:
    assert small.decode(encode(small, text)[0]) == text


@given(text=st.text())
def test_a_byte_level_json_decodes_to_the_text(byte_level: Tokenizer, text: str) -> None:
    assert byte_level.decode(encode(byte_level, text)[0]) == text


@given(text=st.text())
def test_tekken_decodes_to_the_text(tekken: Tokenizer, text: str) -> None:
    assert tekken.decode(encode(tekken, text)[0]) == text


fragments = st.sampled_from([*SPECIAL_STRINGS, "the ", "it's", " 12345", "\r\n\n", "   ", "漢字", "é", "हिन्दी", "\x00"])


@given(text=st.one_of(st.text(), st.lists(fragments, max_size=12).map("".join)))
def test_ids_are_those_of_tiktoken(small: Tokenizer, trained: Path, text: str) -> None:
    reference = read_encoding(trained, pattern="o200k_base")
    assert encode(small, text) == [reference.encode_ordinary(text)]


@pytest.mark.parametrize("vocabulary", ["small", "byte_level", "unigram", "tekken"])
@given(parts=st.lists(fragments, max_size=8))
def test_text_never_gives_a_special_id(request: pytest.FixtureRequest, vocabulary: str, parts: list[str]) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(vocabulary)
    ids = set(encode(tokenizer, "".join(parts))[0])
    assert not ids & special_ids(tokenizer)
    assert max(ids, default=0) < tokenizer.num_base_ids


@pytest.mark.parametrize("vocabulary", ["small", "byte_level", "unigram", "tekken"])
def test_special_strings_alone_are_ordinary_text(request: pytest.FixtureRequest, vocabulary: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(vocabulary)
    for text, ids in zip(SPECIAL_STRINGS, encode(tokenizer, *SPECIAL_STRINGS), strict=True):
        assert not set(ids) & special_ids(tokenizer)
        assert tokenizer.decode(ids) == text


def test_a_metaspace_vocabulary_keeps_its_spelling(unigram: Tokenizer) -> None:
    ids = encode(unigram, "the lazy the")[0]
    assert unigram.token_strings(ids) == ["▁the", "▁", "lazy", "▁the"]
    assert unigram.decode(ids) == "the lazy the"


def test_padding_truncation_and_post_processor_of_a_json_are_off(byte_level: Tokenizer) -> None:
    ids = encode(byte_level, CORPUS[0] * 3)[0]
    assert len(ids) > 64
    assert byte_level.decode(ids) == CORPUS[0] * 3
    assert encode(byte_level, "") == [[]]


def test_special_strings_have_the_ids_of_a_json_without_special_tokens(tmp_path: Path, byte_level: Tokenizer) -> None:
    path = edit_json(write_byte_level_json(tmp_path / "tokenizer.json"), added_tokens=[])
    without = load_tokenizer(TokenizerConfig(path=str(path)))
    texts = [*SPECIAL_STRINGS, "".join(SPECIAL_STRINGS), *CORPUS]
    assert encode(byte_level, *texts) == encode(without, *texts)


def test_added_tokens_of_a_json_that_are_not_special_are_found_in_text(byte_level: Tokenizer) -> None:
    assert byte_level.token_strings(encode(byte_level, "a<plain>")[0]) == ["a", "<plain>"]


arrow_columns: list[Callable[[list[str | None]], pa.Array | pa.ChunkedArray]] = [
    lambda texts: pa.array(texts, pa.string()),
    lambda texts: pa.array(texts, pa.large_string()),
    lambda texts: pa.array(texts, pa.string_view()),
    lambda texts: pa.array(["before", None, *texts, "after"], pa.string()).slice(2, len(texts)),
    lambda texts: pa.chunked_array([texts[:2], [], texts[2:]], pa.string()),
    lambda texts: pa.chunked_array([texts[:1], texts[1:]], pa.large_string()).slice(0),
    lambda texts: pa.array(texts, pa.string()).dictionary_encode(),
]


@pytest.mark.parametrize("column", arrow_columns)
def test_all_string_columns_give_the_same_rows(
    small: Tokenizer, column: Callable[[list[str | None]], pa.Array]
) -> None:
    texts = [None, *TEXTS, None]
    ids = small.encode_batch(column(texts))
    assert ids.type == pa.list_(pa.uint16())
    assert isinstance(ids, pa.ListArray)
    assert ids.null_count == 0
    assert ids.to_pylist() == [encode(small, text)[0] if text else [] for text in texts]


@pytest.mark.parametrize("column", [pa.array([], pa.string()), pa.chunked_array([], pa.string())])
def test_no_rows_give_no_rows(small: Tokenizer, column: pa.Array) -> None:
    ids = small.encode_batch(column)
    assert (len(ids), ids.type) == (0, pa.list_(pa.uint16()))


def test_a_column_of_nulls_gives_empty_rows(small: Tokenizer) -> None:
    assert small.encode_batch(pa.nulls(3)).to_pylist() == [[], [], []]


def test_a_column_that_is_not_text_is_refused(small: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="texts must be strings, got a column of type int64"):
        small.encode_batch(pa.array([1]))


def test_a_text_that_is_not_utf_8_is_refused_with_its_row(small: Tokenizer) -> None:
    broken = pa.array([b"fine", b"\xff\xfe"]).view(pa.string())
    with pytest.raises(TokenizerError, match="row 3 is not UTF-8"):
        small.encode_batch(pa.chunked_array([pa.array(["a", "b"]), broken]))


@pytest.mark.parametrize(("num_ids", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_the_dtype_fits_added_ids(tmp_path: Path, num_ids: int, dtype: type[np.unsignedinteger]) -> None:
    num_added = 10  # bos, eos, pad, boc, eoc and five meta tokens
    tokens = (b"\x00%d\x00" % k for k in range(num_ids - num_added - 256))
    path = write_ranks(tmp_path / "large.tiktoken", tokens)
    tokenizer = load_tokenizer(TokenizerConfig(path=str(path), pattern="gpt2"))
    assert (tokenizer.num_base_ids, tokenizer.num_ids) == (num_ids - num_added, num_ids)
    assert tokenizer.dtype == dtype
    assert tokenizer.encode_batch(pa.array(["abc"])).values.type == pa.from_numpy_dtype(dtype)
    assert max(special_ids(tokenizer)) == num_ids - 1 <= np.iinfo(tokenizer.dtype).max


def test_settings_do_not_depend_on_meta_tokens_or_the_path(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / trained.name
    copy.write_bytes(trained.read_bytes())
    here = load_tokenizer(TokenizerConfig(path=str(trained)), num_meta_tokens=0)
    there = load_tokenizer(TokenizerConfig(path=str(copy), pattern="o200k_base", boc="<b>"), num_meta_tokens=9)
    assert here.settings == there.settings == {"name": "small", "sha256": here.sha256, "dtype": "uint16"}
    other = load_tokenizer(TokenizerConfig(path=str(copy), pattern="gpt2"))
    assert other.sha256 != here.sha256


def test_decode_shows_special_tokens_by_name(small: Tokenizer) -> None:
    ids = [small.special.bos, small.special.boc, *encode(small, "é")[0], small.special.eoc, *small.special.meta[:2]]
    shown = "<|begin_of_text|><|context_begin|>é<|context_end|><|meta_1|><|meta_2|>"
    assert small.decode(np.array(ids, dtype=small.dtype)) == shown
    assert small.decode(pa.array(ids)) == shown
    assert small.token_strings(ids)[:2] == ["<|begin_of_text|>", "<|context_begin|>"]


@pytest.mark.parametrize("vocabulary", ["small", "byte_level", "tekken"])
def test_token_strings_are_printable(request: pytest.FixtureRequest, vocabulary: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(vocabulary)
    for text in (*TEXTS, "".join(map(chr, range(0x300)))):
        ids = encode(tokenizer, text)[0]
        strings = tokenizer.token_strings(ids)
        assert len(strings) == len(ids)
        assert all(string.isprintable() and string for string in strings)
    half = encode(tokenizer, "\U000110a7")[0][:1]  # a rare letter: bytes apart in all three
    assert tokenizer.token_strings(half)[0].startswith("\\x")
    assert tokenizer.decode(half) == "\ufffd"


@pytest.mark.parametrize("vocabulary", ["small", "byte_level", "unigram", "tekken"])
@pytest.mark.parametrize("bad", [-1, 10**6])
def test_an_id_without_a_token_is_refused(request: pytest.FixtureRequest, vocabulary: str, bad: int) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(vocabulary)
    for function in (tokenizer.decode, tokenizer.token_strings):
        with pytest.raises(TokenizerError, match=f"no token of {tokenizer.name} has the id {bad}"):
            function([0, bad])


def test_more_tokens_than_one_list_array_holds_are_refused(small: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert small.encode_batch(pa.array(["a", "b"])).to_pylist() == [[97], [98]]
    monkeypatch.setattr("colophon.shards.tokenizer.text_rows.MAX_IDS", 1)
    with pytest.raises(TokenizerError, match=r"the texts have 2 or more tokens; one array holds 1\. Pass fewer rows"):
        small.encode_batch(pa.array(["a", "b"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of name and path"),
        ({"name": "gpt2", "path": "x.tiktoken"}, "exactly one of name and path"),
        ({"name": "gpt2", "pattern": "gpt2"}, "pattern is for a .tiktoken file"),
        ({"name": "gpt2", "boc": ""}, "must not be empty"),
        ({"name": "gpt2", "nmae": "x"}, "Extra inputs are not permitted"),
        ({"name": "gpt2", "special_slots": "spare"}, "'added' or 'reserved'"),
    ],
)
def test_an_invalid_config_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig(**settings)


@pytest.mark.parametrize("vocabulary", ["small", "byte_level", "tekken"])
def test_readable_strings_have_characters_whole(request: pytest.FixtureRequest, vocabulary: str) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(vocabulary)
    text = "größer 東京 🙂"
    ids = encode(tokenizer, text)[0]
    strings = tokenizer.readable_strings(ids)
    assert len(strings) == len(ids)
    assert "".join(strings) == text
    cut = encode(tokenizer, "\U0001fae0")[0][:1]
    *shown, name = tokenizer.readable_strings([*cut, tokenizer.special.eos])
    assert shown[0].startswith("\\xf0")
    assert name == tokenizer.special_names[tokenizer.special.eos]
