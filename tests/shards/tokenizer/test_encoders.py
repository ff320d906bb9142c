"""The fast engine against the reference, when it must step back, and how much memory it may take."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.shards.tokenizer import encoders as tokenizer_encoders
from colophon.shards.tokenizer import fast_engine as tokenizer_engine
from colophon.shards.tokenizer.encoders import FastEncoder, choose_encoder
from colophon.shards.tokenizer.engine_specs import SCHEMES
from colophon.shards.tokenizer.fast_engine import Gigatoken, used_memory
from colophon.shards.tokenizer.files import load_file
from colophon.shards.tokenizer.hard_texts import difference, hard_texts
from colophon.shards.tokenizer.patterns import PATTERNS
from colophon.shards.tokenizer.text_rows import IdSink
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from colophon.shards.tokenizer.unicode_differences import UNEQUAL_RANGES
from tests.shards.tokenizer.vocabularies import (
    CORPUS,
    SPECIAL_STRINGS,
    edit_json,
    random_words,
    write_byte_level_json,
    write_ranks,
    write_trained,
    write_unigram_json,
)

pytest.importorskip("gigatoken.gigatoken_rs")

FAST = "gigatoken 0.10"


def load(path: Path, **settings: Any) -> Tokenizer:
    return load_tokenizer(TokenizerConfig(path=str(path), **settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture(scope="module", params=[*PATTERNS, "json"])
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    if request.param == "json":
        return load(write_byte_level_json(folder / "bytes.json"))
    return load(write_trained(folder / f"{request.param}.tiktoken", pattern=request.param))


@pytest.fixture(scope="module")
def small_path(folder: Path) -> Path:
    return write_trained(folder / "small.tiktoken")


def reference_ids(tokenizer: Tokenizer, texts: list[str | None]) -> list[list[int]]:
    return [tokenizer._backend.encode(text).tolist() if text else [] for text in texts]


def same(tokenizer: Tokenizer, *texts: str | None) -> None:
    ids = tokenizer.encode_batch(pa.array(texts, pa.string())).to_pylist()
    assert tokenizer.engine.startswith(FAST)
    assert ids == reference_ids(tokenizer, list(texts))


# Equal ids


def test_the_engine_is_the_fast_one(tokenizer: Tokenizer) -> None:
    library = tokenizer._backend.library
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
    same(tokenizer, *batch)


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
    same(tokenizer, "before", LONG[kind], None, "after", "")


def test_many_texts_go_in_several_calls(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_encoders, "CALL_BYTES", 100)
    monkeypatch.setattr(tokenizer_encoders, "PART_BYTES", 60)
    same(tokenizer, *(CORPUS[k % 3] * (k % 4) + ("\u088f" if k % 7 == 0 else "") for k in range(60)))


# Columns of all kinds

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
def test_columns_of_all_kinds(tokenizer: Tokenizer, kind: str) -> None:
    column = columns()[kind]
    ids = tokenizer.encode_batch(column)
    assert ids.to_pylist() == reference_ids(tokenizer, column.to_pylist())
    assert ids.type == pa.list_(pa.from_numpy_dtype(tokenizer.dtype))
    assert ids.null_count == 0
    ids.validate(full=True)


# Stepping back


def test_without_the_package_the_reference_serves(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = load(small_path)
    for module in ("gigatoken.gigatoken_rs", "awkward"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            slow = load(small_path)
            assert slow.engine.startswith("tiktoken: gigatoken is not installed (ModuleNotFoundError")
        assert slow.settings == fast.settings
        assert slow.encode_batch(pa.array(ROWS)) == fast.encode_batch(pa.array(ROWS))


def test_another_pattern_keeps_the_reference(small_path: Path) -> None:
    assert load(small_path, pattern=r"\s+|\S+").engine == "tiktoken: no fast engine knows its pattern"


def test_ranks_that_the_engine_would_misread_keep_the_reference(tmp_path: Path) -> None:
    ranks = [b"%d" % k + b"x" for k in range(10)]
    path = write_ranks(tmp_path / "ranks.tiktoken", ranks)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2] + lines[-1:]))
    assert load(path, pattern="gpt2").engine == "tiktoken: its ranks have gaps"
    swapped = [lines[256].split()[0] + b" 0\n", *lines[1:256], lines[0].split()[0] + b" 256\n", *lines[257:]]
    path.write_bytes(b"".join(swapped))
    assert load(path, pattern="gpt2").engine == "tiktoken: its first 256 ranks are not the bytes"


def test_a_token_that_no_merge_makes_keeps_the_reference(tmp_path: Path) -> None:
    tokenizer = load(write_ranks(tmp_path / "ranks.tiktoken", [b"xyz"]), pattern="gpt2")
    assert tokenizer.engine.startswith("tiktoken: gigatoken fails: PanicException")
    assert tokenizer.encode_batch(pa.array(["xyz xy"])).to_pylist() == [[256, 32, 120, 121]]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_engine_with_another_pattern_is_found_out(
    folder: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_trained(folder / f"{pattern}.tiktoken", pattern=pattern)
    right = SCHEMES[PATTERNS[pattern]]
    # For cl100k_base the engine has a scheme of another name, whose expression means the same.
    others = set(SCHEMES.values()) - {right} - ({"olmo3"} if right == "gpt4" else set())
    for scheme in sorted(others):
        monkeypatch.setitem(SCHEMES, PATTERNS[pattern], scheme)
        assert load(path).engine.startswith("tiktoken: the fast engine gives other ids for "), scheme


@pytest.mark.parametrize("wrong", ["one id", "one count"])
def test_an_engine_that_gives_a_wrong_id_is_found_out(
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


def test_other_unicode_tables_are_found_out(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a version of the engine that the table was not made for."""
    monkeypatch.setattr("colophon.shards.tokenizer.unicode_differences.UNEQUAL_RANGES", ((0x0295, 0x0295),))
    monkeypatch.setattr("colophon.shards.tokenizer.encoders.unequal_rows", lambda texts, rows: np.empty(0, np.int64))
    assert load(small_path).engine.startswith("tiktoken: the fast engine gives other ids for ")


