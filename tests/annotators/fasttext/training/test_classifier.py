"""Training a classifier: the model and the card that the annotator reads, and inputs that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_file import read_header
from colophon.annotators.fasttext.report import evaluate_classifier
from colophon.annotators.fasttext.training.classifier import DEFAULT_PREPARATION, train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from colophon.annotators.fasttext_classifier import FastTextConfig
from colophon.shards.common.digests import file_sha256
from tests.annotators.conftest import labelled

NAMES = ["high", "low", "Science & Tech"]
SMALL = TrainingSettings(dim=8, buckets=500)


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


def test_texts_cannot_add_labels(tmp_path: Path) -> None:
    texts, labels = labelled(["high", "low"])
    texts = [f"__label__fake {text}\n__label__high __label__low\tend" for text in texts]
    path = train_classifier(texts, labels, output=tmp_path / "m.bin", settings=SMALL).path
    assert sorted(FastTextModel(path).label_names) == ["high", "low"]
    assert evaluate_classifier(path, texts, labels, normalize=DEFAULT_PREPARATION).accuracy == 1.0


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
def test_rows_that_are_refused(tmp_path: Path, texts: list[str], labels: list[Any], message: str) -> None:
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


@pytest.mark.shared
@pytest.mark.parametrize(("task", "accuracy"), [("ag_news", 0.86), ("quality", 0.864)])
def test_accuracy_with_the_defaults(tmp_path: Path, shared_data: Path, task: str, accuracy: float) -> None:
    train, test = (pq.read_table(shared_data / f"labels/{task}_{part}.parquet") for part in ("train", "test"))
    trained = train_classifier(
        train["text"], train["label"], output=tmp_path / "m.bin", test=(test["text"], test["label"])
    )
    assert trained.report is not None
    assert trained.report.accuracy > accuracy
