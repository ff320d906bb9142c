"""Templates: their fields, the formats that fit a column's type, and the text of each document."""

from __future__ import annotations

import datetime as dt
import string
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from colophon.shards.templates import render, template_of
from tests.shards import oracle
from tests.shards.cases import make_layout


class TestTemplateFields:
    @pytest.mark.parametrize(
        ("template", "fields"),
        [
            ("", ()),
            ("no field", ()),
            ("{url}", ("url",)),
            ("{b} {a} {b}", ("b", "a")),
            ("{topic}, {format}", ("topic", "format")),
            ("{{literal}} {url}", ("url",)),
            ("{{{url}}}", ("url",)),
            ("é{größe}→", ("größe",)),
            ("{url_domain}/{_x1}", ("url_domain", "_x1")),
        ],
    )
    def test_fields(self, template: str, fields: tuple[str, ...]) -> None:
        assert template_of(template).columns == fields

    @pytest.mark.parametrize(
        "template",
        [
            "{", "}", "{url", "url}", "{{url}", "{url}}", "a { b", "{url{x}}",
            "{}", "{0}", "{ url }", "{url.host}", "{url[0]}", "{int-score}",
            "{url!r}", "{url!s}", "{n!r:03d}", "{n:>{width}}", "{url!}", "{url.x:>8}", "{url[0]:>8}",
        ],
    )  # fmt: skip
    def test_refused(self, template: str) -> None:
        with pytest.raises(ValueError):
            template_of(template)
        with pytest.raises(ValidationError, match="template"):
            make_layout("prepend", template=template)

    def test_the_message_shows_a_valid_field(self) -> None:
        with pytest.raises(
            ValueError, match=r"template '\{n\.x\}': a field is a column name in braces, such as \{url\}"
        ):
            template_of("{n.x}")


class TestRender:
    def rendered(self, template: str, num_rows: int | None = None, **columns: Any) -> list[str | None]:
        arrays = {n: c if isinstance(c, pa.Array) else pa.array(c) for n, c in columns.items()}
        rows = len(next(iter(arrays.values()))) if num_rows is None else num_rows
        result = render(template, arrays, num_rows=rows)
        assert result.type == pa.string()
        values: list[str | None] = result.to_pylist()
        return values

    def test_fields_and_literals(self) -> None:
        assert self.rendered("{topic}, {format}!", topic=["Art", "Games"], format=["FAQs", "Listicle"]) == [
            "Art, FAQs!",
            "Games, Listicle!",
        ]

    def test_numbers_and_truth(self) -> None:
        columns = {"n": pa.array([26, -1, 0], pa.int8()), "y": [2013, 2024, None], "b": [True, False, None]}
        assert self.rendered("{n} {y} {b}", **columns) == ["26 2013 true", "-1 2024 false", "0  "]

    def test_braces_are_written_doubled(self) -> None:
        assert self.rendered("{{{url}}} {{}}", url=["x"]) == ["{x} {}"]
        assert self.rendered("{{a}}", num_rows=2) == ["{a}", "{a}"]

    def test_a_value_with_braces_is_not_a_template(self) -> None:
        assert self.rendered("<{url}>", url=["{topic}", "{", "%s", "{}"]) == ["<{topic}>", "<{>", "<%s>", "<{}>"]

    def test_a_null_is_an_empty_string_and_only_nulls_give_null(self) -> None:
        assert self.rendered("{a}, {b}", a=["x", None, "y", None], b=["1", "2", None, None]) == [
            "x, 1",
            ", 2",
            "y, ",
            None,
        ]
        assert self.rendered("u={a}", a=pa.array([None, ""], pa.string())) == [None, "u="]

    def test_a_column_of_type_null(self) -> None:
        assert self.rendered("{a}", a=pa.nulls(2)) == [None, None]

    def test_no_field(self) -> None:
        assert self.rendered("always", num_rows=3) == ["always"] * 3
        assert self.rendered("", num_rows=1) == [""]
        assert self.rendered("always", num_rows=0) == []

    def test_no_rows(self) -> None:
        assert self.rendered("{a}", a=pa.array([], pa.string())) == []

    def test_a_field_twice(self) -> None:
        assert self.rendered("{a}{a}", a=["x", None]) == ["xx", None]

    def test_unicode(self) -> None:
        assert self.rendered("→{größe}\n\0", größe=["日本", "e\u0301"]) == ["→日本\n\0", "→e\u0301\n\0"]

    def test_sliced_and_dictionary_columns(self) -> None:
        whole = pa.array(["lost", "a", None, "b", "lost"])
        expected = ["<a>", None, "<b>"]
        assert self.rendered("<{x}>", x=whole.slice(1, 3)) == expected
        assert self.rendered("<{x}>", x=whole.dictionary_encode().slice(1, 3)) == expected
        assert self.rendered("<{x}>", x=pa.array(["a", None, "b"], pa.large_string())) == expected
        assert self.rendered("<{x}>", x=pa.array(["a", None, "b"], pa.string_view())) == expected

    @given(
        st.lists(st.tuples(st.none() | st.text(max_size=5), st.none() | st.integers(0, 99)), max_size=6),
        st.lists(st.sampled_from(["{url}", "{n}", ", ", "é", "x"]), max_size=6).map("".join),
    )
    def test_like_the_oracle(self, rows: list[tuple[str | None, int | None]], template: str) -> None:
        columns = {
            "url": pa.array([url for url, _ in rows], pa.string()),
            "n": pa.array([n for _, n in rows], pa.int64()),
        }
        expected = [oracle.metadata_text(template, {"url": url, "n": n}) for url, n in rows]
        assert self.rendered(template, num_rows=len(rows), **columns) == expected

    @given(st.text("{}ab!:. ", max_size=8), st.text(max_size=3))
    def test_any_template_is_refused_or_formats_like_python(self, template: str, value: str) -> None:
        try:
            names = template_of(template).columns
        except ValueError:
            return
        if any(template_of(template).misfits(dict.fromkeys(names, pa.string()))):
            return
        columns = {name: pa.array([value]) for name in names}
        filled = string.Formatter().vformat(template, (), dict.fromkeys(names, value))
        assert render(template, columns, num_rows=1).to_pylist() == [filled]


