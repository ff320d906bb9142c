"""The `edu_score` annotator: FineWeb-Edu's arithmetic, halves included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.annotators.base import AnnotatorError
from colophon.annotators.edu_score import EduScoreConfig


def qualities(scores: Any, kind: pa.DataType | None = None) -> list[tuple[int | None, int | None]]:
    batch = pa.record_batch({"score": pa.array(scores, kind)})
    annotated = EduScoreConfig().build("edu_score").annotate(batch)
    return list(zip(*annotated.to_pydict().values(), strict=True))


@pytest.mark.parametrize(
    ("score", "coarse", "fine"),
    [
        (2.5, 2, 25),  # the paper's range begins here: 25 to 50
        (3.5, 4, 35),  # halves go to the even neighbour
        (0.5, 0, 5),
        (1.5, 2, 15),
        (4.5, 4, 45),
        (2.9, 3, 29),
        (2.4999, 2, 24),
        (2.90625, 3, 29),
        (5.2, 5, 50),
        (-0.4, 0, 0),
        (-7.0, 0, 0),
        (99.0, 5, 50),
        (float("nan"), None, None),
        (float("inf"), None, None),
        (float("-inf"), None, None),
        (None, None, None),
    ],
)
def test_goldens(score: float | None, coarse: int | None, fine: int | None) -> None:
    assert qualities([score], pa.float64()) == [(coarse, fine)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_decimal_is_its_own_fine_quality(dtype: type) -> None:
    tenths = np.arange(51).astype(dtype) / dtype(10)
    assert [fine for _, fine in qualities(tenths)] == list(range(51))


@given(st.floats(-10, 10))
def test_coarse_is_the_formula_of_fineweb_edu(score: float) -> None:
    assert qualities([score])[0][0] == round(max(0, min(score, 5)))


@pytest.mark.parametrize("kind", [pa.int64(), pa.float16(), pa.float32(), pa.decimal128(21, 2)])
def test_number_types(kind: pa.DataType) -> None:
    scores = pa.array([3, 7, None]).cast(kind)
    assert qualities(scores) == [(3, 30), (5, 50), (None, None)]


def test_another_annotators_column_and_prefix() -> None:
    annotator = EduScoreConfig(column="quality_score", prefix="edu").build("edu")
    annotated = annotator.annotate(pa.record_batch({"quality_score": pa.array([3.2], pa.float32())}))
    assert annotator.columns == ("quality_score",)
    assert annotated.to_pylist() == [{"edu_coarse": 3, "edu_fine": 32}]


@pytest.mark.parametrize("values", [["3.2"], [True], [b"3"]])
def test_the_error_names_a_column_that_is_not_a_number(values: list[Any]) -> None:
    with pytest.raises(AnnotatorError, match=r"column 'score' has type .*; a number is needed"):
        qualities(values)


@pytest.mark.shared
def test_bad_metadata(shared_data: Path) -> None:
    (batch,) = pq.read_table(shared_data / "hostile/bad_metadata.parquet").combine_chunks().to_batches()
    annotated = EduScoreConfig().build("edu_score").annotate(batch)
    for score, coarse in zip(batch["score"].to_pylist(), annotated["quality_coarse"].to_pylist(), strict=True):
        assert (coarse is None) == (score is None or not np.isfinite(score))
    with pytest.raises(AnnotatorError, match="column 'score' has type"):
        wrong = pq.read_table(shared_data / "hostile/wrong_types.parquet").combine_chunks().to_batches()[0]
        EduScoreConfig().build("edu_score").annotate(wrong)
