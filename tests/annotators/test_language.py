"""The `language` annotator: languages, probabilities, thresholds, and names that the model lacks."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from colophon.annotators.base import Annotator, AnnotatorError
from colophon.annotators.fasttext.training.classifier import train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from colophon.annotators.language import LanguageConfig

WORDS = {
    "eng_Latn": "the and house water bread with this that which from have",
    "deu_Latn": "der und Haus Wasser Brot mit dieser jener welche von haben",
    "fra_Latn": "le et maison eau pain avec ce cette qui de avoir",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    labels = [list(WORDS)[i % 3] for i in range(600)]
    texts = [" ".join(rng.choice(WORDS[label].split(), 8)) for label in labels]
    path = tmp_path_factory.mktemp("language") / "lid.bin"
    small = TrainingSettings(dim=8, buckets=2000, epoch=10, loss="softmax", min_chars=2, max_chars=3, word_ngrams=1)
    train_classifier(texts, labels, output=path, settings=small)
    return path


def build(model: Path, **settings: Any) -> Annotator:
    return LanguageConfig.model_validate({"model": str(model), **settings}).build("language")


def found(annotator: Annotator, *texts: str | None) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = annotator.annotate(
        pa.record_batch({"text": pa.array(texts, pa.string())})
    ).to_pydict()
    return columns


TEXTS = ("the house and the water", "das Haus und das Wasser mit Brot", "le pain\net cette eau", None, "", "\n")


def test_the_most_probable_language_and_chosen_probabilities(model: Path) -> None:
    annotator = build(model, scores=["fra_Latn", "eng_Latn"], rename={"eng_Latn": "en", "deu_Latn": "de"})
    assert annotator.schema.names == ["language", "language_score", "language_fra_Latn", "language_en"]
    columns = found(pickle.loads(pickle.dumps(annotator)), *TEXTS)
    assert columns["language"] == ["en", "de", "fra_Latn", None, None, None]
    assert columns["language_en"][0] == columns["language_score"][0] > 0.9
    assert columns["language_fra_Latn"][2] == columns["language_score"][2] > 0.9
    assert columns["language_fra_Latn"][0] < 0.1
    assert [score is None for score in columns["language_score"]] == [False] * 3 + [True] * 3
    assert max(filter(None, columns["language_score"])) <= 1


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ({"default": 0.5}, [True, True, True, None, None, None]),
        ({"default": 0.5, "deu_Latn": 1.0}, [True, False, True, None, None, None]),
        ({"eng_Latn": 0.5}, [True, False, False, None, None, None]),
        ({"default": 1.0, "fra_Latn": 0}, [False, False, True, None, None, None]),
    ],
)
def test_thresholds_by_language(model: Path, thresholds: dict[str, float], expected: list[bool | None]) -> None:
    annotator = build(model, thresholds=thresholds)
    texts = tuple(text and f"{text} xyz" for text in TEXTS)
    assert found(annotator, *texts[:3], *TEXTS[3:])["language_ok"] == expected


def test_the_settings_and_the_model_are_in_the_fingerprint(model: Path, tmp_path: Path) -> None:
    known = build(model, normalize={}).fingerprint
    assert build(model, normalize={}, thresholds={"default": 0.5}).fingerprint != known
    copy = tmp_path / "copy.bin"
    copy.write_bytes(model.read_bytes())
    annotator = build(copy, normalize={})
    assert annotator.fingerprint == known
    copy.write_bytes(model.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(AnnotatorError, match="has changed since the run began"):
        annotator.load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scores": ["en"]}, "annotators.language.scores: the model has no language 'en'; languages: deu_Latn, eng_"),
        ({"rename": {"eng_latn": "en"}}, "annotators.language.rename: .* Did you mean 'eng_Latn'"),
        ({"thresholds": {"german": 0.5}}, "annotators.language.thresholds: the model has no language 'german'"),
        ({"model": "missing.bin"}, "annotators.language.model: missing.bin"),
    ],
)
def test_languages_that_the_model_lacks_are_one_line(model: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotatorError, match=message) as failed:
        build(**{"model": model, **settings})
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"thresholds": {"default": 1.5}},
        {"scores": ["eng_Latn", "eng_Latn"]},
        {"scores": ["eng_Latn"], "rename": {"eng_Latn": "score"}},
    ],
)
def test_settings_that_do_not_fit(model: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"less than or equal to 1|two columns would end with"):
        build(model, **settings)
