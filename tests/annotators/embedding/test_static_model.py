"""Static models on disk: the vectors of texts, and files that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from colophon.annotators.base import AnnotatorError
from colophon.annotators.embedding.static_model import StaticModel
from tests.annotators.embedding.small_model import DIM, TOKENS, expected_vector, vectors, write_static_model


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Theorem of energy.", ["theorem", "of", "energy", "."]),
        ("an unknown word, then PROOFS", ["proof", "##s"]),
        ("lol\n\tlol", ["lol", "lol"]),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_a_vector_is_the_mean_of_the_known_tokens(tmp_path: Path, text: str, words: list[str], normalize: bool) -> None:
    model = StaticModel(write_static_model(tmp_path, config={"normalize": normalize}))
    (found,) = model.embed([text])
    np.testing.assert_allclose(found, expected_vector(words, normalize=normalize), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("text", ["unknown words alone", "   \n", "\x00", "東京"])
def test_a_text_without_a_known_token_has_no_vector(tmp_path: Path, text: str) -> None:
    model = StaticModel(write_static_model(tmp_path))
    assert np.isnan(model.embed([text])).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_vectors_of_other_types(tmp_path: Path, dtype: Any) -> None:
    table = vectors(dtype)
    model = StaticModel(write_static_model(tmp_path, tensors={"embeddings": table}, config={}))
    expected = table[[TOKENS.index("lol"), TOKENS.index("omg")]].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(model.embed(["lol omg"])[0], expected, rtol=1e-6)


def test_tokens_that_share_rows_have_weights_of_their_own(tmp_path: Path) -> None:
    """Vocabulary quantization: `mapping` gives the row of each token, `weights` its factor."""
    table = np.arange(2 * DIM, dtype=np.float32).reshape(2, DIM)
    mapping = np.arange(len(TOKENS)) % 2
    weights = np.linspace(1, 2, len(TOKENS)).astype(np.float32)
    tensors = {"embeddings": table, "mapping": mapping, "weights": weights}
    model = StaticModel(write_static_model(tmp_path, tensors=tensors, config={"normalize": False}))
    tokens = [TOKENS.index("lol"), TOKENS.index("omg")]
    expected = (table[mapping[tokens]] * weights[tokens][:, None]).mean(axis=0)
    np.testing.assert_allclose(model.embed(["lol omg"])[0], expected, rtol=1e-6)


def test_the_first_tokens_count(tmp_path: Path) -> None:
    model = StaticModel(write_static_model(tmp_path, config={"max_length": 2}))
    whole, long = model.embed(["lol omg", "lol omg theorem " + "proof " * 100_000])
    assert whole.tobytes() == long.tobytes()
    # The unknown ones are among the first, and dropped from them.
    assert model.embed(["lol unknown omg"])[0].tobytes() == model.embed(["lol"])[0].tobytes()


def test_the_identity_is_of_all_files(tmp_path: Path) -> None:
    known = StaticModel(write_static_model(tmp_path / "a")).identity
    assert StaticModel(write_static_model(tmp_path / "b")).identity == known
    assert StaticModel(write_static_model(tmp_path / "b", config={"normalize": False})).identity != known
    assert StaticModel(write_static_model(tmp_path / "c", tensors={"embeddings": vectors() + 1})).identity != known


def rewrite(name: str, **tensors: Any) -> Callable[[Path], Any]:
    if name == "model.safetensors":
        return lambda folder: save_file({"embeddings": vectors(), **tensors}, folder / name)
    return lambda folder: (folder / name).write_text(json.dumps(tensors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json; a static model is a folder with"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json: not a JSON object"),
        (lambda folder: (folder / "config.json").write_text("["), "config.json: not a JSON object"),
        (rewrite("config.json", normalize="yes"), "config.json: normalize: expected true or false, got 'yes'"),
        (rewrite("config.json", max_length=0), "config.json: max_length: expected 1 to 1048576, got 0"),
        (rewrite("config.json", max_length=None), "config.json: max_length: is null"),
        (rewrite("tokenizer.json", model=3), "tokenizer.json: not a usable tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("no"), "tokenizer.json: not a usable tokenizer"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors: not a safetensors file"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1]),
            "model.safetensors: truncated: embeddings is not complete",
        ),
        (
            rewrite("model.safetensors", embeddings=vectors()[:-1]),
            "has vectors for 15 tokens; tokenizer.json beside it",
        ),
        (rewrite("model.safetensors", embeddings=vectors()[0]), "embeddings: expected vectors of floats or int8"),
        (rewrite("model.safetensors", mapping=np.full(16, 99)), "mapping: outside of the 16 rows of embeddings"),
        (rewrite("model.safetensors", weights=np.ones(3)), "weights: expected a float for each of 16 tokens"),
    ],
)
def test_a_folder_that_is_not_usable_is_one_line(tmp_path: Path, change: Callable[[Path], Any], message: str) -> None:
    folder = write_static_model(tmp_path)
    change(folder)
    with pytest.raises(AnnotatorError) as caught:
        StaticModel(folder).load()
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
