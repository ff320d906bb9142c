"""The `fasttext` annotator: score rules, bins, text preparation, and errors that list the choices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext_classifier import FastTextAnnotator, FastTextConfig

TEXTS = ["theorem proof energy", "lol omg click buy", "laser chip robot", None, "", " \n\t", "the of"]


def build(model: Path, name: str = "quality", **settings: Any) -> FastTextAnnotator:
    return FastTextConfig.model_validate({"model": str(model), **settings}).build(name)


def annotate(annotator: FastTextAnnotator, texts: list[str | None]) -> dict[str, list[Any]]:
    return annotator.annotate(pa.record_batch({"text": pa.array(texts, pa.string())})).to_pydict()


def probabilities(model: Path, text: str) -> dict[str, float]:
    found = FastTextModel(model)
    return dict(zip(found.label_names, found.probabilities(pa.array([text]))[0].tolist(), strict=True))


def test_probability_of_a_label(models: Path) -> None:
    columns = annotate(build(models / "softmax.bin", score={"probability_of": "__label__high"}), TEXTS)
    assert list(columns) == ["quality_score"]
    assert columns["quality_score"][0] == pytest.approx(probabilities(models / "softmax.bin", TEXTS[0] or "")["high"])
    assert columns["quality_score"][0] > 0.9
    assert columns["quality_score"][1] < 0.1
    assert columns["quality_score"][3:6] == [None, None, None]
    assert columns["quality_score"][6] is not None


def test_expected_value(models: Path) -> None:
    expected = {"high": 2, "low": -1, "Science & Tech": 0.5}
    (score,) = annotate(build(models / "softmax.bin", score={"expected": expected}), ["proof lol"])["quality_score"]
    found = probabilities(models / "softmax.bin", "proof lol")
    assert score == pytest.approx(sum(found[label] * number for label, number in expected.items()), abs=1e-6)


def test_expected_value_of_a_model_whose_probabilities_do_not_sum_to_one(models: Path) -> None:
    ones = build(models / "ova.bin", score={"expected": {"high": 1, "low": 1, "Science & Tech": 1}})
    assert sum(probabilities(models / "ova.bin", "proof lol").values()) != pytest.approx(1, abs=1e-3)
    assert annotate(ones, ["proof lol"])["quality_score"] == pytest.approx([1])


def test_argmax_decodes_and_renames(models: Path) -> None:
    plain = annotate(build(models / "softmax.bin", "topic", score={"argmax": True}), TEXTS[:4])
    assert plain["topic"] == ["high", "low", "Science & Tech", None]
    assert plain["topic_score"][2] == pytest.approx(max(probabilities(models / "softmax.bin", TEXTS[2] or "").values()))
    rename = {"__label__Science%20&%20Tech": "science", "low": "Spam"}
    renamed = annotate(build(models / "softmax.bin", "topic", score={"argmax": True, "rename": rename}), TEXTS[:3])
    assert renamed["topic"] == ["high", "Spam", "science"]


def test_clip_comes_before_bins(models: Path) -> None:
    bins = {"edges": [0.3, 0.6, 0.7], "labels": ["a", "b", "c", "d"]}
    settings: dict[str, Any] = {"score": {"probability_of": "high"}, "clip": [0.25, 0.6]}
    columns = annotate(build(models / "softmax.bin", **settings, bins=bins), TEXTS[:2])
    assert columns == {"quality": ["c", "a"], "quality_score": pytest.approx([0.6, 0.25])}
    numbered = build(models / "softmax.bin", **settings, bins={"edges": [0.3, 0.6, 0.7]})
    assert numbered.schema.field("quality").type == pa.int16()
    assert annotate(numbered, [*TEXTS[:2], None])["quality"] == [2, 0, None]


def test_quantile_bins(models: Path) -> None:
    words = ["theorem", "lol", "the", "proof", "omg", "of"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 6)) for _ in range(400)]
    sample = pa.record_batch({"text": texts})
    settings = {"score": {"probability_of": "high"}, "bins": {"quantiles": 4, "sample": 400}}
    annotator = build(models / "softmax.bin", **settings)
    assert annotator.num_calibration_documents == 400
    with pytest.raises(AnnotatorError, match=r"annotators\.quality\.bins: the edges of the quantiles are unknown"):
        annotator.annotate(sample)
    calibration = json.loads(json.dumps(annotator.calibrate([sample.slice(0, 150), sample.slice(150)])))
    fixed = annotator.with_calibration(calibration)
    assert fixed.num_calibration_documents is None
    assert fixed.fingerprint != annotator.fingerprint
    counts = np.bincount(fixed.annotate(sample).column("quality").to_numpy(), minlength=4)
    assert counts.sum() == 400
    assert counts.min() > 80
    with pytest.raises(AnnotatorError, match=r"annotators\.quality\.bins: no document of the sample has a score"):
        annotator.calibrate([pa.record_batch({"text": pa.array([None, ""])})])
    with pytest.raises(AnnotatorError, match="no quantile bins to calibrate"):
        fixed.calibrate([sample])


def test_a_text_with_newlines_is_read_to_its_end(models: Path) -> None:
    annotator = build(models / "softmax.bin", score={"probability_of": "high"})
    text = "lol omg\nproof theorem\nenergy cell"
    score, prepared, first = annotate(annotator, [text, text.replace("\n", " "), "lol omg"])["quality_score"]
    assert score == prepared
    assert score > first + 0.1


def test_the_preparation_of_training_comes_from_the_card(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    shutil.copy(models / "softmax.bin", path)
    card = json.loads((models / "softmax.bin.json").read_text())
    card["normalize"]["lower"] = True
    Path(f"{path}.json").write_text(json.dumps(card))
    score = {"probability_of": "high"}
    upper, lower = annotate(build(path, score=score), ["THEOREM PROOF", "theorem proof"])["quality_score"]
    assert upper == lower
    given = build(path, score=score, normalize={"newline": "space"})
    assert len(set(annotate(given, ["THEOREM PROOF", "theorem proof"])["quality_score"])) == 2
    assert given.fingerprint != build(path, score=score).fingerprint
    card["sizes"]["bytes"] += 1
    Path(f"{path}.json").write_text(json.dumps(card))
    message = r"annotators\.quality\.model: .*json: the card describes a different model"
    with pytest.raises(AnnotatorError, match=message):
        build(path, score=score)


def test_the_fingerprint_follows_settings_and_model_bytes_not_the_path(models: Path, tmp_path: Path) -> None:
    score = {"probability_of": "high"}
    here = build(models / "words.bin", score=score)
    shutil.copy(models / "words.bin", tmp_path / "other.bin")
    assert build(tmp_path / "other.bin", score=score).fingerprint == here.fingerprint
    others = [
        build(models / "chars.bin", score=score),
        build(models / "words.bin", score={"probability_of": "low"}),
        build(models / "words.bin", score=score, clip=[0, 0.5]),
        build(models / "words.bin", score=score, normalize={"newline": "delete"}),
    ]
    assert len({here.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (
            {"probability_of": "hq"},
            "annotators.quality.score.probability_of: the model has no label 'hq'; labels: Science & Tech, high, low",
        ),
        (
            {"expected": {"high": 1, "mid": 0}},
            "annotators.quality.score.expected: the model has no label 'mid'; labels: Science & Tech, high, low",
        ),
        ({"expected": {"high": 1}}, "annotators.quality.score.expected: no number for Science & Tech, low"),
        (
            {"expected": {"high": 1, "__label__high": 2}},
            "annotators.quality.score.expected: 'high' and '__label__high' are the same label",
        ),
        (
            {"argmax": True, "rename": {"medium": "x"}},
            "annotators.quality.score.rename: the model has no label 'medium'; labels: Science & Tech, high, low",
        ),
        (
            {"argmax": True, "rename": "weborganizer_topics"},
            "annotators.quality.score.rename: weborganizer_topics has no name for high, low",
        ),
    ],
)
def test_labels_that_the_model_lacks(models: Path, score: dict[str, Any], message: str) -> None:
    with pytest.raises(AnnotatorError) as caught:
        build(models / "softmax.bin", score=score)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Field required"),
        ({"score": {}}, "exactly one of probability_of, expected, argmax; given: none"),
        ({"score": {"probability_of": "a", "argmax": True}}, "given: probability_of and argmax"),
        ({"score": {"probability_of": "a", "rename": {"a": "b"}}}, "rename needs argmax"),
        ({"score": {"expected": {"a": float("nan")}}}, "must be finite"),
        ({"score": {"argmax": True, "rename": "topics"}}, "weborganizer_topics"),
        ({"score": {"argmax": True}, "bins": {"edges": [1]}}, "bins need a score"),
        ({"score": {"probability_of": "a"}, "clip": [1, 0]}, "clip must be"),
        ({"score": {"probability_of": "a"}, "bins": {"edges": [0.2, 0.2]}}, "edges must be finite and ascending"),
        (
            {"score": {"probability_of": "a"}, "bins": {"edges": [0.2], "quantiles": 3}},
            "exactly one of edges, quantiles",
        ),
        ({"score": {"probability_of": "a"}, "bins": {"edges": [0.2], "labels": ["x"]}}, "2 bins need as many labels"),
    ],
)
def test_invalid_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FastTextConfig.model_validate({"model": "m.bin", **settings})


def test_missing_and_foreign_model_files(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match=r"annotators\.quality\.model: .*none\.bin: no such file"):
        build(tmp_path / "none.bin", score={"argmax": True})
    (tmp_path / "text.bin").write_text("not a model")
    with pytest.raises(AnnotatorError, match=r"annotators\.quality\.model: .*text\.bin: not a usable fastText model"):
        build(tmp_path / "text.bin", score={"argmax": True})


def test_a_text_column_of_bytes_is_an_error(models: Path) -> None:
    annotator = build(models / "words.bin", score={"argmax": True})
    with pytest.raises(AnnotatorError, match="column 'text' has type binary"):
        annotator.annotate(pa.record_batch({"text": pa.array([b"x"])}))


@pytest.mark.shared
def test_unusual_texts_score_as_in_the_library(models: Path, shared_data: Path) -> None:
    (batch,) = pq.read_table(shared_data / "hostile/odd_text.parquet").combine_chunks().to_batches()
    scores = build(models / "words.bin", score={"probability_of": "high"}).annotate(batch).column("quality_score")
    library = fasttext.load_model(str(models / "words.bin")).f
    for text, score in zip(batch["text"].to_pylist(), scores.to_pylist(), strict=True):
        if text.strip() == "":
            assert score is None
            continue
        found = {label: p for p, label in library.predict(text.replace("\n", " ") + "\n", -1, 0.0, "strict")}
        assert score == pytest.approx(found["__label__high"] - 1e-5, abs=1e-6)


@pytest.mark.shared
def test_bytes_that_are_not_utf8(models: Path, shared_data: Path) -> None:
    table = pq.read_table(shared_data / "hostile/invalid_utf8.parquet", columns=["text"])
    annotator = build(models / "words.bin", score={"argmax": True})
    rows = [annotator.annotate(batch).num_rows for batch in table.to_batches()]
    assert sum(rows) == table.num_rows
