"""Assignment of ids to special tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.shards.schema import SpecialIds
from colophon.shards.tokenizer.special_tokens import Assignment, Slots, assign_special_ids
from colophon.shards.tokenizer.tokenizer import TokenizerConfig, TokenizerError, load_tokenizer
from tests.shards.tokenizer.vocabularies import write_byte_level_json, write_ranks

TEKKEN_LIKE = {"<s>": 1, "</s>": 2, "<pad>": 11} | {f"<SPECIAL_{i}>": i for i in range(20, 100)}


def assign(
    wanted: dict[str, str] | None = None,
    *,
    slots: Slots = "added",
    meta: int = 5,
    existing: dict[str, int] | None = None,
    base: int = 500,
) -> Assignment:
    return assign_special_ids(
        wanted or {},
        slots=slots,
        num_meta_tokens=meta,
        existing=existing or {},
        num_base_ids=base,
        is_ordinary={"the", "<"}.__contains__,
    )


def test_all_tokens_are_added_to_a_vocabulary_without_any() -> None:
    assert assign(meta=2) == Assignment(
        SpecialIds(eos=500, bos=501, pad=502, boc=503, eoc=504, meta=(505, 506)),
        {
            500: "<|endoftext|>",
            501: "<|begin_of_text|>",
            502: "<|pad|>",
            503: "<|context_begin|>",
            504: "<|context_end|>",
            505: "<|meta_1|>",
            506: "<|meta_2|>",
        },
        507,
    )


def test_only_missing_tokens_are_added() -> None:
    result = assign(existing={"</s>": 2, "<unk>": 0}, meta=0)
    assert result.special == SpecialIds(eos=2, bos=500, pad=501, boc=502, eoc=503, meta=())
    assert result.names[0] == "<unk>"


def test_reserved_slots_in_tekken_numbering_start_at_61() -> None:
    result = assign(slots="reserved", existing=TEKKEN_LIKE)
    assert result.special == SpecialIds(bos=1, eos=2, pad=11, boc=61, eoc=62, meta=(63, 64, 65, 66, 67))
    assert result.num_ids == 500
    assert (result.names[61], result.names[68]) == ("<|context_begin|>", "<SPECIAL_68>")


def test_other_reserved_slots_start_at_the_first() -> None:
    existing = {"<s>": 300, "</s>": 301} | {f"<|reserved_special_token_{k}|>": 310 + k for k in (2, 0, 3, 1)}
    result = assign(slots="reserved", existing=existing, meta=2)
    assert result.special == SpecialIds(bos=300, eos=301, pad=500, boc=310, eoc=311, meta=(312, 313))
    assert result.num_ids == 501


def test_a_slot_chosen_by_name_is_used_once() -> None:
    result = assign({"eoc": "<SPECIAL_61>"}, slots="reserved", existing=TEKKEN_LIKE, meta=1)
    assert (result.special.boc, result.special.eoc, result.special.meta) == (62, 61, (63,))
    assert result.names[61] == "<SPECIAL_61>"


@given(meta=st.integers(0, 60), slots=st.sampled_from(["added", "reserved"]), known=st.booleans())
def test_all_ids_differ_and_do_not_depend_on_the_number_of_meta_tokens(meta: int, slots: Slots, known: bool) -> None:
    existing = TEKKEN_LIKE if known else {}
    if slots == "reserved" and meta + 2 > (39 if known else 0):
        with pytest.raises(TokenizerError, match=f"has {39 if known else 0} free"):
            assign(slots=slots, meta=meta, existing=existing)
        return
    result, without = (assign(slots=slots, meta=m, existing=existing) for m in (meta, 0))
    s = result.special
    ids = [s.bos, s.eos, s.pad, s.boc, s.eoc, *s.meta]
    assert len(set(ids)) == len(ids) == meta + 5
    assert max(ids) < result.num_ids
    assert without.special == SpecialIds(bos=s.bos, eos=s.eos, pad=s.pad, boc=s.boc, eoc=s.eoc, meta=())


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"boc": "the"}, r"'the' \(boc\) is an ordinary token"),
        ({"pad": "<"}, r"'<' \(pad\) is an ordinary token"),
        ({"boc": "<x>", "eoc": "<x>"}, "'<x>' is the name of both boc and eoc"),
        ({"bos": "<|endoftext|>"}, "'<|endoftext|>' is the name of both eos and bos".replace("|", r"\|")),
        ({"boc": "<|meta_3|>"}, "both boc and meta 3"),
    ],
)
def test_invalid_names_are_refused(wanted: dict[str, str], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        assign(wanted)


def test_a_negative_number_of_meta_tokens_is_refused() -> None:
    with pytest.raises(TokenizerError, match="must be at least 0, got -1"):
        assign(meta=-1)


def test_tekken_uses_the_slots_of_the_paper() -> None:
    tokenizer = load_tokenizer(TokenizerConfig(name="tekken"))
    assert tokenizer.special == SpecialIds(bos=1, eos=2, pad=11, boc=61, eoc=62, meta=(63, 64, 65, 66, 67))
    assert tokenizer.num_ids == tokenizer.num_base_ids == 131_072
    added = load_tokenizer(TokenizerConfig(name="tekken", special_slots="added"), num_meta_tokens=1)
    assert added.special == SpecialIds(bos=1, eos=2, pad=11, boc=131_072, eoc=131_073, meta=(131_074,))
    assert added.num_ids == 131_075


def test_tekken_has_room_for_937_meta_tokens() -> None:
    config = TokenizerConfig(name="tekken")
    assert load_tokenizer(config, num_meta_tokens=937).special.meta[-1] == 999
    with pytest.raises(TokenizerError, match=r"no room for 940 special tokens .* has 939 free"):
        load_tokenizer(config, num_meta_tokens=938)


def test_a_vocabulary_of_ranks_has_no_reserved_slots(tmp_path: Path) -> None:
    path = write_ranks(tmp_path / "bytes.tiktoken", [b"the"])
    with pytest.raises(TokenizerError, match=r"has 0 free\. Set fewer meta tokens, or special_slots = 'added'"):
        load_tokenizer(TokenizerConfig(path=str(path), pattern="gpt2", special_slots="reserved"))
    with pytest.raises(TokenizerError, match=r"'the' .* is an ordinary token"):
        load_tokenizer(TokenizerConfig(path=str(path), pattern="gpt2", eoc="the"))


def test_the_special_tokens_of_a_json_are_used(tmp_path: Path) -> None:
    path = str(write_byte_level_json(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(TokenizerConfig(path=path), num_meta_tokens=0)
    names = tokenizer.token_strings([tokenizer.special.bos, tokenizer.special.eos, tokenizer.special.pad])
    assert names == ["<s>", "</s>", "<pad>"]
    assert tokenizer.special.boc == tokenizer.num_base_ids
    with pytest.raises(TokenizerError, match=r"'<plain>' .* is an ordinary token"):
        load_tokenizer(TokenizerConfig(path=path, boc="<plain>"))
    with pytest.raises(TokenizerError, match=r"no room for 2 .* has 1 free"):
        load_tokenizer(TokenizerConfig(path=path, special_slots="reserved"), num_meta_tokens=0)
