"""The differences between two JSON values, one line each, for an error message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LONGEST_VALUE = 60
_LONGEST_KEY = 120


def differences(old: Any, new: Any, *, at: str = "") -> list[str]:
    """One line for each leaf in which two JSON values differ; a missing key counts as None.

    `{"a": {"b": 1}}` and `{"a": {"b": 2}}` give `a.b: 1 -> 2`. Lists are leaves. Long keys and values are shortened.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), at=f"{at}.{key}" if at else str(key))
        ]
    return [] if old == new else [f"{_cut(at, _LONGEST_KEY)}: {_shortened(old)} -> {_shortened(new)}"]


def _shortened(value: Any) -> str:
    return _cut(repr(value), _LONGEST_VALUE)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
