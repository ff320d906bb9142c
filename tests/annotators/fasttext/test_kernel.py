"""The compiled kernel: words as fastText reads them, and probabilities that equal the library's for every model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import fasttext
import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.annotators.fasttext.kernel import heads, words
from colophon.annotators.fasttext.kernel.compiled import compilation
from colophon.annotators.fasttext.kernel.compiled.splitting import END_KEY
from colophon.annotators.fasttext.kernel.compiled.structures import LABEL_SIGN
from colophon.annotators.fasttext.kernel.words import split, words_of
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.text_preparation import TextPreparation
from tests.annotators.conftest import COMMON, WORDS

KINDS = ["softmax.bin", "ova.bin", "hs.bin", "chars.bin", "words.bin", "many.bin", "plain.ftz", "pruned.ftz"]
KINDS += ["output.ftz", "trigrams.bin", "wide.bin", "chars_hs.bin", "chars_pruned.ftz"]
KINDS += ["chars_wide.bin", "chars_wide_pruned.ftz", "chars_ova.bin", "ova.ftz", "ns.bin", "one_dimension.bin"]
KINDS += ["wide_hs.bin"]
SEPARATORS = " \n\r\t\v\f\0"
KNOWN = [*COMMON, *(word for group in WORDS.values() for word in group)]
TOKENS = [*KNOWN, "</s>", "__label__high", "__label__", "__label__never", "é", "漢字", "zzq"]
TEXTS = st.lists(st.one_of(st.sampled_from(TOKENS), st.sampled_from(SEPARATORS), st.text(max_size=6)), max_size=40).map(
    lambda parts: "".join(part + " " * (len(part) > 1) for part in parts)
)


def fnv(word: bytes, *, start: int, prime: int, bits: int, signed: bool) -> int:
    for byte in word:
        start = (start ^ (byte - 256 if signed and byte > 127 else byte)) * prime % (1 << bits)
    return start


def read_by_rule(text: str) -> list[bytes]:
    """The words of a line by the rule of the library's `readWord`."""
    found = [word.encode() for word in re.split(f"[{SEPARATORS}]+", text) if word]
    if b"</s>" in found:
        return found[: found.index(b"</s>") + 1]
    return [*found, b"</s>"] if found else []


@given(texts=st.lists(st.one_of(st.none(), TEXTS), max_size=6), start=st.integers(0, 3), large=st.booleans())
def test_words_follow_the_rule(texts: list[str | None], start: int, large: bool) -> None:
    column = pa.array(texts, pa.large_string() if large else pa.string()).slice(start)
    found = split(column)
    expected = [[] if text is None else read_by_rule(text) for text in column.to_pylist()]
    assert np.diff(found.firsts).tolist() == [len(text) for text in expected]
    flat = [word for text in expected for word in text]
    hashes = [fnv(w, start=2166136261, prime=16777619, bits=32, signed=True) for w in flat]
    assert found.hashes.view(np.uint32).tolist() == hashes
    keys = [fnv(w, start=14695981039346656037, prime=1099511628211, bits=64, signed=False) for w in flat]
    assert found.keys.tolist() == keys
    for word, key, begin, size in zip(flat, found.keys, found.starts, found.sizes, strict=True):
        assert (word == b"</s>") == (key == END_KEY)
        assert bool(size & LABEL_SIGN) == word.startswith(b"__label__")
        if word != b"</s>":
            assert found.data[begin : begin + (size & ~LABEL_SIGN)].tobytes() == word


