"""The `embedding` annotator: probabilities of its heads, embedders that break the contract, models that do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.embedding.embedder import Embedder
from colophon.annotators.embedding.model import EmbeddingInfo, EmbeddingModel
from colophon.annotators.embedding.static_model import StaticModel
from colophon.annotators.embedding.vector_column import VECTOR, VectorColumn
from colophon.annotators.embedding_classifier import EmbedderConfig, EmbeddingConfig
from colophon.annotators.heads.head import Floats, HeadInfo
from colophon.annotators.heads.tensor_file import write_model
from tests.annotators.embedding.small_model import (
    DIM,
    HEADS,
    expected_probabilities,
    expected_vector,
    write_heads,
    write_static_model,
)
from tests.annotators.pooled.small_model import write_small_model


@pytest.fixture
def static(tmp_path: Path) -> Path:
    return write_static_model(tmp_path / "static")


def test_probabilities_are_those_of_plain_numpy(static: Path, tmp_path: Path) -> None:
    arrays = write_heads(tmp_path / "heads.safetensors", static)
    model = EmbeddingModel(tmp_path / "heads.safetensors", lambda: StaticModel(static))
    found = model.probabilities(pa.array(["lol omg", None, "", "nothing known", "Theorem."]))
    for place, words in {0: ["lol", "omg"], 4: ["theorem", "."]}.items():
        for rows, expected in zip(found, expected_probabilities(expected_vector(words), arrays), strict=True):
            np.testing.assert_allclose(rows[place], expected, rtol=1e-5, atol=1e-6)
    for rows in found:
        assert np.isnan(rows[1:4]).all()


def test_a_column_of_vectors_is_scored_as_it_is(tmp_path: Path) -> None:
    """Also of a document without a text; null without a whole vector of numbers."""
    path = tmp_path / "heads.safetensors"
    arrays = write_heads(path, VectorColumn("vector"))
    annotator = EmbeddingConfig(column="vector", model=str(path)).build("mine")
    vector = np.random.default_rng(3).normal(size=DIM).astype(np.float32)
    rows = [vector, None, [], [*vector[1:], np.nan], [*vector[1:], None], [*vector[1:], np.inf], vector]
    batch = pa.record_batch({"vector as vector": pa.array(rows, VECTOR)})
    found = annotator.annotate(batch)
    expected = expected_probabilities(vector, arrays)[0].max()
    for row, score in enumerate(found.column("mine_quality_score").to_pylist()):
        assert score == (pytest.approx(expected, rel=1e-5) if row in (0, 6) else None)
    with pytest.raises(AnnotatorError, match="column 'vector' has a vector of 7 numbers; expected 6"):
        annotator.annotate(pa.record_batch({"vector as vector": pa.array([vector, [0] * 7], VECTOR)}))
    with pytest.raises(AnnotatorError, match="was trained with the embedder 'column vector', not with 'column other'"):
        EmbeddingConfig(column="other", model=str(path)).build("mine")


@pytest.mark.parametrize("sources", [{}, {"static": "a", "column": "b"}])
def test_there_is_one_source_of_vectors(sources: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="static, a folder of a static model, or column, a column of ready vectors"):
        EmbeddingConfig(model="m", **sources)


def test_the_classifier_of_fineweb2_hq_is_a_head(tmp_path: Path) -> None:
    """Linear, ReLU, Linear, sigmoid of the positive label: the linear part is zero, and so is the other label's."""
    random = np.random.default_rng(2)
    w1, b1, w2, b2 = (random.normal(size=shape) for shape in ((8, DIM), (8,), (1, 8), (1,)))
    head = HeadInfo(name="quality", labels=("negative", "positive"), loss="softmax", hidden=8)
    arrays = {
        "heads.0.first": w1,
        "heads.0.first_bias": b1,
        "heads.0.second": np.concatenate([0 * w2, w2]),
        "heads.0.skip": np.zeros((2, DIM)),
        "heads.0.bias": np.concatenate([0 * b2, b2]),
    }
    write_model(tmp_path / "hq", EmbeddingInfo(embedder="xlm-r", dim=DIM, heads=(head,)), arrays)
    vectors = random.normal(size=(5, DIM)).astype(np.float32)
    model = EmbeddingModel(tmp_path / "hq", lambda: Given(vectors))
    expected = 1 / (1 + np.exp(-(np.maximum(vectors @ w1.T + b1, 0) @ w2.T + b2)))
    (found,) = model.probabilities(pa.array(["text"] * 5))
    np.testing.assert_allclose(found[:, 1:], expected, rtol=1e-5)


