"""fastText files: headers that hold for good files and refuse bad ones; probabilities that equal the library's."""

from __future__ import annotations

import pickle
import struct
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
from colophon.annotators.fasttext.model_layout import FastTextHeader

MODELS = ["softmax.bin", "ova.bin", "hs.bin", "chars.bin", "words.bin"]


def by_library(path: Path, line: str) -> dict[str, float]:
    found = fasttext.load_model(str(path)).f.predict(line + "\n", -1, 0.0, "strict")
    return {label: probability - 1e-5 for probability, label in found}


@pytest.mark.parametrize("name", MODELS)
def test_header_is_what_the_library_says(models: Path, name: str) -> None:
    header, library = read_header(models / name), fasttext.load_model(str(models / name))
    used = library.f.getArgs()
    assert list(header.labels) == library.get_labels()
    assert header.num_words == len(library.get_words())
    assert (header.dim, header.word_ngrams, header.buckets) == (used.dim, used.wordNgrams, used.bucket)
    assert (header.min_chars, header.max_chars) == (used.minn, used.maxn)
    assert header.loss == used.loss.name
    assert header.file_bytes == (models / name).stat().st_size
    assert not header.quantized


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
    assert rows.max() <= 1
    for text, row in zip(texts, rows, strict=True):
        expected = by_library(models / name, text)
        # Hierarchical softmax adds an offset a node, so there the library itself is off by some 1e-5.
        tolerance = 5e-5 if name == "hs.bin" else 1e-6
        np.testing.assert_allclose(row, [expected.get(x, 0) for x in model.header.labels], atol=tolerance)
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


def test_pickling_leaves_the_matrices_out(models: Path) -> None:
    model = FastTextModel(models / "softmax.bin")
    before = model.probabilities(pa.array(["theorem"]))
    data = pickle.dumps(model)
    assert len(data) < 2000
    np.testing.assert_array_equal(pickle.loads(data).probabilities(pa.array(["theorem"])), before)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "its magic number is missing"),
        (b"PAR1" * 100, "its magic number is missing"),
        (struct.pack("<2i", 793712314, 12), "it is cut short"),
        (struct.pack("<2i12id", 793712314, 13, *[1] * 12, 0.1), "format version 13; known: 11, 12"),
    ],
)
def test_what_is_no_model(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(AnnotatorError, match=f"model.bin: not a usable fastText model: {reason}$"):
        read_header(path)


def test_missing_folder_and_word_vectors(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match=r"none\.bin: no such file$"):
        read_header(tmp_path / "none.bin")
    with pytest.raises(AnnotatorError, match="not a usable fastText model: Is a directory"):
        read_header(tmp_path)
    (tmp_path / "words.txt").write_text("a b c\n" * 50)
    path = tmp_path / "vectors.bin"
    options = {"dim": 2, "minCount": 1, "bucket": 10, "thread": 12, "verbose": 0, "epoch": 1}
    fasttext.train_unsupervised(str(tmp_path / "words.txt"), **options).save_model(str(path))
    with pytest.raises(AnnotatorError, match="it holds skipgram vectors without labels"):
        read_header(path)


@given(data=st.data())
def test_every_cut_is_refused(models: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = (models / "words.bin").read_bytes()
    path = tmp_path_factory.getbasetemp() / "cut.bin"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(AnnotatorError):
        read_header(path)


@pytest.mark.parametrize("which", ["words.bin", "plain.ftz", "pruned.ftz", "output.ftz"])
@given(data=st.data())
def test_flipped_bytes_give_a_header_or_an_error(
    models: Path,
    quantized: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
    which: str,
    data: st.DataObject,
) -> None:
    source = next(path for path in [models / "words.bin", *quantized] if path.name == which)
    damaged = bytearray(source.read_bytes())
    places = st.one_of(st.integers(0, 120), st.integers(0, len(damaged) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(places)] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.bin"
    path.write_bytes(damaged)
    try:
        header = read_header(path)
    except AnnotatorError as error:
        assert "\n" not in str(error).replace("\\n", "")
    else:
        assert isinstance(header, FastTextHeader)
        assert 0 < len(header.labels) < len(damaged)


def test_a_model_that_changed_under_us(models: Path, tmp_path: Path) -> None:
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
def test_labels_survive_as_one_word(name: str) -> None:
    label = encode_label(name)
    assert decode_label(label) == name
    assert not set(label) & set(" \n\r\t\v\f\0")


def test_labels_of_others_lose_only_the_prefix() -> None:
    assert [decode_label(label) for label in ("__label__eng_Latn", "__label__100%", "hq")] == ["eng_Latn", "100%", "hq"]
    with pytest.raises(AnnotatorError, match="a label is empty"):
        encode_label("")