def test_an_engine_that_fails_later_is_replaced(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load(small_path)
    assert tokenizer.engine.startswith(FAST)
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
    assert tokenizer.engine == "tiktoken: gigatoken fails: RuntimeError: out of order"
    assert tokenizer.encode_batch(pa.array(rows)).to_pylist() == reference_ids(tokenizer, rows)
    assert len(calls) == 3


# tokenizer.json

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(expression: str, **changes: Any) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False, **changes}
    return {"type": "Sequence", "pretokenizers": [step, BYTE_LEVEL]}


LLAMA = next(expression for expression, scheme in SCHEMES.items() if scheme == "olmo3")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "it normalizes text"),
        ({"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True, "use_regex": True}}, "it adds a space before text"),
        ({"pre_tokenizer": None}, "it splits text in its own way"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "it splits text in its own way"),
        ({"pre_tokenizer": split(LLAMA, behavior="MergedWithNext")}, "it splits text in its own way"),
        ({"pre_tokenizer": split(LLAMA, invert=True)}, "it splits text in its own way"),
        ({"pre_tokenizer": split(r"\w+|\W+")}, "no fast engine knows its pattern"),
        ({"pre_tokenizer": split(LLAMA)}, None),
        ({"pre_tokenizer": split(PATTERNS["o200k_base"])}, None),
    ],
)
def test_what_a_json_may_have(tmp_path: Path, changes: dict[str, Any], reason: str | None) -> None:
    tokenizer = load(edit_json(write_byte_level_json(tmp_path / "x.json"), **changes))
    expected = "gigatoken 0.10.0, ids checked against tokenizers" if reason is None else f"tokenizers: {reason}"
    assert tokenizer.engine == expected
    rows = [*CORPUS, *SPECIAL_STRINGS, "a <plain> text", "e\u0301"]
    assert tokenizer.encode_batch(pa.array(rows)).to_pylist() == reference_ids(tokenizer, rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"byte_fallback": True}, "it is not a byte-level BPE vocabulary"),
        ({"continuing_subword_prefix": "##"}, "it marks where words begin or end"),
        ({"end_of_word_suffix": "</w>"}, "it marks where words begin or end"),
        ({"ignore_merges": True}, None),
    ],
)
def test_what_the_model_of_a_json_may_have(
    tmp_path: Path, change: dict[str, Any], reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_byte_level_json(tmp_path / "x.json")
    backend = load_file(path, pattern=None)
    content = edit_json(path, model={**load_json(path)["model"], **change})
    monkeypatch.setattr(backend, "_json", content.read_text())
    expected = "gigatoken 0.10.0, ids checked against tokenizers" if reason is None else f"tokenizers: {reason}"
    assert choose_encoder(backend).engine == expected


def load_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_json_without_some_byte_or_with_one_token_of_two_merges_keeps_the_reference(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "x.json")
    model = load_json(path)["model"]
    merges = [*model["merges"], ["t", "he"]]
    edit_json(path, model={**model, "merges": merges, "vocab": {**model["vocab"], "he": 1000, "the": 1001}})
    assert load(path).engine == "tokenizers: two of its merges give the same token"
    edit_json(path, model={**model, "vocab": {t: i for t, i in model["vocab"].items() if t != "Ā"}})
    assert load(path).engine == "tokenizers: it has no token for some bytes"


def test_a_unigram_json_keeps_the_reference(tmp_path: Path) -> None:
    engine = load(write_unigram_json(tmp_path / "unigram.json")).engine
    assert engine == "tokenizers: it is not a byte-level BPE vocabulary"


def test_added_tokens_that_text_may_give_are_given(tmp_path: Path) -> None:
    tokenizer = load(write_byte_level_json(tmp_path / "x.json"))
    rows = ["a <plain> b", "<plain", "<plain><plain>", "</s><s>", "plain"]
    same(tokenizer, *rows)
    plain = tokenizer._backend.num_ids - 1
    assert [plain in ids for ids in tokenizer.encode_batch(pa.array(rows)).to_pylist()] == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_many_added_tokens_are_looked_for_at_once(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "x.json")
    content = load_json(path)
    names = [f"<extra|{k}>" for k in range(500)] + ["a.b", "(", "\n\t", "ñ*"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    added = [{"id": 1000 + k, "content": name, **flags} for k, name in enumerate(names)]
    tokenizer = load(edit_json(path, added_tokens=[*content["added_tokens"], *added]))
    rows = ["x <extra|77>", "<extra|77", "axb", "a.b", "f(", "\n\t", "\n \t", "ñ*", "ññ", CORPUS[0]]
    same(tokenizer, *rows)
    last = content["added_tokens"][-1]["id"]  # the new ones get ids after it, whatever the file says
    given = [max(ids) > last for ids in tokenizer.encode_batch(pa.array(rows)).to_pylist()]
    assert given == [True, False, False, True, False, True, False, True, False, False]  # ( is of the vocabulary too


def test_more_added_tokens_than_can_be_looked_for_keep_the_reference(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "x.json")
    content = load_json(path)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    names = (f"<{k}{'漢' * 50}>" for k in range(20_000))
    added = [{"id": 1000 + k, "content": name, **flags} for k, name in enumerate(names)]
    edit_json(path, added_tokens=[*content["added_tokens"], *added])
    assert load(path).engine == "tokenizers: it has 20001 added tokens, too many to look for"


# Memory


def test_the_engine_is_built_anew_when_it_has_grown(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_engine, "MEMORY_BYTES", 6 << 20)
    monkeypatch.setattr(tokenizer_encoders, "CALL_BYTES", 512 << 10)
    tokenizer, builds, build = load(small_path), [], Gigatoken._build
    assert tokenizer.engine.startswith(FAST)
    monkeypatch.setattr(Gigatoken, "_build", lambda self: (builds.append(used_memory()), build(self)))
    batches = [pa.array(random_words(1 << 20, seed=seed)) for seed in range(8)]
    for batch in batches:
        ids = tokenizer.encode_batch(batch)
    assert ids.to_pylist() == reference_ids(tokenizer, batches[-1].to_pylist())
    assert len(builds) >= 3
    # Eight megabytes of words that never repeat would have grown it by some 60.
    assert max(builds) - min(builds) < 20 << 20


def test_an_engine_does_not_grow_on_words_that_repeat(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Gigatoken(load(small_path)._backend.recipe())
    monkeypatch.setattr(engine, "_build", lambda: pytest.fail("built anew"))
    data = np.frombuffer((CORPUS[0] * 50_000).encode(), np.uint8)
    for _ in range(5):
        engine.encode(data, np.array([0, data.size]))
    assert engine._grown < 1 << 20


def test_small_calls_count(small_path: Path) -> None:
    engine = Gigatoken(load(small_path)._backend.recipe())
    before = engine._grown
    engine.encode(np.frombuffer(b"0123456789", np.uint8), np.array([0, 4, 10]))
    assert engine._grown == before + 120


def test_without_an_allocator_that_tells_the_process_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: None) -> None:
        raise OSError("no C library")

    tokenizer_engine._used_memory.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", no_library)
        resident = used_memory()
    tokenizer_engine._used_memory.cache_clear()
    assert 0.5 < resident / psutil.Process().memory_info().rss < 2


def test_a_vocabulary_is_checked_with_its_own_tokens(small_path: Path) -> None:
    backend = load_file(small_path, pattern=None)
    texts = list(hard_texts(backend))
    assert texts == list(hard_texts(backend))
    given = {i for text in texts for i in backend.encode(text).tolist()}
    assert len(given) > 0.9 * backend.num_ids
    assert difference(FastEncoder(backend), backend) is None


def test_an_engine_is_not_built_for_what_needs_none(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("an engine was built")

    monkeypatch.setattr("colophon.shards.tokenizer.tokenizer.choose_encoder", fail)
    tokenizer = load(small_path)
    assert tokenizer.decode([104, 105]) == "hi"
    assert tokenizer.settings["name"] == "small"


@given(
    chunks=st.lists(st.lists(st.integers(0, 60_000), max_size=3000), max_size=6), first_id=st.sampled_from([0, 1000])
)
def test_a_sink_keeps_what_it_is_given(chunks: list[list[int]], first_id: int) -> None:
    sink = IdSink(np.dtype(np.uint16), expected=0)
    for chunk in chunks:
        sink.extend(np.array(chunk, dtype=np.uint32), first_id=first_id)
    lists = sink.lists(np.array([len(chunk) for chunk in chunks], dtype=np.int64))
    assert lists.to_pylist() == [[i + first_id for i in chunk] for chunk in chunks]
