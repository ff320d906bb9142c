"""`gopher`, `c4` and `fineweb`: verdicts and reasons, as datatrove's filters give them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

from colophon.annotators.base import AnnotatorError, annotator_types
from colophon.annotators.rules.words import FAST, FastTokenizer, register

SENTENCE = "The cat and the dog have been with us for {} years, and that is a long time to be here."
GOOD = "\n".join(SENTENCE.format(word) for word in ("two", "three", "many", "some", "five", "seven"))


def verdicts(name: str, *texts: str | None, **settings: Any) -> list[tuple[bool | None, str | None]]:
    annotator = annotator_types()[name].model_validate(settings).build("r")
    rows = annotator.annotate(pa.record_batch({"text": pa.array(texts, pa.string())})).to_pylist()
    return [(row["r_ok"], row["r_reason"]) for row in rows]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("gopher", GOOD, "top_4_gram"),
        ("gopher", "too short", "gopher_short_doc"),
        ("gopher", "zebra lion " * 30, "gopher_enough_stop_words"),
        ("gopher", "• the word and another word\n" * 60, "gopher_too_many_bullets"),
        ("gopher", "# the and to of be " * 30, "gopher_below_avg_threshold"),
        ("gopher", "1234 5678 the and " * 30, "gopher_below_alpha_threshold"),
        ("c4", GOOD, None),
        ("c4", "One. Two.", "too_few_sentences"),
        ("c4", f"{GOOD}\nThe word lorem ipsum is here.", "lorem_ipsum"),
        ("c4", f"{GOOD}\nThe function f {{ is here.", "curly_bracket"),
        ("c4", "\n".join(["no mark at the end"] * 20), "too_few_sentences"),
        ("fineweb", GOOD, None),
        ("fineweb", "\n".join(f"item number {i} and no mark at the end of it" for i in range(9)), "line_punct_ratio"),
        ("fineweb", "\n".join(f"Item {i}." for i in range(9)), "short_line_ratio"),
        ("fineweb", f"{GOOD}\n{GOOD}", "char_dup_ratio"),
    ],
)
def test_verdicts_and_reasons(name: str, text: str, reason: str | None) -> None:
    assert verdicts(name, text) == [(reason is None, reason)]


def test_texts_without_a_word_have_no_verdict() -> None:
    for name in ("gopher", "c4", "fineweb"):
        assert verdicts(name, None, "", " \n") == [(None, None)] * 3


def test_thresholds_are_settings() -> None:
    assert verdicts("gopher", "The cat and the dog sat.", min_words=3, repetition=False) == [(True, None)]
    assert verdicts("gopher", GOOD, quality=False) == [(False, "top_4_gram")]
    assert verdicts("gopher", GOOD, repetition=False, max_words=20) == [(False, "gopher_long_doc")]
    assert verdicts("c4", "One word here. Two words here.", min_sentences=2) == [(True, None)]
    assert verdicts("c4", f"{GOOD}\nThe function f {{ is here.", curly_brackets=False) == [(True, None)]
    assert verdicts("fineweb", f"{GOOD}\n{GOOD}", max_duplicate_chars=0.9) == [(True, None)]


def test_verdicts_are_those_of_the_filters_with_the_same_words() -> None:
    register()
    texts = [
        GOOD,
        GOOD[:200],
        f"{GOOD}\n{GOOD}",
        "• the and\n" * 60,
        "word " * 100,
        "One. Two. Three. Four. Five. Six.",
    ]
    filters = {
        "gopher": [GopherQualityFilter(language=FAST), GopherRepetitionFilter(language=FAST)],
        "c4": [C4QualityFilter(language=FAST)],
        "fineweb": [FineWebQualityFilter(language=FAST)],
    }
    for name, each in filters.items():
        expected = []
        for text in texts:
            results = [one.filter(Document(text=text, id="")) for one in each]
            reasons = [result[1] for result in results if isinstance(result, tuple)]
            expected.append((not reasons, reasons[0] if reasons else None))
        assert verdicts(name, *texts) == expected


def test_words_and_sentences() -> None:
    tokenizer = FastTokenizer()
    assert tokenizer.word_tokenize("Don't pay $3.50, e.g. to U.S. banks... (état)!") == (
        ["Don't", "pay", "$", "3.50", ",", "e.g", ".", "to", "U.S", ".", "banks", "...", "(", "état", ")", "!"]
    )
    text = 'He said: "No!" It cost 3.50. Why? 日本語。次の文。\nEnd'
    sentences = ['He said: "No!"', "It cost 3.50.", "Why?", "日本語。", "次の文。", "End"]
    assert tokenizer.sent_tokenize(text) == sentences
    assert [text[start:end].strip() for start, end in tokenizer.span_tokenize(text)] == sentences


def test_long_runs_and_long_texts_are_cut() -> None:
    assert verdicts("gopher", "!" * 200_000 + "x" * 200_000) == [(False, "gopher_short_doc")]
    assert verdicts("c4", GOOD + "\n{ curly.", max_chars=len(GOOD)) == [(True, None)]


def test_the_words_of_datatrove() -> None:
    with pytest.raises(AnnotatorError, match=r"annotators\.r\.language: datatrove has no tokenizer for 'englsh'"):
        verdicts("gopher", "", words="datatrove", language="englsh")
    with pytest.raises(AnnotatorError, match=r"annotators\.r\.language: ImportError: .*pythainlp"):
        verdicts("gopher", "", words="datatrove", language="tha")
    pytest.importorskip("spacy")
    assert verdicts("gopher", "too short", words="datatrove") == [(False, "gopher_short_doc")]


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import datatrove.utils.word_tokenizers as tokenizers

    def fail(language: str) -> None:
        raise ImportError(f"Please install spacy to use {language} word tokenizer")

    monkeypatch.setattr(tokenizers, "load_word_tokenizer", fail)
    with pytest.raises(AnnotatorError) as failed:
        verdicts("fineweb", "", words="datatrove")
    assert str(failed.value) == "annotators.r needs the package spacy: pip install 'colophon[rules]'"
