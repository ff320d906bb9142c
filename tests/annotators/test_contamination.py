"""The `contamination` annotator: what it finds, beside plain Python; the files that it reads, and what it refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.annotators.base import Annotator, AnnotatorError
from colophon.annotators.contamination import ContaminationConfig
from colophon.annotators.ngrams.texts import ngrams_of

ITEMS = [
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "How many clips did Natalia sell altogether in April and May?",
    "Short one.",
]


def write_items(path: Path, items: list[str] = ITEMS) -> dict[str, Any]:
    path.write_text("".join(json.dumps({"question": item, "n": 1}) + "\n" for item in items))
    return {"path": str(path), "columns": ["question"]}


def build(ngram: int, **benchmarks: dict[str, Any]) -> Annotator:
    return ContaminationConfig.model_validate({"ngram": ngram, "benchmarks": benchmarks}).build("c")


def found(annotator: Annotator, *texts: str | None) -> list[tuple[Any, ...]]:
    rows = annotator.annotate(pa.record_batch({"text": pa.array(texts, pa.string())})).to_pylist()
    return [tuple(row.values()) for row in rows]


def test_shares_equal_those_of_plain_python(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta"]
    items, others, documents = ([" ".join(rng.choice(words, size)) for size in rng.integers(1, 40, 60)] for _ in "abc")
    annotator = build(5, a=write_items(tmp_path / "a.jsonl", items), b=write_items(tmp_path / "b.jsonl", others))

    def ngrams(text: str) -> list[tuple[str, ...]]:
        parts = text.split()
        return [tuple(parts[place : place + 5]) for place in range(len(parts) - 4)]

    known = [{ngram for item in each for ngram in ngrams(item)} for each in (items, others)]
    for document, (share, matches, benchmark) in zip(documents, found(annotator, *documents), strict=True):
        own = ngrams(document)
        by_benchmark = [sum(ngram in each for ngram in own) for each in known]
        expected = sum(any(ngram in each for each in known) for ngram in own)
        assert matches == expected
        assert share == pytest.approx(expected / max(len(own), 1))
        assert benchmark == ("ab"[int(np.argmax(by_benchmark))] if expected else None)


def test_case_accents_marks_and_white_space_do_not_count(tmp_path: Path) -> None:
    annotator = build(13, clips=write_items(tmp_path / "a.jsonl"))
    edited = "NATALIA sold --clips--\n\nto 48 of her frie\u00adnds\tin \uff21pril; and"
    edited += " then (she) sold HÁLF as many clips in May"
    assert found(annotator, edited) == [(1.0, 8, "clips")]
    book = " ".join(f"word{number}" for number in range(93))
    assert found(annotator, f"{book} {ITEMS[0]} {book}") == [(pytest.approx(8 / 194), 8, "clips")]
    assert found(annotator, book, "Short one.", "", " ?! ", None) == [
        (0.0, 0, None),
        (0.0, 0, None),
        (None, None, None),
        (None, None, None),
        (None, None, None),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop-me, now", ["don", "t", "stop", "me", "now"]),
        ("Straße STRASSE ΣΑΣ σας", ["straße", "strasse", "σασ", "σασ"]),
        ("中文 mixed 文字", ["中", "文", "mixed", "文", "字"]),
        ("𠀀𠀁", ["𠀀", "𠀁"]),
        ("e\u0301té ét\u00e9", ["ete", "ete"]),
        ("हिन्दी", ["हिन्दी"]),
        ("a\x00b 😀 c", ["a", "b", "c"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    """Equal keys of the text's words and of the expected words, each by itself."""
    alone = ngrams_of(pa.array(words), length=1)
    assert ngrams_of(pa.array([text]), length=1).keys.tolist() == alone.keys.tolist()
    assert len(alone.keys) == len(words)
    assert len(set(alone.keys.tolist())) == len(set(words))


def test_no_ngram_reaches_across_texts(tmp_path: Path) -> None:
    rows = pa.table({"q": ["one two three", "four five"], "a": ["six seven", None]})
    pq.write_table(rows, tmp_path / "a.parquet")
    annotator = build(3, a={"path": str(tmp_path / "a.parquet"), "columns": ["q", "a"]})
    assert found(annotator, "one two three four five six seven") == [(pytest.approx(1 / 5), 1, "a")]
    assert annotator.notes == ("annotators.c: 2 of 3 texts of a have fewer than 3 words, and are found in no document",)


def test_texts_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("\ufeffone two\nthree", encoding="utf-8")
    (folder / "b.txt.gz").write_bytes(gzip.compress("\ufefffour five six".encode()))
    annotator = build(3, all={"path": str(folder)})
    assert [row[1] for row in found(annotator, "One two three", "four five six", "five six one")] == [1, 1, 0]
    assert annotator.notes == ()


def test_an_edited_benchmark_has_a_different_fingerprint_and_ends_a_run_that_began_before(tmp_path: Path) -> None:
    keys = write_items(tmp_path / "a.jsonl")
    before = build(5, a=keys)
    known = before.fingerprint
    assert build(6, a=keys).fingerprint != known
    write_items(tmp_path / "a.jsonl", ["an entirely different question about trains"])
    assert build(5, a=keys).fingerprint != known
    with pytest.raises(AnnotatorError, match=r"annotators\.c\.benchmarks\.a: .*a\.jsonl has changed since the run"):
        before.load()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path": "TMP/missing.jsonl"}, "missing.jsonl: no such file or folder"),
        ({"path": "TMP/a.jsonl"}, "a.jsonl: a table needs the key `columns`"),
        ({"path": "TMP/a.txt", "columns": ["question"]}, "a.txt: a text file has no `columns`"),
        ({"path": "TMP/a.parquet", "columns": ["question"]}, "a.parquet: cannot be read: "),
        ({"path": "TMP/a.jsonl", "columns": ["n"]}, "a.jsonl: cannot be read: "),
        ({"path": "TMP/a.jsonl", "columns": ["question", "nope"]}, "a.jsonl: no column 'nope'; columns: question, n"),
        ({"path": "TMP/wide.txt"}, "wide.txt: UTF-16LE, not UTF-8. Convert it: iconv"),
        ({"path": "TMP/wide.jsonl", "columns": ["question"]}, "wide.jsonl: UTF-16, not UTF-8. Convert it: iconv"),
        ({"path": "TMP/latin.txt"}, "latin.txt: not UTF-8: the byte 0xe9 in line 1. Convert it"),
        ({"path": "TMP/latin.jsonl", "columns": ["question"]}, "latin.jsonl: not UTF-8. Convert it"),
        ({"path": "TMP/a.jsonl", "columns": ["question"]}, "no text has 99 words: give a smaller ngram"),
    ],
)
def test_what_cannot_be_used_is_one_line(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_items(tmp_path / "a.jsonl")
    (tmp_path / "a.txt").write_text("some words")
    (tmp_path / "a.parquet").write_text("PAR1")
    (tmp_path / "wide.txt").write_bytes("some words".encode("utf-16-le"))
    (tmp_path / "wide.jsonl").write_bytes('{"question": "some words"}'.encode("utf-16"))
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "latin.jsonl").write_bytes('{"question": "café"}'.encode("latin-1"))
    with pytest.raises(AnnotatorError) as failed:
        build(99, x={**keys, "path": keys["path"].replace("TMP", str(tmp_path))}).load()
    assert message in str(failed.value)
    assert str(failed.value).startswith("annotators.c.benchmarks.x: ")
    assert "\n" not in str(failed.value)
