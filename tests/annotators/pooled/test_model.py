from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from colophon.annotators.base import AnnotatorError
from colophon.annotators.heads.tensor_file import read_info
from colophon.annotators.pooled.model import PooledModel
from colophon.annotators.pooled.model_file import PooledInfo, map_model
from colophon.annotators.pooled_classifier import PooledConfig
from tests.annotators.pooled.small_model import INFO, expected_probabilities, random_arrays, write_small_model

ARRAYS = random_arrays(INFO)
TEXTS = st.lists(st.lists(st.integers(0, INFO.tokenizer.num_ids - 1), max_size=700), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pooled") / "small.safetensors"
    write_small_model(path)
    return path


@given(TEXTS, st.sampled_from([pa.uint16(), pa.uint32()]))
def test_probabilities_are_those_of_plain_numpy(path: Path, texts: list[list[int]], kind: pa.DataType) -> None:
    found = PooledModel(path).probabilities(pa.array(texts, pa.list_(kind)))
    for place, ids in enumerate(texts):
        for rows, expected in zip(found, expected_probabilities(INFO, ARRAYS, ids), strict=True):
            np.testing.assert_allclose(rows[place], expected, rtol=2e-4, atol=2e-6)


@given(TEXTS, st.data())
def test_a_text_has_the_same_bits_in_every_batch(path: Path, texts: list[list[int]], data: st.DataObject) -> None:
    model, column = PooledModel(path), pa.array(texts, pa.list_(pa.uint16()))
    cut = data.draw(st.integers(0, len(texts)))
    whole = model.probabilities(column)
    first, second = model.probabilities(column.slice(0, cut)), model.probabilities(column.slice(cut))
    for rows, before, after in zip(whole, first, second, strict=True):
        assert rows.tobytes() == before.tobytes() + after.tobytes()


def test_a_slice_reads_its_own_ids_alone(path: Path) -> None:
    """A token file is one array: an id outside of the vocabulary in another partition's rows is none of its own."""
    column = pa.array([[1, 2], [299], [65535]], pa.list_(pa.uint16()))
    model = PooledModel(path)
    assert len(model.probabilities(column.slice(0, 2))[0]) == 2
    with pytest.raises(ValueError, match="an id is outside of the 300 of its vocabulary"):
        model.probabilities(column)


def test_nulls_and_texts_without_a_token_have_no_score(path: Path) -> None:
    skipped = int(np.flatnonzero(ARRAYS["units"] == -1)[0])
    for rows in PooledModel(path).probabilities(pa.array([None, [], [skipped]], pa.list_(pa.uint16()))):
        assert np.isnan(rows).all()


def test_other_programs_open_the_file(path: Path) -> None:
    found = safetensors.numpy.load_file(path)
    assert set(found) == set(ARRAYS)
    assert all((found[name] == ARRAYS[name]).all() for name in ARRAYS)
    with safetensors.safe_open(path, "np") as opened:
        assert PooledInfo.model_validate_json(opened.metadata()["colophon"]) == INFO


def test_rows_are_whole_cache_lines_of_the_mapped_file(path: Path) -> None:
    info, arrays = map_model(path)
    assert arrays["rows"].__array_interface__["data"][0] % 64 == 0
    assert not arrays["rows"].flags.writeable
    assert info == INFO


def test_a_pickle_has_no_weights(path: Path) -> None:
    model = PooledModel(path)
    model.load()
    assert len(pickle.dumps(model)) < 2000
    column = pa.array([[1, 2, 3]], pa.list_(pa.uint16()))
    assert (pickle.loads(pickle.dumps(model)).probabilities(column)[0] == model.probabilities(column)[0]).all()


def damaged(content: bytes, **changed: Any) -> bytes:
    """The file with other values of tensors in its header, or of its description."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    info = json.loads(header["__metadata__"]["colophon"])
    for name, value in changed.items():
        (header if name in header else info)[name] = value
    header["__metadata__"]["colophon"] = json.dumps(info)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def with_entry(**changed: Any) -> dict[str, Any]:
    """A tensor's entry of a header, with other values."""
    return {"dtype": "I8", "shape": [1, 64], "data_offsets": [0, 64]} | changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: b"", "not a pooled model"),
        (lambda content: b"\xff" * 100, "not a pooled model"),
        (lambda content: b"[" * 5000, "not a pooled model"),
        (lambda content: content[:100], "not a pooled model"),
        (lambda content: content[:-1], "truncated: seen is not complete"),
        (lambda content: damaged(content, format="other"), "format"),
        (lambda content: damaged(content, dim=63), "dim"),
        (lambda content: damaged(content, num_units=10), "rows: expected I8"),
        (lambda content: damaged(content, bucket_bits=60), "bucket_bits"),
        (lambda content: damaged(content, rows={"dtype": "I8"}), "rows: missing or damaged"),
        (lambda content: damaged(content, rows=with_entry(dtype=["I8"])), r"rows: has type .*; expected one of I8, U8"),
        (lambda content: damaged(content, rows=with_entry(dtype="BF16")), "rows: has type 'BF16'; expected one of I8"),
        (lambda content: damaged(content, rows=with_entry(shape=[1e400])), "rows: missing or damaged"),
        (lambda content: damaged(content, rows=with_entry(shape=[-1, -1])), "rows: missing or damaged"),
        (lambda content: damaged(content, rows=with_entry(shape=[1 << 70, 64])), "rows: missing or damaged"),
        (
            lambda content: damaged(content, scale={"dtype": "F32", "shape": [64], "data_offsets": [-256, 0]}),
            "scale: missing or damaged",
        ),
        (
            lambda content: damaged(content, units={"dtype": "I32", "shape": [300], "data_offsets": [0, 1200]}),
            "units: outside of -1 to 199",
        ),
    ],
)
def test_a_damaged_file_is_one_line(path: Path, tmp_path: Path, change: Any, message: str) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(change(path.read_bytes()))
    with pytest.raises(AnnotatorError, match=message) as caught:
        map_model(broken)
    assert str(caught.value).startswith(str(broken))
    assert "\n" not in str(caught.value)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    content = bytearray((write_small_model(path), path.read_bytes())[1])
    content[-len(ARRAYS["seen"]) - 4 : -len(ARRAYS["seen"])] = np.float32("nan").tobytes()
    path.write_bytes(content)
    with pytest.raises(AnnotatorError, match=r"heads.1.bias: holds NaN"):
        map_model(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match=r"gone.safetensors: No such file"):
        read_info(tmp_path / "gone.safetensors", PooledInfo)


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        ({}, ["my_quality", "my_quality_score", "my_tags", "my_tags_score"]),
        ({"heads": {"tags": {}}}, ["my_tags", "my_tags_score"]),
        ({"heads": {"quality": {"score": {"probability_of": "high"}}}}, ["my_quality_score"]),
        (
            {"heads": {"quality": {"score": {"expected": {"high": 1, "low": 0}}, "bins": {"edges": [0.5]}}}},
            ["my_quality", "my_quality_score"],
        ),
    ],
)
def test_the_columns_are_those_of_the_heads(path: Path, settings: dict[str, Any], columns: list[str]) -> None:
    annotator = PooledConfig.model_validate({"model": str(path), **settings}).build("my")
    assert annotator.schema.names == columns


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": {"qualty": {}}}, "the model has no head 'qualty'; heads: quality, tags. Did you mean 'quality'"),
        ({"heads": {"quality": {"score": {"probability_of": "hgh"}}}}, "the model has no label 'hgh'; labels: high"),
    ],
)
def test_a_wrong_name_lists_the_choices(path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotatorError, match=message):
        PooledConfig.model_validate({"model": str(path), **settings}).build("my")


def test_a_head_that_is_alone_is_under_the_name_of_the_annotator(tmp_path: Path) -> None:
    info = INFO.model_copy(update={"heads": INFO.heads[:1]})
    write_small_model(tmp_path / "one.safetensors", info)
    annotator = PooledConfig(model=str(tmp_path / "one.safetensors")).build("quality")
    assert annotator.schema.names == ["quality", "quality_score"]
