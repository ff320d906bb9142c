"""fastText models: probabilities that equal the library's, labels as names, and files that changed."""

from __future__ import annotations

import pickle
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import FastTextModel, decode_label, encode_label
from colophon.annotators.fasttext.model_file import read_header

MODELS = ["softmax.bin", "ova.bin", "hs.bin", "chars.bin", "words.bin"]


def by_library(path: Path, line: str) -> dict[str, float]:
    model = fasttext.load_model(str(path)).f
    offset = 0 if model.getArgs().loss.name == "hs" else 1e-5
    return {label: probability - offset for probability, label in model.predict(line + "\n", -1, 0.0, "strict")}


def test_quantized_models(models: Path, quantized: list[Path]) -> None:
    plain, pruned, output = map(read_header, quantized)
    assert plain.quantized
    assert pruned.quantized
    assert output.quantized
    assert len(output.labels) == 260
    assert plain.labels == pruned.labels == read_header(models / "softmax.bin").labels
    assert pruned.buckets < plain.buckets == 500
    for path in quantized:
        (row,) = FastTextModel(path).probabilities(pa.array(["theorem proof the energy"]))
        expected = by_library(path, "theorem proof the energy")
        np.testing.assert_allclose(row, [expected[label] for label in read_header(path).labels], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_probabilities_equal_the_library(models: Path, name: str) -> None:
    model, texts = FastTextModel(models / name), ["theorem proof", "lol the", "never seen", "a </s> lol", "é\x00b"]
    rows = model.probabilities(pa.array(texts))
    assert rows.dtype == np.float32
    assert rows.min() >= 0
    assert rows.max() <= (1 + 3e-5 if name == "hs.bin" else 1)
    for text, row in zip(texts, rows, strict=True):
        expected = by_library(models / name, text)
        np.testing.assert_allclose(row, [expected[x] for x in model.header.labels], atol=1e-6)
    if name != "ova.bin":
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-4)


def test_nulls_slices_and_types(models: Path) -> None:
    model = FastTextModel(models / "softmax.bin")
    texts = ["theorem", None, "lol"] * 700
    rows = model.probabilities(pa.array(texts).slice(1))
    assert np.isnan(rows[::3]).all()
    assert not np.isnan(rows[1::3]).any()
    np.testing.assert_array_equal(rows, model.probabilities(pa.array(texts[1:], pa.large_string())))
    assert model.probabilities(pa.array([], pa.string())).shape == (0, 3)


def test_a_pickled_model_excludes_the_matrices(models: Path) -> None:
    model = FastTextModel(models / "softmax.bin")
    before = model.probabilities(pa.array(["theorem"]))
    data = pickle.dumps(model)
    assert len(data) < 2000
    np.testing.assert_array_equal(pickle.loads(data).probabilities(pa.array(["theorem"])), before)


def test_a_model_file_that_changed_after_its_header_was_read(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes((models / "words.bin").read_bytes())
    model = FastTextModel(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AnnotatorError, match="the file has changed"):
        model.load()
    path.unlink()
    with pytest.raises(AnnotatorError, match=r"model\.bin: No such file"):
        model.load()


def test_a_model_with_nan_is_an_error(models: Path, tmp_path: Path) -> None:
    data = (models / "words.bin").read_bytes()
    header = read_header(models / "words.bin")
    output_bytes = 4 * header.dim * len(header.labels)
    path = tmp_path / "nan.bin"
    path.write_bytes(data[:-output_bytes] + np.full(output_bytes // 4, np.nan, np.float32).tobytes())
    with pytest.raises(AnnotatorError, match=r"nan\.bin: .*NaN"):
        FastTextModel(path).probabilities(pa.array(["theorem"]))


@given(st.text(min_size=1))
def test_encoded_labels_are_one_word_and_decode_to_the_name(name: str) -> None:
    label = encode_label(name)
    assert decode_label(label) == name
    assert not set(label) & set(" \n\r\t\v\f\0")


def test_decoding_other_labels_drops_only_the_prefix() -> None:
    assert [decode_label(label) for label in ("__label__eng_Latn", "__label__100%", "hq")] == ["eng_Latn", "100%", "hq"]
    with pytest.raises(AnnotatorError, match="a label is empty"):
        encode_label("")
