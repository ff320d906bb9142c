"""fastText files: the header equals the library's, and damaged or foreign files are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import fasttext
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model_file import read_header
from colophon.annotators.fasttext.model_layout import FastTextHeader

MODELS = ["softmax.bin", "ova.bin", "hs.bin", "chars.bin", "words.bin"]


@pytest.mark.parametrize("name", MODELS)
def test_the_header_equals_the_librarys(models: Path, name: str) -> None:
    header, library = read_header(models / name), fasttext.load_model(str(models / name))
    used = library.f.getArgs()
    assert list(header.labels) == library.get_labels()
    assert header.num_words == len(library.get_words())
    assert (header.dim, header.word_ngrams, header.buckets) == (used.dim, used.wordNgrams, used.bucket)
    assert (header.min_chars, header.max_chars) == (used.minn, used.maxn)
    assert header.loss == used.loss.name
    assert header.file_bytes == (models / name).stat().st_size
    assert not header.quantized


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
def test_files_that_are_not_models(tmp_path: Path, data: bytes, reason: str) -> None:
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
def test_every_truncated_file_is_refused(
    models: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
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
