"""Training a classifier: models and cards that the annotator reads, retries after NaN, and honest reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel.matrices import Matrix
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_file import read_header, read_layout
from colophon.annotators.fasttext.report import evaluate_classifier, format_report
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext.training import fitting
from colophon.annotators.fasttext.training.autotune import search
from colophon.annotators.fasttext.training.classifier import DEFAULT_PREPARATION, TrainedClassifier, train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from colophon.annotators.fasttext_classifier import FastTextConfig
from colophon.shards.common.digests import file_sha256
from tests.annotators.conftest import labelled

NAMES = ["high", "low", "Science & Tech"]
SMALL = TrainingSettings(dim=8, buckets=500)


def fail_with_nan(monkeypatch: pytest.MonkeyPatch, *, times: int) -> list[dict[str, Any]]:
    """The library's training fails this often before it works; returns the arguments of each attempt."""
    train = fasttext.train_supervised
    attempts: list[dict[str, Any]] = []

    def flaky(path: str, **arguments: Any) -> Any:
        attempts.append(dict(arguments))
        if len(attempts) <= times:
            raise RuntimeError("Encountered NaN.")
        return train(path, **arguments)

    monkeypatch.setattr(fasttext, "train_supervised", flaky)
    return attempts


def test_model_and_card(tmp_path: Path) -> None:
    texts, labels = labelled(NAMES)
    path = tmp_path / "models" / "topic.bin"
    lines: list[str] = []
    trained = train_classifier(
        pa.array([*texts, None, "", "x"]),
        pa.array([*labels, "high", "low", None]),
        output=path,
        settings=SMALL,
        test=labelled(NAMES, seed=1),
        report=lines.append,
    )
    header = read_header(path)
    card = json.loads((tmp_path / "models" / "topic.bin.json").read_text())
    assert card == json.loads(json.dumps(trained.card))
    assert sorted(card["labels"]) == sorted(NAMES)
    assert card["normalize"] == DEFAULT_PREPARATION.model_dump()
    assert card["sha256"] == file_sha256(path)
    assert card["sizes"] == {
        "bytes": path.stat().st_size,
        "labels": 3,
        "words": header.num_words,
        "buckets": 500,
        "dim": 8,
    }
    assert card["training"]["settings"] == SMALL.model_dump() | {"lr": pytest.approx(0.5)}
    assert card["training"]["rows"] == 300
    assert card["training"]["rows_left_out"] == 3
    assert card["training"]["rows_by_label"] == dict.fromkeys(sorted(NAMES), 100)
    assert trained.report is not None
    assert card["test"]["accuracy"] == trained.report.accuracy == 1.0
    assert lines == ["dropped 3 rows without a text or a label"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["topic.bin", "topic.bin.json"]


def test_the_annotator_reads_what_training_wrote(tmp_path: Path) -> None:
    texts, labels = labelled(NAMES)
    path = train_classifier(texts, labels, output=tmp_path / "topic.bin", settings=SMALL).path
    annotator = FastTextConfig.model_validate({"model": str(path), "score": {"argmax": True}}).build("topic")
    assert annotator.settings["config"]["normalize"] == DEFAULT_PREPARATION.model_dump()
    assert annotator.annotate(pa.record_batch({"text": texts})).column("topic").to_pylist() == labels


def test_texts_cannot_bring_labels(tmp_path: Path) -> None:
    texts, labels = labelled(["high", "low"])
    texts = [f"__label__fake {text}\n__label__high __label__low\tend" for text in texts]
    path = train_classifier(texts, labels, output=tmp_path / "m.bin", settings=SMALL).path
    assert sorted(FastTextModel(path).label_names) == ["high", "low"]
    assert evaluate_classifier(path, texts, labels, normalize=DEFAULT_PREPARATION).accuracy == 1.0


def test_nan_is_repeated_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = fail_with_nan(monkeypatch, times=3)
    texts, labels = labelled(["high", "low"])
    lines: list[str] = []
    trained = train_classifier(texts, labels, output=tmp_path / "m.bin", settings=SMALL, report=lines.append)
    assert [(arguments["seed"], arguments["lr"]) for arguments in attempts] == [
        (0, 0.5),
        (1, 0.5),
        (2, 0.25),
        (3, 0.125),
    ]
    assert lines == [f"attempt {n} of 5 ended in NaN (fastText: Encountered NaN.)" for n in (1, 2, 3)]
    assert trained.card["training"]["attempts"] == 4
    assert trained.card["training"]["settings"]["lr"] == 0.125


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e38])
def test_numbers_that_no_text_can_be_scored_with_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    """The library stops for a loss of NaN, and saves whatever else it arrived at."""
    checks: list[Path] = []

    def damaged_at_first(path: Path) -> None:
        if not checks:  # the output matrix is the end of the file
            path.write_bytes(path.read_bytes()[:-4] + np.float32(number).tobytes())
        checks.append(path)
        check(path)

    check = fitting.check_numbers
    monkeypatch.setattr(fitting, "check_numbers", damaged_at_first)
    texts, labels = labelled(["high", "low"])
    lines: list[str] = []
    trained = train_classifier(texts, labels, output=tmp_path / "m.bin", settings=SMALL, report=lines.append)
    assert lines == ["attempt 1 of 5 ended in NaN (fastText: its matrices overflow or hold NaN)"]
    assert trained.card["training"]["attempts"] == 2
    check(tmp_path / "m.bin")


