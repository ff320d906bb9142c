"""Labelled texts: labels of any scalar type are strings, what cannot be one is an error that names file and column."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.training_texts import read_labelled
from tests.pipeline.inputs.reading import FORMATS, write


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", FORMATS)
def test_labels_of_scalar_types_are_strings(path: str) -> None:
    labels = {
        "7": pa.array([7, None]),
        "high": pa.array(["high", None]).dictionary_encode(),
        "true": pa.array([True, None]),
        "2024-03-01": pa.array([19783, None], pa.date32()),
    }
    for label, column in labels.items():
        write(pa.table({"text": ["a", "b"], "label": column}), path)
        texts, found = read_labelled([path], text="text", label="label")
        assert (texts.to_pylist(), found.to_pylist()) == (["a"], [label])


@pytest.mark.parametrize("path", FORMATS)
def test_a_label_that_is_no_string_is_named(path: str) -> None:
    write(pa.table({"text": ["a"], "topic": pa.array([["x"]])}), path)
    with pytest.raises(UsageError) as error:
        read_labelled([path], text="text", label="topic")
    assert f"{path}: column 'topic' is list<" in str(error.value)
