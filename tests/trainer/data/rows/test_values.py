from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from colophon.shards.common.errors import ShardError
from colophon.trainer.config import RowWeightsConfig
from colophon.trainer.data.packed_layout import PackedLayout
from colophon.trainer.data.rows.values import row_scores, row_weights
from colophon.trainer.errors import TrainerError
from tests.trainer.annotated import NUM_DOCUMENTS, annotate, text_tokens
from tests.trainer.runs import LAYOUTS

SCORES = [None if n % 7 == 3 else n / 10 for n in range(NUM_DOCUMENTS)]
TOPICS = [None if n % 11 == 5 else ("science", "games", "law")[n % 3] for n in range(NUM_DOCUMENTS)]


@pytest.fixture
def annotated(run_output: Path) -> Path:
    annotate(run_output, "quality", score=SCORES, is_good=[n % 2 == 0 for n in range(NUM_DOCUMENTS)])
    annotate(run_output, "topics", topic=TOPICS, level=[n % 3 for n in range(NUM_DOCUMENTS)])
    return run_output


def weights(output: Path, layout: str = "prepend", **settings: Any) -> np.ndarray[Any, Any]:
    return row_weights(PackedLayout.open(output, layout), RowWeightsConfig.model_validate(settings))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rows_score_is_the_mean_over_its_text_tokens(annotated: Path, layout: str) -> None:
    packed = PackedLayout.open(annotated, layout)
    tokens = text_tokens(packed.dataset)
    scored = np.array([score is not None for score in SCORES])
    values = np.array([score or 0.0 for score in SCORES])
    with np.errstate(invalid="ignore"):
        expected = (tokens * values).sum(axis=1) / (tokens * scored).sum(axis=1)
    np.testing.assert_allclose(row_scores(packed, "score"), expected, rtol=1e-12)


def test_a_row_whose_documents_have_no_score_has_none(run_output: Path) -> None:
    annotate(run_output, score=pa.nulls(NUM_DOCUMENTS, pa.float32()))
    assert np.isnan(row_scores(PackedLayout.open(run_output, "plain"), "score")).all()


@pytest.mark.parametrize("dictionary", [False, True])
def test_weights_by_label(run_output: Path, dictionary: bool) -> None:
    topics = pa.array(TOPICS, pa.string())
    annotate(run_output, topic=topics.dictionary_encode() if dictionary else topics)
    table = {"science": 2.0, "games": 0.0}
    tokens = text_tokens(PackedLayout.open(run_output, "append").dataset)
    for default in (1.0, 0.25):
        by_document = np.array([table.get(topic, default) for topic in TOPICS])  # type: ignore[call-overload]
        found = weights(run_output, "append", column="topic", table=table, default=default)
        np.testing.assert_allclose(found, (tokens * by_document).sum(axis=1) / tokens.sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "by_document"),
    [
        ({"column": "score", "default": 0.5}, [0.5 if score is None else score for score in SCORES]),
        ({"column": "is_good"}, [1.0 - n % 2 for n in range(NUM_DOCUMENTS)]),
        ({"column": "level", "table": {"0": 3.0}}, [1.0 if n % 3 else 3.0 for n in range(NUM_DOCUMENTS)]),
        ({"column": "is_good", "table": {"true": 5}}, [1.0 if n % 2 else 5.0 for n in range(NUM_DOCUMENTS)]),
    ],
)
def test_weights_from_numbers_and_flags(annotated: Path, settings: dict[str, Any], by_document: list[float]) -> None:
    tokens = text_tokens(PackedLayout.open(annotated, "prepend").dataset)
    expected = (tokens * np.array(by_document)).sum(axis=1) / tokens.sum(axis=1)
    np.testing.assert_allclose(weights(annotated, **settings), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"column": "scoer"},
            "no annotator has a column 'scoer'; available: is_good, level, score, topic. Did you mean 'score'?",
        ),
        ({"column": "topic"}, "column 'topic' holds string, not numbers (row_weights by label need a table)"),
        ({"column": "score", "table": {"1": 1}}, "row_weights.column 'score' holds double, not labels for a table"),
        (
            {"column": "topic", "table": {"law": 1, "scince": 2}},
            "column 'topic' has no label 'scince'; available: games, law, science",
        ),
    ],
)
def test_unknown_columns_and_labels_are_reported_with_the_choices(
    annotated: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((TrainerError, ShardError)) as raised:
        weights(annotated, **settings)
    assert str(raised.value).endswith(message)
    assert "\n" not in str(raised.value)


def test_an_error_lists_at_most_twenty_labels(run_output: Path) -> None:
    annotate(run_output, host=[f"host{n:02}" for n in range(NUM_DOCUMENTS)])
    with pytest.raises(TrainerError, match=r"available: host00, .*, host19 and 40 more$"):
        weights(run_output, column="host", table={"elsewhere": 1.0})


@pytest.mark.parametrize(
    ("number", "message"), [(-0.1, "has negative numbers"), (float("inf"), "has infinite numbers")]
)
def test_negative_and_infinite_weights_are_refused(run_output: Path, number: float, message: str) -> None:
    annotate(run_output, score=[*SCORES[1:], number])
    with pytest.raises(TrainerError, match=message):
        weights(run_output, column="score")