def test_nan_without_end_is_an_error_that_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with_nan(monkeypatch, times=99)
    texts, labels = labelled(["high", "low"])
    with pytest.raises(AnnotatorError, match=r"ended in NaN 5 times; try a lower lr than 0\.5"):
        train_classifier(texts, labels, output=tmp_path / "m.bin", settings=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_small_models_train_at_the_first_attempt(tmp_path: Path) -> None:
    """With fewer than eleven threads most of these ended in NaN: part of the matrix was whatever the memory held."""
    texts, labels = labelled(["high", "low"])

    def train(number: int) -> TrainedClassifier:
        settings = TrainingSettings(dim=3 + number, buckets=101, seed=number, epoch=2)
        return train_classifier(texts, labels, output=tmp_path / "m.bin", settings=settings)

    assert {train(number).card["training"]["attempts"] for number in range(12)} == {1}


def test_the_smallest_models_hold_nothing_that_was_in_memory_before(tmp_path: Path) -> None:
    """A tenth of 19, rounded down, is one number a thread: eleven threads would leave eight as they were."""
    path = tmp_path / "m.bin"
    texts = [f"w{i % 18}" for i in range(72)]  # 18 words and the end of the line
    settings = TrainingSettings(dim=1, word_ngrams=1, epoch=1, lr=1e-6)  # as drawn: between -1 and 1
    for _ in range(5):
        train_classifier(texts, ["even", "odd"] * 36, output=path, settings=settings)
        numbers = Matrix(path=str(path), place=read_layout(path).inputs).rows(slice(None))
        assert numbers.shape == (19, 1)
        assert np.all((numbers != 0) & (np.abs(numbers) <= 1 + 1e-3))


def test_models_that_the_library_cannot_fill_are_refused(tmp_path: Path) -> None:
    settings = TrainingSettings(dim=3, word_ngrams=1, epoch=1)
    with pytest.raises(AnnotatorError, match="3 words with dim 3 are too little to train on"):
        train_classifier(["a", "b"], ["x", "y"], output=tmp_path / "m.bin", settings=settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a", "b"], ["x", "x"], "at least two labels; labels of the 2 texts: x"),
        ([], [], "at least two labels; labels of the 0 texts: none"),
        (["a"], ["x", "y"], "1 texts have 2 labels"),
        (["a", "b"], ["x", ""], "a label is empty"),
        (["a", "b"], [1, 2], "texts and labels must be strings"),
        (["a", "b"], ["x", "y"], "no word of the texts occurs min_count = 5 times"),
    ],
)
def test_rows_that_cannot_be_learnt(tmp_path: Path, texts: list[str], labels: list[Any], message: str) -> None:
    with pytest.raises(AnnotatorError, match=message):
        settings = TrainingSettings(dim=2, buckets=10, min_count=5)
        train_classifier(texts, labels, output=tmp_path / "m.bin", settings=settings)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    texts, labels = labelled(["high", "low"])
    (tmp_path / "file").write_text("")
    with pytest.raises(AnnotatorError, match=r"m\.bin: "):
        train_classifier(texts, labels, output=tmp_path / "file" / "m.bin", settings=SMALL)
    with pytest.raises(AnnotatorError, match="this is a folder"):
        train_classifier(texts, labels, output=tmp_path, settings=SMALL)


