"""Text preparation: every text becomes one line, by rules that equal their Python counterparts."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from colophon.annotators.fasttext.text_preparation import TextPreparation

REFERENCE = {
    "space": lambda text: text.replace("\n", " "),
    "delete": lambda text: text.replace("\n", ""),
    "collapse": lambda text: re.sub(r"\n+", " ", text),
    "join_lines": lambda text: " ".join(text.strip().splitlines()),
}
LINES = st.text(alphabet=st.sampled_from("a b\n\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\t\u3000é"))


@pytest.mark.parametrize("newline", REFERENCE)
@given(text=st.one_of(LINES, st.text(alphabet=st.characters(codec="utf-8"))))
def test_newlines_like_python(newline: str, text: str) -> None:
    (prepared,) = TextPreparation(newline=newline)(pa.array([text])).to_pylist()
    assert prepared == REFERENCE[newline](text)
    assert "\n" not in prepared


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_nulls_type_and_offsets_stay(kind: pa.DataType) -> None:
    texts = pa.array(["x\ny", None, "", "É\n\nb"], kind)
    prepared = TextPreparation(newline="collapse", lower=True)(texts.slice(1))
    assert prepared.type == kind
    assert prepared.to_pylist() == [None, "", "é b"]


def test_punctuation_and_max_chars() -> None:
    prepare = TextPreparation(separate_punctuation=True, max_chars=9)
    assert prepare(pa.array(["(é+“x”), y?", "a.b"])).to_pylist() == [" ( é +  “ x ”  )  ,  ", "a . b"]


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    values = pa.array([b"A\xff\nB", None, b"C\nD"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, values.buffers())
    assert TextPreparation(lower=True)(texts).to_pylist() == ["a\ufffd b", None, "c d"]


def test_settings_are_checked() -> None:
    for wrong in ({"newline": "keep"}, {"max_chars": 0}, {"lowercase": True}):
        with pytest.raises(ValidationError):
            TextPreparation.model_validate(wrong)
