"""A small static model of random vectors, heads for it, and their results in plain numpy: no code of the annotator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from colophon.annotators.embedding.model import EmbeddingInfo
from colophon.annotators.embedding.static_model import StaticModel
from colophon.annotators.embedding.vector_column import VectorColumn
from colophon.annotators.heads.head import HeadInfo
from colophon.annotators.heads.tensor_file import write_model

WORDS = ["theorem", "proof", "of", "energy", "click", "lol", "omg", "buy", "high", "the", "text", "##s", "##ing", "."]
TOKENS = ["[PAD]", "[UNK]", *WORDS]
DIM = 6
HEADS = (
    HeadInfo(name="quality", labels=("high", "low"), loss="softmax", hidden=5),
    HeadInfo(name="tags", labels=("a", "b", "c"), loss="ova", hidden=0),
)


def vectors(dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """A random vector for each token."""
    found = np.random.default_rng(0).normal(size=(len(TOKENS), DIM)) * 20
    return found.round().astype(dtype) if dtype is np.int8 else found.astype(dtype)


def write_static_model(
    folder: Path,
    *,
    tensors: dict[str, np.ndarray[Any, Any]] | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a folder as model2vec does, with a tokenizer like BERT's."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]", length=20)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": vectors()} if tensors is None else tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"normalize": True} if config is None else config))
    return folder


def write_heads(path: Path, source: Path | VectorColumn) -> dict[str, Any]:
    """Write heads with random weights for the static model in a folder, or for a column; their weights."""
    embedder = source if isinstance(source, VectorColumn) else StaticModel(source)
    info = EmbeddingInfo(embedder=embedder.identity, dim=DIM, heads=HEADS)
    random = np.random.default_rng(1)
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, (_, shape) in info.tensors().items()}
    write_model(path, info, arrays)
    return arrays


def expected_vector(words: list[str], *, normalize: bool = True) -> np.ndarray[Any, Any]:
    """The vector of a text that is these tokens, float64 [DIM]."""
    mean = vectors().astype(np.float64)[[TOKENS.index(word) for word in words]].mean(axis=0)
    found: np.ndarray[Any, Any] = mean / np.linalg.norm(mean) if normalize else mean
    return found


def expected_probabilities(x: np.ndarray[Any, Any], arrays: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """The probabilities of each head for a vector, float64 [labels]."""
    found = []
    for number, head in enumerate(HEADS):
        first, first_bias, second, skip, bias = (
            arrays[f"heads.{number}.{name}"].astype(np.float64)
            for name in ("first", "first_bias", "second", "skip", "bias")
        )
        logits = skip @ x + second @ np.maximum(first @ x + first_bias, 0) + bias
        ratios = np.exp(logits - logits.max())
        found.append(ratios / ratios.sum() if head.loss == "softmax" else 1 / (1 + np.exp(-logits)))
    return found