def test_models_of_a_pass_share_the_words(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(words, "split", lambda texts: (calls.append(len(texts)), split(texts))[1])
    batch = pa.record_batch({"text": pa.array(["theorem\nproof", "lol"] * 10)})
    for name in ("softmax.bin", "words.bin", "ova.bin"):
        FastTextModel(models / name).probabilities(batch.column("text"))
    assert calls == [20]
    FastTextModel(models / "ova.bin").probabilities(batch.column("text"), preparation=TextPreparation(lower=True))
    assert calls == [20, 20], "a different preparation reads different words"


def test_words_of_earlier_texts_are_not_returned() -> None:
    raw = TextPreparation()
    for i in range(200):  # arrays are freed, and new ones get their addresses
        assert words_of(pa.array([f"word{i} again"]), raw).hashes[0] == split(pa.array([f"word{i}"])).hashes[0]


@pytest.mark.parametrize("newline", ["space", "collapse", "delete", "join_lines"])
@given(text=TEXTS)
def test_preparing_in_the_kernel_equals_preparing_before(newline: str, text: str) -> None:
    prepare = TextPreparation.model_validate({"newline": newline})
    column = pa.array([text])
    np.testing.assert_array_equal(words_of(column, prepare).keys, split(prepare(column)).keys)


def library_rows(path: Path, lines: list[str]) -> np.ndarray:
    """float64 [lines, labels], without the 1e-5 that the library adds to each, but with those of a tree's turns."""
    model = fasttext.load_model(str(path))
    labels = model.get_labels()
    is_tree = model.f.getArgs().loss.name == "hs"
    rows = np.full((len(lines), len(labels)), np.nan)
    for row, line in zip(rows, lines, strict=True):
        found = model.f.predict(line.replace("\n", " ") + "\n", -1, 0.0, "strict")
        if found:
            row[:] = 0
            row[[labels.index(label) for _, label in found]] = [p if is_tree else p - 1e-5 for p, _ in found]
    return rows


def assert_equal_to_the_library(path: Path, texts: list[str]) -> None:
    model = FastTextModel(path)
    expected = library_rows(path, texts)
    rows = model.probabilities(pa.array(texts))
    wordless = [not read_by_rule(text) for text in texts]
    assert np.isnan(rows[wordless]).all()
    rows, expected = rows[~np.array(wordless, bool)], expected[~np.array(wordless, bool)]
    assert (np.isnan(rows) == np.isnan(expected)).all()
    rows, expected = rows[~np.isnan(expected).any(axis=1)], expected[~np.isnan(expected).any(axis=1)]
    # The library drops leaves of a tree below 1e-5. A model that is not collapsed is summed as the library does it.
    dropped = expected == 0 if model.header.loss == "hs" else np.zeros_like(expected, bool)
    tolerance = 2e-5 if model.header.is_collapsed else 5e-7
    np.testing.assert_allclose(rows[~dropped], expected[~dropped], atol=tolerance, rtol=0)
    assert (rows[dropped] < 1.1e-5).all()
    best = expected[np.arange(len(rows)), rows.argmax(axis=1)] if len(rows) else np.empty(0)
    np.testing.assert_allclose(best, expected.max(axis=1, initial=0) if len(rows) else best, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_every_kind_of_model_equals_the_library(kinds: Path, name: str, texts: list[str]) -> None:
    assert_equal_to_the_library(kinds / name, texts)


@pytest.mark.parametrize("name", ["softmax.bin", "ova.bin", "chars.bin", "chars_hs.bin", "chars_wide.bin"])
def test_long_texts_equal_the_library(kinds: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    long = " ".join(rng.choice([*KNOWN, "zzq", "laser-"], 300_000))
    assert_equal_to_the_library(kinds / name, [long, "x" * 100_000, " ".join(["theorem"] * 70_000)])


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["softmax.bin", "ova.bin", "hs.bin", "chars.bin", "chars_pruned.ftz", "chars_wide.bin"]
)
def test_real_text_equals_the_library(kinds: Path, shared_data: Path, name: str) -> None:
    files = [*sorted(shared_data.glob("multilingual/*.parquet")), shared_data / "web" / "train-00003.parquet"]
    files += [shared_data / "hostile" / name for name in ("odd_text.parquet", "nulls.parquet", "huge_document.parquet")]
    texts: list[str] = []
    for file in files:
        if file.is_file():
            column = pq.read_table(file, columns=["text"]).column("text")
            texts += [text for text in column.take(pa.array(range(0, len(column), 15))).to_pylist() if text is not None]
    assert len(texts) > 500
    assert_equal_to_the_library(kinds / name, texts)


def test_the_steps_of_the_sigmoid_are_the_librarys() -> None:
    """At the steps themselves, between them, and outside; the library's table has 512 steps from -8 to 8."""
    logits = np.array([[-9.0, -8.0, -7.97, 0.0, 1 / 64, 7.99, 8.0, 8.01, np.nan]], np.float32)
    steps = np.array([-np.inf, -8.0, -8 + 0 / 32, 0.0, 0.0, 8 - 1 / 32, 8.0, np.inf, np.nan])
    expected = 1 / (1 + np.exp(-steps))
    np.testing.assert_allclose(heads.stepped_sigmoid(logits)[0], expected, atol=1e-7)


def test_code_is_compiled_each_time_where_none_can_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(**options: Any) -> Any:
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(compilation, "njit", njit)

    @compilation.compiled
    def twice(x: int) -> int:
        return 2 * x

    assert twice(21) == 42


def test_a_change_of_any_compiled_file_compiles_all_again(tmp_path: Path) -> None:
    """Numba's cache on disk does not detect a change of a function that is called in another file."""
    source = Path(compilation.__file__).parent
    code = (source / "compilation.py").read_text()
    (tmp_path / "compilation.py").write_text(code)
    called = "from compilation import compiled\n\n\n@compiled\ndef number():\n    return 1\n"
    (tmp_path / "called.py").write_text(called)
    (tmp_path / "calling.py").write_text(
        "from called import number\nfrom compilation import compiled\n\n\n"
        "@compiled\ndef twice():\n    return 2 * number()\n\n\nprint(twice())\n"
    )

    def run() -> str:
        return subprocess.run(
            [sys.executable, "calling.py"], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert run() == "2"
    assert any(tmp_path.rglob("*twice*.nbc"))
    (tmp_path / "called.py").write_text(called.replace("return 1", "return 21"))
    assert run() == "42"


def test_numba_is_used_in_one_folder() -> None:
    folder = Path(words.__file__).parents[1]
    users = {
        path.parent.name
        for path in folder.rglob("*.py")
        if re.search(r"^\s*(from|import) numba", path.read_text(), re.M)
    }
    assert users == {"compiled"}
