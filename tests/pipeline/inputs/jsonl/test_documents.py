"""One line as values: exact, the same document for any columns, and never Python's text of a list."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.jsonl.documents import BadLineError, LineParser
from colophon.pipeline.inputs.row_batches import row_batches

NAMES = ("text", "id", "url", "score", "int_score", "topic")
NEEDS = tuple(ColumnNeed(name, name, required=False) for name in NAMES)


def read(*lines: str | bytes, needs: tuple[ColumnNeed, ...] = NEEDS, text: str = "text") -> tuple[list[Any], Any]:
    """The rows of lines that are documents, by FineWeb name, and the counts of values of the wrong type."""
    parse = LineParser(text, needs)
    rows = []
    for line in (line if isinstance(line, bytes) else line.encode() for line in lines):
        parsed = parse(line)
        if parsed is not None and parse.repeated(line, [line], {0: parsed[1]}):
            parsed = parse.scanned(line)
        rows += [] if parsed is None else [(parsed[0], 1)]
    wrong: Counter[str] = Counter()
    batches = row_batches(rows, needs, wrong=wrong)
    return [row for batch in batches for row in batch.to_pylist()], {name: n for name, n in wrong.items() if n}


def value(column: str, spelling: str) -> tuple[Any, int]:
    """The value of a column that a line spells so, and whether it was counted as wrong."""
    rows, wrong = read(f'{{"text": "t", "{column}": {spelling}}}')
    return rows[0][column], sum(wrong.values())


@pytest.mark.parametrize(
    ("spelling", "expected", "wrong"),
    [
        ('"a"', "a", 0),
        ("null", None, 0),
        ("7", "7", 0),
        ("18446744073709551615", "18446744073709551615", 0),
        ("18446744073709551616", "18446744073709551616", 0),
        ("-9223372036854775809", "-9223372036854775809", 0),
        ("1" * 5000, "1" * 5000, 0),
        ("1.0", "1.0", 0),
        ("0.1000000000000000055", "0.1000000000000000055", 0),
        ("1e400", "1e400", 0),
        ("NaN", None, 1),
        ("true", None, 1),
        ("[]", None, 1),
        ('{"$oid": "5"}', None, 1),
        ('"\\ud800"', None, 1),
    ],
)
def test_ids_are_exact_or_missing(spelling: str, expected: str | None, wrong: int) -> None:
    assert value("id", spelling) == (expected, wrong)


@pytest.mark.parametrize("spelling", ["1", "1.5", "NaN", "true", '["http://a"]', '{"href": "a"}', '"\\udfff"', "1e400"])
def test_a_url_that_is_no_string_is_null_and_counted(spelling: str) -> None:
    assert value("url", spelling) == (None, 1)


@pytest.mark.parametrize(
    ("column", "spelling", "expected"),
    [
        ("score", "2", 2.0),
        ("score", '"4.5"', 4.5),
        ("score", "true", 1.0),
        ("score", "18446744073709551616", 18446744073709551616.0),
        ("score", "Infinity", float("inf")),
        ("score", "1e400", None),
        ("score", '"high"', None),
        ("score", "[1]", None),
        ("int_score", "9223372036854775807", 9223372036854775807),
        ("int_score", '"3"', 3),
        ("int_score", "3.0", 3),
        ("int_score", "3.5", None),
        ("int_score", "18446744073709551615", None),
        ("int_score", "1e308", None),
        ("int_score", "NaN", None),
        ("int_score", "1" * 5000, None),
    ],
)
def test_numbers_that_fit_are_read_and_others_are_null_and_counted(column: str, spelling: str, expected: Any) -> None:
    assert value(column, spelling) == (expected, int(expected is None))


def test_a_column_of_no_known_type_takes_what_most_of_its_values_are() -> None:
    lines = [json.dumps({"text": "t", "topic": topic}) for topic in ("a", "b", 3, None, [1])]
    rows, wrong = read(*lines)
    assert [row["topic"] for row in rows] == ["a", "b", None, None, None]
    assert wrong == {"topic": 2}


@pytest.mark.parametrize(
    "unread",
    ["NaN", "-Infinity", "1e999", '"\\ud800"', "[" * 5000 + "]" * 5000, "1" * 5000, '{"text": 1, "text": 2}'],
)
def test_a_value_that_nobody_reads_never_costs_the_line(unread: str) -> None:
    rows, wrong = read(f'{{"other": {unread}, "text": "kept", "id": "7", "more": {unread}}}')
    assert [(row["text"], row["id"]) for row in rows] == [("kept", "7")]
    assert wrong == {}


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "a", "text": "b"}',
        '{"text": "a", "te\\u0078t": "b"}',
        '{"te\\u0078t": "a", "text": "b"}',
        '{"text": "a", "text": null}',
        '{"other": {"text": "x"}, "text": "a", "url": 1, "text": "a"}',
        '{"text": "%s", "url": "u", "text": "b"}' % ("long " * 1000),
        '{"text": "b", "url": "u", "text": "%s"}' % ("long " * 1000),
    ],
)
def test_a_line_with_two_texts_is_not_a_document(line: str) -> None:
    for needs in (NEEDS, NEEDS[1:2]):
        with pytest.raises(BadLineError, match="key 'text' twice"):
            read(line, needs=needs)


@pytest.mark.parametrize(
    "line",
    [
        '{"url": "a", "url": "b", "text": "%s"}',
        '{"text": "%s", "url": "a", "url": "a"}',
        '{"url": "a", "text": "%s", "url": "b"}',
        '{"url": "a", "text": "%s", "\\u0075rl": "b"}',
        '{"x": {"url": 1}, "url": "a", "text": "%s", "url": "b"}',
    ],
)
@pytest.mark.parametrize("text", ["short", "long ä\\n" * 500])
def test_another_key_that_occurs_twice_is_null_and_counted(line: str, text: str) -> None:
    rows, wrong = read(line % text)
    assert rows[0]["text"] == json.loads(f'"{text}"')
    assert rows[0]["url"] is None
    assert wrong == {"url": 1}


def test_a_key_of_an_object_inside_is_no_second_key() -> None:
    rows, wrong = read('{"metadata": {"text": "no", "url": "no"}, "text": "yes", "url": "u", "tags": ["url", "text"]}')
    assert [(row["text"], row["url"]) for row in rows] == [("yes", "u")]
    assert wrong == {}


NESTED = (ColumnNeed("text", "doc.text"), ColumnNeed("url", "meta.source.url"), ColumnNeed("id", "meta.id"))


@pytest.mark.parametrize("extra", ["", ', "n": NaN'])
def test_a_dotted_name_is_a_path_through_objects(extra: str) -> None:
    lines = [
        '{"doc": {"text": "a"}, "meta": {"source": {"url": "u"}, "id": 18446744073709551616}%s}',
        '{"doc": {"text": "b"}, "meta": {"source": ["u"]}%s}',
        '{"doc.text": "c", "meta.source.url": "v", "meta": 7%s}',
        '{"doc": {"text": "d"}, "meta": {"source": {"url": "u", "url": "v"}}%s}',
    ]
    rows, wrong = read(*(line % extra for line in lines), needs=NESTED, text="doc.text")
    assert [tuple(row.values()) for row in rows] == [
        ("a", "u", "18446744073709551616"),
        ("b", None, None),
        ("c", "v", None),
        ("d", None, None),
    ]
    assert wrong == {"url": 1}
    with pytest.raises(BadLineError, match=r"no key 'doc\.text'; keys: doc, meta"):
        read('{"doc": {"txt": "a"}, "meta": NaN}', needs=NESTED, text="doc.text")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b" \r\n"])
def test_byte_order_marks_and_line_ends_are_no_part_of_a_line(mark: bytes, end: bytes) -> None:
    assert read(mark + b'{"text": "a"}' + end)[0][0]["text"] == "a"
    assert read(mark + end)[0] == []


@given(st.binary(max_size=60) | st.binary(max_size=20).map(lambda inner: b'{"text": "a", "url": ' + inner + b"}"))
def test_any_bytes_are_a_document_blank_or_bad_for_any_columns(line: bytes) -> None:
    outcomes = set()
    for needs in (NEEDS, NEEDS[:1], NEEDS[1:2], NESTED[1:]):
        try:
            rows, _ = read(line, needs=needs)
            outcomes.add(str(len(rows)))
        except BadLineError as error:
            outcomes.add(str(error))
    assert len(outcomes) == 1
