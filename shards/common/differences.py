"""The differences between two JSON values: leaf by leaf, and one line each for an error message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST_VALUE = 60
_LONGEST_KEY = 120


def changed_leaves(old: Any, new: Any, *, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield key, old and new value of each leaf in which two JSON values differ; a missing key counts as None.

    `{"a": {"b": 1}}` and `{"a": {"b": 2}}` give `("a.b", 1, 2)`. Lists are leaves.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from changed_leaves(old.get(key), new.get(key), at=f"{at}.{key}" if at else str(key))
    elif old != new:
        yield at, old, new


def differences(old: Any, new: Any) -> list[str]:
    """One line for each of `changed_leaves`: `a.b: 1 -> 2`. Long keys and values are shortened."""
    return [
        f"{_cut(key, _LONGEST_KEY)}: {_shortened(before)} -> {_shortened(after)}"
        for key, before, after in changed_leaves(old, new)
    ]


def _shortened(value: Any) -> str:
    return _cut(repr(value), _LONGEST_VALUE)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