UTC = dt.timezone.utc
TYPES = {
    "s": pa.string(),
    "i": pa.int64(),
    "f": pa.float32(),
    "b": pa.bool_(),
    "d": pa.date32(),
    "t": pa.timestamp("us", "UTC"),
    "c": pa.dictionary(pa.int32(), pa.string()),
}


class TestFormats:
    @pytest.mark.parametrize(
        ("field", "value", "text"),
        [
            ("f:.1f", 3.25, "3.2"),
            ("f:+.2e", 12345.0, "+1.23e+04"),
            ("f:8.3f", 1.5, "   1.500"),
            ("f:.0%", 0.25, "25%"),
            ("f:,", 1234.5, "1,234.5"),
            ("i:03d", 7, "007"),
            ("i:05", -7, "-0007"),
            ("i:,", 1234567, "1,234,567"),
            ("i:*^7", 12, "**12***"),
            ("i:.1f", 7, "7.0"),
            ("i:x", 255, "ff"),
            ("s:>5", "ab", "   ab"),
            ("s:é<4", "ab", "abéé"),
            ("s:.2", "abc", "ab"),
            ("s:5s", "ab", "ab   "),
            ("c:>3", "a", "  a"),
            ("d:%Y", dt.date(999, 3, 1), "0999"),
            ("d:%d %B %y, %j %%", dt.date(2024, 3, 1), "01 March 24, 061 %"),
            ("t:%Y-%m-%dT%H:%M:%S.%f", dt.datetime(2024, 3, 1, 23, 5, 9, 12, UTC), "2024-03-01T23:05:09.000012"),
            ("t:%a %b %I %p", dt.datetime(2024, 12, 31, 0, 0, 0, 0, UTC), "Tue Dec 12 AM"),
            ("t:%G-W%V-%u", dt.datetime(2024, 12, 31, 0, 0, 0, 0, UTC), "2025-W01-2"),
            ("t", dt.datetime(2024, 3, 1, 12, 30, 0, 500_000, UTC), "2024-03-01T12:30:00.5Z"),
            ("d", dt.date(2024, 3, 1), "2024-03-01"),
        ],
    )
    def test_formatted_as_by_python(self, field: str, value: Any, text: str) -> None:
        name, _, spec = field.partition(":")
        assert not list(template_of(f"{{{field}}}").misfits(TYPES))
        columns = {name: pa.array([value, None], TYPES[name])}
        assert render(f"<{{{field}}}>", columns, num_rows=2).to_pylist() == [f"<{text}>", None]
        if spec and name != "d" and "%Y" not in spec:
            assert format(value, spec) == text

    @pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.struct([("start", pa.int32())])], ids=str)
    @pytest.mark.parametrize("field", ["spans", "spans:>8"])
    def test_columns_of_several_values_are_found_before_a_run(self, field: str, kind: pa.DataType) -> None:
        (misfit,) = template_of(f"{{{field}}}").misfits({"spans": kind})
        assert misfit == ("spans", f"spans is {kind}; a template shows single values")

    @pytest.mark.parametrize(
        "field",
        [
            "s:.1f", "s:03d", "s:%Y", "s:,", "s:=5", "c:.1f", "b:>5", "b:d", "i:8", "i:.3", "i:%Y", "i:5s", "f:8",
            "f:.3", "f:d", "f:x", "f:>8", "f:%Y", "d:.1f", "d:%H", "d:>20", "t:.1f", "t:20", "t:.1%",
        ],
    )  # fmt: skip
    def test_formats_of_another_type_are_found_before_a_run(self, field: str) -> None:
        template = template_of(f"{{{field}}}")
        ((column, line),) = template.misfits(TYPES)
        assert column == field[0]
        assert line.startswith(f"{{{field}}}: {column} is {TYPES[column]}; it takes ")

    @pytest.mark.parametrize(
        "spec",
        [
            "1000000000", "1001", "<1000000000", "01000000000d", ".1001f", ".1000000000", "99999999999999999999.1f",
            "c", "n", "q", "#x", "z.1f", ",x", ".1d", "%Q", "%Y%", "%-d", "%x", "%s", "{w}", ">{w}", "__class__", "٣d",
        ],
    )  # fmt: skip
    def test_what_is_no_format_is_refused_whatever_the_column(self, spec: str) -> None:
        with pytest.raises(ValueError, match=r"^template "):
            template_of(f"{{x:{spec}}}")
        with pytest.raises(ValidationError, match="template"):
            make_layout("prepend", template=f"{{x:{spec}}}")

    def test_a_width_of_a_thousand_is_written(self) -> None:
        assert render("{s:>1000}", {"s": pa.array(["x"])}, num_rows=1).to_pylist() == [f"{'x':>1000}"]

    @given(st.text("<>=^+- 0123456789,_.bdoxeEfFgG%snc#", min_size=1, max_size=6))
    def test_a_format_that_is_accepted_is_pythons(self, spec: str) -> None:
        try:
            template = template_of(f"{{x:{spec}}}")
        except ValueError:
            return
        for value in ("é€x", 1234, 0.75):
            array = pa.array([value])
            if not list(template.misfits({"x": array.type})):
                assert render(template.text, {"x": array}, num_rows=1).to_pylist() == [format(value, spec)]

    def test_a_year_that_python_lacks_is_written_as_nothing(self) -> None:
        years = {"t": pa.array([316516204800, 0], pa.timestamp("s")), "n": pa.array([1, 2])}
        assert render("{t:%Y} {n}", years, num_rows=2).to_pylist() == [" 1", "1970 2"]
        assert render("{t}", years, num_rows=2)[0].as_py() == "12000-01-01T00:00:00"

    @pytest.mark.parametrize(
        ("template", "text", "rendered"),
        [
            ("{x}", "3.20", "3.20"),
            ("{x:.1f}", "3.25", "3.2"),
            ("{x:,}", "1234", "1,234"),
            ("{x:.1f} {x}", "3", "3.0 3"),
            ("{x:>6}", "abc", "   abc"),
            ("{x:%Y}", "2024-03-01", "2024"),
            ("{x:%Y} {x}", "2024-03-01", "2024 2024-03-01"),
            ("{x:%H} {x}", "2024-03-01", "00 2024-03-01T00:00:00Z"),
            ("{x:%d %H}", "2024-03-01T23:30:00-01:00", "02 00"),
        ],
    )
    def test_a_value_given_as_text_is_formatted_as_one_of_the_column(
        self, template: str, text: str, rendered: str
    ) -> None:
        column = template_of(template).column_of_text("x", text)
        assert render(template, {"x": column}, num_rows=1).to_pylist() == [rendered]

    @pytest.mark.parametrize(
        ("template", "text"), [("{x:.1f}", "high"), ("{x:d}", "3.5"), ("{x:%Y}", "now"), ("{x:%Y}", "2024")]
    )
    def test_text_that_is_no_such_value_is_an_error(self, template: str, text: str) -> None:
        with pytest.raises(ValueError, match=rf"^x: '{text}' is no (number|date such as 2024-03-01), as "):
            template_of(template).column_of_text("x", text)
