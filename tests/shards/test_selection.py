"""Selection: conditions on annotation columns, and packing of the selected documents alone."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from colophon.shards.laws import broken_laws
from colophon.shards.selection import Condition, selected
from tests.shards.cases import Case, cases, make_layout
from tests.shards.oracle import Document

UTC = timezone.utc
NOON = datetime(2022, 5, 6, 12, tzinfo=UTC)
COLUMNS = {
    "flag": pa.array([True, False, None]),
    "topic": pa.array(["a", "b", None]),
    "score": pa.array([0.1, 0.7, None], pa.float32()),
    "year": pa.array([2013, 2022, None], pa.int16()),
    "day": pa.array([date(2013, 1, 1), date(2022, 5, 6), None]),
    "time": pa.array([datetime(2013, 1, 1, tzinfo=UTC), NOON, None], pa.timestamp("us", "UTC")),
    "words": pa.array(["a", "b", None]).dictionary_encode(),
}


@pytest.mark.parametrize(
    ("column", "condition", "expected"),
    [
        ("flag", True, [1, 0, 0]),
        ("flag", {"none_of": False}, [1, 0, 1]),
        ("topic", "a", [1, 0, 0]),
        ("topic", ["a", "b", "c"], [1, 1, 0]),
        ("topic", {"none_of": ["a"]}, [0, 1, 1]),
        ("topic", {"one_of": ["a", "b"], "none_of": "a"}, [0, 1, 0]),
        ("words", "b", [0, 1, 0]),
        ("score", {"min": 0.1}, [1, 1, 0]),
        ("score", {"max": 0.1}, [1, 0, 0]),
        ("score", {"min": 0.2, "max": 1}, [0, 1, 0]),
        ("score", 0.1, [1, 0, 0]),
        ("year", 2022, [0, 1, 0]),
        ("year", {"min": 2013.5}, [0, 1, 0]),
        ("year", {"max": 1e9}, [1, 1, 0]),
        ("day", {"min": date(2022, 1, 1)}, [0, 1, 0]),
        ("day", "2013-01-01", [1, 0, 0]),
        ("time", {"max": "2022-05-06T11:00Z"}, [1, 0, 0]),
    ],
)
def test_conditions(column: str, condition: Any, expected: list[int]) -> None:
    parsed = Condition.model_validate(condition)
    kept = selected({column: parsed}, COLUMNS, num_rows=3)
    assert kept is not None and kept.tolist() == list(map(bool, expected))
    assert parsed.misfit(COLUMNS[column].type) is None
    assert Condition.model_validate(parsed.model_dump(mode="json")) == parsed


def test_all_conditions_hold_and_none_selects_everything() -> None:
    where = {name: Condition.model_validate(value) for name, value in (("flag", [True, False]), ("topic", "b"))}
    kept = selected(where, COLUMNS, num_rows=3)
    assert kept is not None and kept.tolist() == [False, True, False]
    assert selected({}, COLUMNS, num_rows=3) is None


@pytest.mark.parametrize(
    ("column", "condition"),
    [
        ("flag", "true"),
        ("flag", 1),
        ("flag", {"min": 0}),
        ("topic", 1),
        ("topic", True),
        ("topic", {"min": "a"}),
        ("score", "0.5"),
        ("score", True),
        ("year", 2013.5),
        ("year", 1_000_000),
        ("year", {"min": "x"}),
        ("day", 2013),
        ("day", {"min": "yesterday"}),
    ],
)
def test_values_that_do_not_fit_a_column_are_found_before_a_run(column: str, condition: Any) -> None:
    found = Condition.model_validate(condition).misfit(COLUMNS[column].type)
    assert found is not None and found.startswith(f"the column is {COLUMNS[column].type}; it cannot be compared with ")


def test_lists_cannot_be_compared() -> None:
    assert Condition.model_validate("a").misfit(pa.list_(pa.string())) is not None


@pytest.mark.parametrize("condition", [{}, [], {"min": float("nan")}, {"min": True}, {"maximum": 1}, None, "x" * 501])
def test_invalid_conditions(condition: Any) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate(condition)


def test_a_layout_without_conditions_has_the_settings_of_earlier_versions() -> None:
    layout = make_layout("plain")
    assert "where" not in layout.model_dump(mode="json")
    conditional = make_layout("prepend", template="{url}", where={"n": {"min": 1}, "url": "x"})
    assert conditional.columns == ("url", "n")
    assert conditional.fields == ("url",)
    again: Any = TypeAdapter(type(conditional)).validate_python(conditional.model_dump(mode="json"))
    assert again == conditional


@given(cases(), st.data())
def test_a_selection_packs_as_if_the_other_documents_were_empty(case: Case, data: st.DataObject) -> None:
    size = len(case.documents)
    kept = tuple(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    emptied = tuple(
        document if keep else Document(document.id, (), document.columns)
        for document, keep in zip(case.documents, kept, strict=True)
    )
    found, expected = case.where(kept=kept).pack(), case.where(documents=emptied).pack()
    for name in ("input_ids", "run_lengths", "run_roles", "run_documents", "runs_per_row"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert found.num_tokens == expected.num_tokens
    assert found.counts["documents_excluded"] == kept.count(False)
    assert found.counts["documents_empty"] == sum(not document.text for document in case.documents)


def test_the_laws_of_a_selection() -> None:
    documents = tuple(Document(str(i), (10 + i,) * (i + 1), {"n": i}) for i in range(6))
    layout = make_layout("plain", where={"n": {"min": 2}})
    kept = tuple(i >= 2 for i in range(6))
    case = Case(layout, documents, sequence_length=8, kept=kept)
    with TemporaryDirectory() as folder:
        file = case.write(Path(folder) / "x.arrow")
        assert broken_laws(file, case.tokens(), kept=np.array(kept)) == []
        assert broken_laws(file, case.tokens()) == []
        other = np.array(kept) ^ (np.arange(6) == 1)
        assert broken_laws(file, case.tokens(), kept=other) == [
            "eos does not close each document with text exactly once",
            "text tokens differ from the token file: missing, repeated or out of order",
        ]
        everything = case.where(layout=make_layout("plain")).write(Path(folder) / "y.arrow")
        assert len(broken_laws(everything, case.tokens())) == 2
