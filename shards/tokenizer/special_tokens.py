"""Ids for the special tokens: the vocabulary's own, reserved slots, or new ids after the last one.

Text never gives these ids; only layouts use them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from colophon.shards.common.errors import TokenizerError
from colophon.shards.schema import SpecialIds

Slots = Literal["added", "reserved"]

_CONVENTIONAL = {
    "eos": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "[EOS]", "<|eos|>"),
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "[BOS]", "<|startoftext|>", "<|bos|>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>"),
}
_ADDED = {
    "eos": "<|endoftext|>",
    "bos": "<|begin_of_text|>",
    "pad": "<|pad|>",
    "boc": "<|context_begin|>",
    "eoc": "<|context_end|>",
}
"""Names for the special tokens that a vocabulary lacks, in the order of their new ids. eos is first, so that GPT-2's
ranks without their special token get `<|endoftext|>` at 50256, as in GPT-2. Meta tokens come last, so that no other id
depends on their number."""

_RESERVED = re.compile(r"<SPECIAL_\d+>|<\|reserved_(special_token_)?\d+\|>|<unused_?\d+>|\[unused_?\d+\]")
_FIRST_TEKKEN_SLOT = 61
"""The id of boc in the code of "Beyond URLs" (its training branch of a Mistral-Nemo model); eoc is 62."""


@dataclass(frozen=True)
class Assignment:
    """The special ids that a tokenizer uses."""

    special: SpecialIds
    names: dict[int, str]
    """Id to name of all special tokens, also those of the vocabulary that no role uses."""
    num_ids: int
    """The largest id + 1, added tokens included."""


def assign_special_ids(
    wanted: Mapping[str, str | None],
    *,
    slots: Slots,
    num_meta_tokens: int,
    existing: Mapping[str, int],
    num_base_ids: int,
    is_ordinary: Callable[[str], bool],
) -> Assignment:
    """Assign an id to every role.

    Args:
        wanted: role (bos, eos, pad, boc, eoc) to the name asked for; None takes the vocabulary's conventional name.
        slots: where missing boc, eoc and meta tokens go. Missing bos, eos and pad are always added.
        num_meta_tokens: number of meta tokens to place, named `<|meta_1|>`, `<|meta_2|>`, ...
        existing: the vocabulary's own special tokens, name to id.
        num_base_ids: the vocabulary's number of ids; the first added token gets this id.
        is_ordinary: whether a name is a token of ordinary text.

    Raises:
        TokenizerError: a name is an ordinary token, two roles have one name, or there are too few slots.
    """
    if num_meta_tokens < 0:
        raise TokenizerError(f"the number of meta tokens must be at least 0, got {num_meta_tokens}")
    names = {role: wanted.get(role) or _default_name(role, existing) for role in _ADDED}
    names |= {f"meta {k}": f"<|meta_{k}|>" for k in range(1, num_meta_tokens + 1)}
    _check_names(names, existing, is_ordinary)
    state = _Slots(dict(existing), num_base_ids, _free_slots(existing, set(names.values())))
    if slots == "reserved":
        missing = {name for role, name in names.items() if _is_wrapper(role) and name not in existing}
        _check_room(len(missing), state)
    ids = {role: state.place(name, slots if _is_wrapper(role) else "added") for role, name in names.items()}
    meta = tuple(ids[f"meta {k}"] for k in range(1, num_meta_tokens + 1))
    special = SpecialIds(**{role: ids[role] for role in _ADDED}, meta=meta)
    # A role's name replaces that of the reserved slot it takes, so it is entered after the vocabulary's own names.
    name_of = {i: name for name, i in existing.items()} | {ids[role]: name for role, name in names.items()}
    return Assignment(special, name_of, state.next_id)


@dataclass
class _Slots:
    """The ids given so far and the next free ones."""

    ids: dict[str, int]
    next_id: int
    free: list[int] = field(default_factory=list)

    def place(self, name: str, slots: Slots) -> int:
        if name not in self.ids:
            self.ids[name] = self.free.pop(0) if slots == "reserved" else self.next_id
            self.next_id += slots == "added"
        return self.ids[name]


def _is_wrapper(role: str) -> bool:
    return role not in _CONVENTIONAL


def _default_name(role: str, existing: Mapping[str, int]) -> str:
    return next((name for name in _CONVENTIONAL.get(role, ()) if name in existing), _ADDED[role])


def _free_slots(existing: Mapping[str, int], taken: set[str]) -> list[int]:
    """Ids of reserved names, ascending; from 61 on in vocabularies with Tekken's numbering."""
    first = _FIRST_TEKKEN_SLOT if existing.get(f"<SPECIAL_{_FIRST_TEKKEN_SLOT}>") == _FIRST_TEKKEN_SLOT else 0
    return sorted(
        i for name, i in existing.items() if i >= first and name not in taken and _RESERVED.fullmatch(name) is not None
    )


def _check_names(names: Mapping[str, str], existing: Mapping[str, int], is_ordinary: Callable[[str], bool]) -> None:
    role_of: dict[str, str] = {}
    for role, name in names.items():
        if name not in existing and is_ordinary(name):
            raise TokenizerError(
                f"special token {name!r} ({role}) is an ordinary token of this vocabulary. Choose another name"
            )
        other = role_of.setdefault(name, role)
        if other != role:
            raise TokenizerError(f"special token {name!r} is the name of both {other} and {role}. Give them two names")


def _check_room(num_needed: int, slots: _Slots) -> None:
    if num_needed > len(slots.free):
        raise TokenizerError(
            f"no room for {num_needed} special tokens (boc, eoc and meta tokens) in reserved slots: this vocabulary "
            f"has {len(slots.free)} free. Set fewer meta tokens, or special_slots = 'added'"
        )