def test_autotune_keeps_what_was_given(tmp_path: Path) -> None:
    texts, labels = labelled(["high", "low"], num_texts=100)
    settings = TrainingSettings(autotune_seconds=1, dim=7, loss="softmax", buckets=50)
    lines: list[str] = []
    output = tmp_path / "m.bin"
    card = train_classifier(texts, labels, output=output, settings=settings, report=lines.append).card
    assert card["sizes"]["dim"] == 7
    assert card["training"]["rows"] == 100
    assert lines[0].startswith("autotune: start ")
    assert lines[-1].startswith("autotune: best 1.0000 with ")
    with pytest.raises(AnnotatorError, match="no row has both a text and a label"):
        train_classifier(texts, labels, output=output, settings=settings, validation=([], []))


def test_search_takes_the_best_within_its_time() -> None:
    now = [0.0]
    tried: list[TrainingSettings] = []

    def score(settings: TrainingSettings) -> float | None:
        tried.append(settings)
        now[0] += 1.0
        return None if len(tried) == 2 else settings.lr

    start = TrainingSettings(autotune_seconds=20, dim=20, epoch=4)
    best = search(start, score=score, report=lambda line: None, clock=lambda: now[0])
    assert tried[0] == start
    assert 3 < len(tried) <= 20
    assert best.lr == max(settings.lr for place, settings in enumerate(tried) if place != 1)
    assert {(settings.dim, settings.epoch) for settings in tried} == {(20, 4)}
    assert len({settings.model_dump_json() for settings in tried}) == len(tried)
    with pytest.raises(AnnotatorError, match="every training run ended in NaN"):
        search(TrainingSettings(autotune_seconds=1), score=lambda _: None, report=lambda line: None)


def test_report_by_hand(models: Path) -> None:
    texts = ["theorem proof", "energy cell", "lol omg", "theorem history", "laser chip", "lol", None, "", "proof"]
    labels = ["high", "high", "low", "low", "Science & Tech", "other", "high", "high", None]
    report = evaluate_classifier(models / "softmax.bin", texts, labels, normalize=TextPreparation())
    assert [label.label for label in report.labels] == ["Science & Tech", "high", "low", "other"]
    assert report.confusion == ((1, 0, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 0, 1, 0))
    assert (report.num_texts, report.num_left_out) == (6, 3)
    assert report.accuracy == pytest.approx(4 / 6)
    high = report.labels[1]
    assert (high.precision, high.recall, high.f1, high.support) == pytest.approx((2 / 3, 1, 0.8, 2))
    assert (report.labels[3].precision, report.labels[3].recall, report.labels[3].f1) == (0, 0, 0)
    assert report.macro_f1 == pytest.approx((1 + 0.8 + 0.5 + 0) / 4)


def test_report_as_text(models: Path) -> None:
    report = evaluate_classifier(
        models / "softmax.bin", ["theorem proof", "lol", ""], ["high", "low", "low"], normalize=TextPreparation()
    )
    assert format_report(report).splitlines() == [
        "label            precision     recall         F1      texts",
        "Science & Tech       0.000      0.000      0.000          0",
        "high                 1.000      1.000      1.000          1",
        "low                  1.000      1.000      1.000          1",
        "macro mean                                 1.000          2",
        "accuracy                                   1.000",
        "excluded 1 rows without a text or a label",
        "",
        "true, predicted  Science & Tech            high             low",
        "Science & Tech                0               0               0",
        "high                          0               1               0",
        "low                           0               0               1",
    ]


def test_nothing_to_evaluate_on(models: Path) -> None:
    with pytest.raises(AnnotatorError, match="no row has both a text and a label"):
        evaluate_classifier(models / "softmax.bin", ["", None], ["high", "high"], normalize=TextPreparation())
    with pytest.raises(AnnotatorError, match="1 texts have 0 labels"):
        evaluate_classifier(models / "softmax.bin", ["x"], [], normalize=TextPreparation())


@pytest.mark.shared
@pytest.mark.parametrize(("task", "accuracy"), [("ag_news", 0.86), ("quality", 0.864)])
def test_accuracy_with_the_defaults(tmp_path: Path, shared_data: Path, task: str, accuracy: float) -> None:
    train, test = (pq.read_table(shared_data / f"labels/{task}_{part}.parquet") for part in ("train", "test"))
    trained = train_classifier(
        train["text"], train["label"], output=tmp_path / "m.bin", test=(test["text"], test["label"])
    )
    assert trained.report is not None
    assert trained.report.accuracy > accuracy