class Given:
    """An embedder that returns the same vectors for any texts."""

    identity = "xlm-r"

    def __init__(self, vectors: Any) -> None:
        self.vectors = vectors

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: list[str]) -> Floats:
        return np.asarray(self.vectors)


@pytest.mark.parametrize("vectors", [np.zeros((3, DIM)), np.zeros((2, DIM + 1)), np.zeros(2), np.zeros((2, DIM, 1))])
def test_an_array_of_the_wrong_shape_is_refused(tmp_path: Path, vectors: Any) -> None:
    info = EmbeddingInfo(embedder="xlm-r", dim=DIM, heads=HEADS)
    write_model(tmp_path / "m", info, {name: np.zeros(shape) for name, (_, shape) in info.tensors().items()})
    model = EmbeddingModel(tmp_path / "m", lambda: Given(vectors))
    with pytest.raises(AnnotatorError, match=r"the embedder returned an array .*; expected \[2, 6\]"):
        model.probabilities(pa.array(["a", "b", None]))


def test_a_head_of_a_different_embedder_is_refused(static: Path, tmp_path: Path) -> None:
    write_heads(tmp_path / "heads.safetensors", static)
    other = write_static_model(tmp_path / "other", config={"normalize": False})
    config = EmbeddingConfig(static=str(other), model=str(tmp_path / "heads.safetensors"))
    with pytest.raises(AnnotatorError, match=r"annotators\.quality: .*heads\.safetensors: was trained with the embed"):
        config.build("quality")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "No such file"),
        (write_small_model, "not a usable embedding model: format"),
        (
            lambda path: path.write_bytes(b"\xff" * 99),
            "not an embedding model, as `colophon train-classifier --kind emb",
        ),
    ],
)
def test_a_file_that_is_no_model_is_one_line(
    static: Path, tmp_path: Path, change: Callable[[Path], Any], message: str
) -> None:
    path = tmp_path / "heads.safetensors"
    write_heads(path, static)
    change(path)
    with pytest.raises(AnnotatorError, match=message):
        EmbeddingConfig(static=str(static), model=str(path)).build("quality")


def test_a_static_model_that_changes_during_a_run_is_refused(static: Path, tmp_path: Path) -> None:
    write_heads(tmp_path / "heads.safetensors", static)
    config = EmbeddingConfig(static=str(static), model=str(tmp_path / "heads.safetensors"))
    annotator = config.build("quality")
    assert set(annotator.model_files) == set(config.paths)
    write_static_model(static, config={"normalize": False})
    with pytest.raises(AnnotatorError, match="the embedder has changed since the run began"):
        pickle.loads(pickle.dumps(annotator)).load()


class LoadedConfig(EmbedderConfig):
    """An embedder of another library, which cannot be pickled."""

    type_name = "loaded"

    def embedder(self) -> Embedder:
        class Local(Given):
            def __reduce__(self) -> Any:
                raise TypeError("holds a model")

        return Local(np.ones((2, DIM)))


def test_an_embedder_is_never_pickled(tmp_path: Path) -> None:
    info = EmbeddingInfo(embedder="xlm-r", dim=DIM, heads=HEADS)
    write_model(tmp_path / "m", info, {name: np.ones(shape) for name, (_, shape) in info.tensors().items()})
    annotator = LoadedConfig(model=str(tmp_path / "m")).build("mine")
    annotator.load()
    batch = pa.record_batch({"text": ["a", None, "b"]})
    again = pickle.loads(pickle.dumps(annotator))
    assert again.annotate(batch).equals(annotator.annotate(batch))
    assert again.annotate(batch).column("mine_quality_score").null_count == 1
