"""Models that were made to cost time or memory: words that collide or repeat, many labels, n-grams of 100."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel import words
from colophon.annotators.fasttext.kernel.tables import LinearModel, build_model
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_file import read_header, read_layout
from colophon.annotators.fasttext.report import evaluate_classifier
from colophon.annotators.fasttext.score_rules import ScoreRule
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext_classifier import FastTextConfig
from colophon.shards.common.arrays import NumPyArray
from tests.annotators.fasttext.test_kernel import assert_equal_to_the_library

SOFTMAX, ONE_VERSUS_ALL = 3, 4


def write_model(
    path: Path,
    *,
    entries: list[str],
    labels: int = 2,
    dim: int = 2,
    loss: int = SOFTMAX,
    buckets: int = 0,
    ngrams: tuple[int, int, int] = (1, 0, 0),
    seed: int = 0,
) -> Path:
    """A model with those words and random matrices; `ngrams` are wordNgrams, minn and maxn."""
    word_ngrams, min_chars, max_chars = ngrams
    rng = np.random.default_rng(seed)
    numbers = (dim, 5, 5, 1, 5, word_ngrams, loss, 3, buckets, min_chars, max_chars)
    parts = [struct.pack("<2i12id", 793712314, 12, *numbers, 100, 1e-4)]
    parts.append(struct.pack("<3i2q", len(entries) + labels, len(entries), labels, 10, -1))
    parts += [entry.encode() + b"\0" + struct.pack("<qb", 9, 0) for entry in entries]
    parts += [f"__label__{i}".encode() + b"\0" + struct.pack("<qb", labels - i, 1) for i in range(labels)]
    for rows in (len(entries) + buckets, labels):
        parts.append(struct.pack("<?2q", False, rows, dim))
        parts.append(rng.standard_normal((rows, dim)).astype(np.float32).tobytes())
    path.write_bytes(b"".join(parts))
    return path


def built(path: Path) -> LinearModel:
    def allocate(_: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NumPyArray:
        return np.zeros(shape, dtype)

    return build_model(read_layout(path), allocate=allocate)


def colliding_words(number: int) -> list[str]:
    """Words whose keys times 2^64 over the golden ratio, the factor of a hash table that anyone can know, agree."""
    with np.errstate(over="ignore"):
        letters = np.random.default_rng(0).integers(97, 123, (64 * number, 10)).astype(np.uint64)
        keys = np.full(len(letters), 14695981039346656037, np.uint64)
        for column in letters.T:
            keys = (keys ^ column) * np.uint64(1099511628211)
        chosen = np.flatnonzero((keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(59) == 0)[:number]
    assert len(chosen) == number
    return [bytes(row.astype(np.uint8)).decode() for row in letters[chosen]]


def longest_run(slots: NumPyArray) -> int:
    """The most slots in a row that are used: the cost of finding that a word is not among them."""
    free = np.flatnonzero(slots[:, 0] == 0)
    return int(np.diff(free, append=free[0] + len(slots)).max()) - 1


def test_words_chosen_to_collide_do_not(tmp_path: Path) -> None:
    model = built(write_model(tmp_path / "model.bin", entries=colliding_words(4000)))
    assert longest_run(model.tables.slots) < 100
    other = built(write_model(tmp_path / "other.bin", entries=["a", "b"]))
    assert other.shape.slot_factor != model.shape.slot_factor
    assert other.shape.slot_factor % 2 == 1


def test_of_equal_words_the_last_one_counts_as_in_the_library(tmp_path: Path) -> None:
    entries = ["one", "two", "one", "three", "two", "__label__1", *["again"] * 5000]
    for loss in (SOFTMAX, ONE_VERSUS_ALL):
        path = write_model(tmp_path / "model.bin", entries=entries, loss=loss)
        texts = ["one", "two two one", "three", "again", "again one", "__label__1", "unknown"]
        assert_equal_to_the_library(path, texts)
    used = built(path).tables.slots
    assert np.count_nonzero(used[:, 0]) == 5 + 1, "one slot for each word and label: __label__1 is both"
    assert fasttext.load_model(str(path)).get_word_id("again") == len(entries) - 1


@pytest.mark.parametrize(("loss", "labels"), [(SOFTMAX, 2), (SOFTMAX, 3), (ONE_VERSUS_ALL, 2)])
def test_words_of_many_subwords_equal_the_library(loss: int, labels: int, tmp_path: Path) -> None:
    """Longer than what is listed at once, known and unknown, of letters of one and more bytes."""
    rng = np.random.default_rng(1)
    long = ["".join(rng.choice([*"abcde", "é", "漢"], size)) for size in (40, 200, 900)]
    path = write_model(
        tmp_path / "model.bin", entries=["a", *long], labels=labels, loss=loss, buckets=50, ngrams=(2, 1, 100)
    )
    texts = ["a", *long, " ".join(long), " ".join([long[2] + "x", "a", long[0], long[2][1:]]), "x" * 3000]
    assert_equal_to_the_library(path, texts)


def test_ngrams_of_100_words_equal_the_library(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.bin", entries=["a", "b"], labels=3, buckets=50, ngrams=(100, 0, 0))
    assert_equal_to_the_library(path, ["a b " * 300, "a", "b a c"])


def test_memory_of_many_labels_is_bounded(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.bin", entries=["a", "b"], labels=4000, dim=1)
    texts = pa.array(["a b", "b", "", None, "c"] * 800)
    model = FastTextModel(path, cached=False)
    assert model.header.rows_at_once == 524
    single = model.probabilities(texts[:5])
    tracemalloc.start()
    try:
        rows = model.probabilities(texts)
        assert tracemalloc.get_traced_memory()[1] < rows.nbytes + (100 << 20)
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(rows, np.tile(single, (800, 1)))


def test_an_annotator_scores_fewer_texts_at_once_the_more_labels_there_are(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.bin", entries=["a", "b"], labels=100_000, dim=1)
    assert read_header(path).rows_at_once == 20
    annotator = FastTextConfig(model=str(path), score=ScoreRule(argmax=True)).build("q")
    batch = pa.record_batch({"text": pa.array(["a b"] * 50)})
    assert [len(rows) for rows in annotator._probabilities(batch)] == [20, 20, 10]


def test_a_label_of_kilobytes_is_refused(tmp_path: Path) -> None:
    """Each document's annotation would have it."""
    path = write_model(tmp_path / "model.bin", entries=["a"])
    path.write_bytes(path.read_bytes().replace(b"__label__0", b"__label__" + b"x" * 991))
    assert len(read_header(path).labels[0]) == 1000
    path.write_bytes(path.read_bytes().replace(b"__label__", b"__label__x"))
    with pytest.raises(AnnotatorError, match="a label has 1,001 bytes; at most 1,000 are read"):
        read_header(path)


def test_a_report_compares_a_limited_number_of_labels(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.bin", entries=["a"], labels=5001, dim=1)
    with pytest.raises(AnnotatorError, match="model and rows have 5,001 labels; a report compares at most 5,000"):
        evaluate_classifier(path, ["a"], ["0"], normalize=TextPreparation())


def test_the_words_of_a_long_text_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, raw = pa.array(["a b c"]), TextPreparation()
    assert words.words_of(texts, raw) is words.words_of(texts, raw)
    monkeypatch.setattr(words, "_KEPT_BYTES", 8)
    texts = pa.array(["a b c d"])
    assert words.words_of(texts, raw) is not words.words_of(texts, raw)
    assert not words._recent.found
