"""The settings of an annotator, compared by the meaning that they give to its values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

EDGES = "edges"
"""The setting with the inner edges of an annotator's bins; with those of each column, if it writes several."""
_HOW_EDGES_WERE_FOUND = re.compile(r"config\.(columns\.\w+\.)?bins\.(edges|quantiles|sample)")
_MAX_SHOWN_NUMBERS = 9
_MAX_SHOWN_CHARACTERS = 80
_VERSION = re.compile(r"\d+(\.\d+)+")


def first_difference(trained: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first difference that changes a value, edges first: they differ without any change of a recipe."""
    before, now = value_settings(trained), value_settings(other)
    for key in sorted({*before, *now}, key=lambda key: (key != EDGES, key)):
        old, new = before.get(key), now.get(key)
        if old != new and not (is_version(key, old) and is_version(key, new)):
            shown_old, shown_new = shown_apart(old, new)
            return f"{key} {shown_old} in training, {shown_new} here"
    return ""


def value_settings(settings: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """The settings that decide annotation values, by dotted keys: without how edges were found, edges as float32."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = prefix + name
        if _HOW_EDGES_WERE_FOUND.fullmatch(key):
            continue
        if isinstance(value, dict):
            found |= value_settings(value, prefix=f"{key}.")
        elif key.partition(".")[0] == EDGES and value is not None:
            found[key] = [float(np.float32(edge)) for edge in value]
        else:
            found[key] = value
    return found


def is_version(key: str, value: Any) -> bool:
    """Whether a setting is the version of code or of a library."""
    return key == "code_version" or (isinstance(value, str) and _VERSION.fullmatch(value) is not None)


def shown_apart(old: Any, new: Any) -> tuple[str, str]:
    """Two different values in few characters that differ: `[0, 0.25]` and `[0, 0.3]`; a long value is cut."""
    for digits in (4, 9, 17):
        shown = _shown(old, digits=digits), _shown(new, digits=digits)
        if shown[0] != shown[1]:
            return shown
    if isinstance(old, list) and isinstance(new, list):  # equal in their first numbers
        place = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        return f"[..., {_at(old, place)}, ...]", f"[..., {_at(new, place)}, ...]"
    texts = str(old), str(new)
    place = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    return _cut(f"…{texts[0][place:]}"), _cut(f"…{texts[1][place:]}")


def _at(values: list[Any], place: int) -> str:
    return f"number {place + 1}: {values[place] if place < len(values) else 'none'}"


def _shown(value: Any, *, digits: int) -> str:
    if not isinstance(value, list):
        return _cut(str(value))
    first = ", ".join(f"{v:.{digits}g}" if isinstance(v, float) else str(v) for v in value[:_MAX_SHOWN_NUMBERS])
    return _cut(f"[{first}, ...]" if len(value) > _MAX_SHOWN_NUMBERS else f"[{first}]", limit=200)


def _cut(text: str, *, limit: int = _MAX_SHOWN_CHARACTERS) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
