"""The scanner accepts all that orjson accepts, with the same values, and more: any depth, NaN, any number."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from colophon.pipeline.inputs.jsonl.scanner import members, value_at
from colophon.pipeline.inputs.row_batches import Number

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
PIECES = ['"text"', '"a"', '"\\u0074"', ":", ",", "{", "}", "[", "]", "1", "-0", "0.5e-3", "01", "1e400", "NaN"]
pieces = st.lists(st.sampled_from([*PIECES, "-Infinity", "true", "null", '"\\ud800"', '"\t"', " ", "\n", "\v", '"x']))


class Every:
    def __contains__(self, name: object) -> bool:
        return True


def scanned(line: str) -> dict[str, Any]:
    """The object with the last value of each member, as orjson reads it."""
    return {name: value_at(line, places[-1]) for name, places in members(line, Every()).items()}


def plain(value: Any) -> Any:
    """A value as the scanner gives it: numbers as spelt, lists and objects empty."""
    return type(value)() if isinstance(value, list | dict) else value


@given(st.dictionaries(st.text(max_size=5), values, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_what_json_writes_is_read(row: dict[str, Any], indent: int | None, ensure_ascii: bool) -> None:
    line = json.dumps(row, indent=indent, ensure_ascii=ensure_ascii)
    found = scanned(line)
    assert list(found) == list(row)
    for name, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert found[name] == Number(json.dumps(value))
        else:
            assert found[name] == plain(value)


@given(st.one_of(pieces.map("".join), pieces.map(lambda inner: "{" + "".join(inner) + "}"), st.text(max_size=30)))
@example('{"a":[{"b":[1,2,{}]},[]],"c":{"d":[]}}')
@example('{"a":1,}')
@example('{"a":[1,]}')
@example('{"a":[1}')
@example('{"a":{"b":1]}')
@example('{"a" 1}')
@example('{"a":1}}')
def test_it_accepts_what_orjson_accepts_and_only_what_json_accepts(line: str) -> None:
    try:
        row = orjson.loads(line.encode())
    except ValueError:
        row = None
    try:
        found = scanned(line)
    except ValueError:
        assert not isinstance(row, dict)
        return
    assert isinstance(json.loads(line), dict)
    assert row is None or list(row) == list(found)


@pytest.mark.parametrize("depth", [1, 990, 1100, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":[', "]}]")])
def test_values_of_any_depth_are_skipped(depth: int, opening: str, closing: str) -> None:
    inner = "" if opening == "[" else "1"
    nested = opening * depth + inner + closing * depth
    line = f'{{"deep": {nested}, "text": "found"}}'
    places = members(line, {"text", "deep"})
    assert value_at(line, places["text"][0]) == "found"
    assert value_at(line, places["deep"][0]) in ([], {})
    with pytest.raises(ValueError, match="Expected"):
        members(line[:-10], {"text"})


def test_members_of_one_name_have_several_places() -> None:
    line = '{"a": 1, "b": {"a": 2}, "\\u0061": NaN}'
    assert [value_at(line, at) for at in members(line, {"a"})["a"]] == [Number("1"), Number("NaN")]
