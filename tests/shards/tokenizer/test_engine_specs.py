"""Vocabularies that the fast engine supports, and the reasons why it does not support others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from colophon.shards.tokenizer.encoders import choose_encoder
from colophon.shards.tokenizer.engine_specs import SCHEMES
from colophon.shards.tokenizer.files import load_file
from colophon.shards.tokenizer.patterns import PATTERNS
from tests.shards.tokenizer.vocabularies import (
    CORPUS,
    SPECIAL_STRINGS,
    assert_fast_and_equal,
    edit_json,
    load,
    reference_ids,
    write_byte_level_json,
    write_ranks,
    write_unigram_json,
)

pytest.importorskip("gigatoken.gigatoken_rs")


# .tiktoken files


def test_an_unknown_pattern_needs_the_reference(small_path: Path) -> None:
    assert load(small_path, pattern=r"\s+|\S+").engine == "tiktoken: no fast engine supports its pattern"


def test_ranks_that_the_engine_would_misread_need_the_reference(tmp_path: Path) -> None:
    ranks = [b"%d" % k + b"x" for k in range(10)]
    path = write_ranks(tmp_path / "ranks.tiktoken", ranks)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2] + lines[-1:]))
    assert load(path, pattern="gpt2").engine == "tiktoken: its ranks have gaps"
    swapped = [lines[256].split()[0] + b" 0\n", *lines[1:256], lines[0].split()[0] + b" 256\n", *lines[257:]]
    path.write_bytes(b"".join(swapped))
    assert load(path, pattern="gpt2").engine == "tiktoken: its first 256 ranks are not the bytes"


def test_a_token_that_no_merge_gives_needs_the_reference(tmp_path: Path) -> None:
    tokenizer = load(write_ranks(tmp_path / "ranks.tiktoken", [b"xyz"]), pattern="gpt2")
    assert tokenizer.engine.startswith("tiktoken: gigatoken failed: PanicException")
    assert tokenizer.encode_batch(pa.array(["xyz xy"])).to_pylist() == [[256, 32, 120, 121]]


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
        ({"pre_tokenizer": None}, "no fast engine supports its pre-tokenizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "no fast engine supports its pre-tokenizer"),
        ({"pre_tokenizer": split(LLAMA, behavior="MergedWithNext")}, "no fast engine supports its pre-tokenizer"),
        ({"pre_tokenizer": split(LLAMA, invert=True)}, "no fast engine supports its pre-tokenizer"),
        ({"pre_tokenizer": split(r"\w+|\W+")}, "no fast engine supports its pattern"),
        ({"pre_tokenizer": split(LLAMA)}, None),
        ({"pre_tokenizer": split(PATTERNS["o200k_base"])}, None),
    ],
)
def test_settings_of_a_json_that_the_engine_supports(
    tmp_path: Path, changes: dict[str, Any], reason: str | None
) -> None:
    tokenizer = load(edit_json(write_byte_level_json(tmp_path / "x.json"), **changes))
    expected = "gigatoken 0.10.0, ids checked against tokenizers" if reason is None else f"tokenizers: {reason}"
    assert tokenizer.engine == expected
    rows = [*CORPUS, *SPECIAL_STRINGS, "a <plain> text", "e\u0301"]
    assert tokenizer.encode_batch(pa.array(rows)).to_pylist() == reference_ids(tokenizer, rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"byte_fallback": True}, "it is not a byte-level BPE vocabulary"),
        ({"continuing_subword_prefix": "##"}, "it marks the begin or end of words"),
        ({"end_of_word_suffix": "</w>"}, "it marks the begin or end of words"),
        ({"ignore_merges": True}, None),
    ],
)
def test_settings_of_a_jsons_model_that_the_engine_supports(
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


def test_a_json_that_lacks_a_byte_or_merges_two_pairs_to_one_token_needs_the_reference(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "x.json")
    model = load_json(path)["model"]
    merges = [*model["merges"], ["t", "he"]]
    edit_json(path, model={**model, "merges": merges, "vocab": {**model["vocab"], "he": 1000, "the": 1001}})
    assert load(path).engine == "tokenizers: two of its merges give the same token"
    edit_json(path, model={**model, "vocab": {t: i for t, i in model["vocab"].items() if t != "Ā"}})
    assert load(path).engine == "tokenizers: it has no token for some bytes"


def test_a_unigram_json_needs_the_reference(tmp_path: Path) -> None:
    engine = load(write_unigram_json(tmp_path / "unigram.json")).engine
    assert engine == "tokenizers: it is not a byte-level BPE vocabulary"


def test_added_tokens_that_are_not_special_are_found_in_text(tmp_path: Path) -> None:
    tokenizer = load(write_byte_level_json(tmp_path / "x.json"))
    rows = ["a <plain> b", "<plain", "<plain><plain>", "</s><s>", "plain"]
    assert_fast_and_equal(tokenizer, *rows)
    plain = tokenizer.backend.num_ids - 1
    found = [plain in ids for ids in tokenizer.encode_batch(pa.array(rows)).to_pylist()]
    assert found == [True, False, True, False, False]


def test_many_added_tokens_are_searched_for_at_once(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "x.json")
    content = load_json(path)
    names = [f"<extra|{k}>" for k in range(500)] + ["a.b", "(", "\n\t", "ñ*"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    added = [{"id": 1000 + k, "content": name, **flags} for k, name in enumerate(names)]
    tokenizer = load(edit_json(path, added_tokens=[*content["added_tokens"], *added]))
    rows = ["x <extra|77>", "<extra|77", "axb", "a.b", "f(", "\n\t", "\n \t", "ñ*", "ññ", CORPUS[0]]
    assert_fast_and_equal(tokenizer, *rows)
    last = content["added_tokens"][-1]["id"]  # the library gives the new tokens ids after it, not those in the file
    given = [max(ids) > last for ids in tokenizer.encode_batch(pa.array(rows)).to_pylist()]
    assert given == [True, False, False, True, False, True, False, True, False, False]  # "(" was in the vocabulary


def test_too_many_added_tokens_to_search_for_need_the_reference(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "x.json")
    content = load_json(path)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    names = (f"<{k}{'漢' * 50}>" for k in range(20_000))
    added = [{"id": 1000 + k, "content": name, **flags} for k, name in enumerate(names)]
    edit_json(path, added_tokens=[*content["added_tokens"], *added])
    assert load(path).engine == "tokenizers: it has 20001 added tokens, too many to search for"
