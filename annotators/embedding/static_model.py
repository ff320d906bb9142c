"""A static embedder: the mean of its tokens' vectors, read from a folder as model2vec saves it.

| file | content |
| --- | --- |
| `model.safetensors` | `embeddings` [rows, dim] in float16, float32, float64 or int8; of a model with fewer vectors than tokens also `mapping` [tokens], the row of each token, and `weights` [tokens] |
| `tokenizer.json` | a Hugging Face tokenizer |
| `config.json` | `normalize`: whether vectors have the length 1; `max_length`: tokens that are read of a text, 512 without it |

The vector of a text is the mean of embeddings[mapping[token]] * weights[token] over its first `max_length` tokens less
the unknown ones, as model2vec 0.10 computes it; of a text, `max_length` times the median length of a token is read. Dimensions that a PCA removed and the weights of tokens by their
frequency are part of the vectors in the file.
"""  # noqa: E501 - a row of a table

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.heads.head import Floats
from colophon.annotators.heads.tensor_file import TensorFile
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.errors import one_line, panics_as_errors

FILES = ("config.json", "model.safetensors", "tokenizer.json")
_MAX_LENGTH = 512
_VECTOR_TYPES = (np.int8, np.float16, np.float32, np.float64)


class _Loaded(NamedTuple):
    tokenizer: Tokenizer
    token_length: int
    """Characters of a token, the median of the vocabulary."""
    table: NumPyArray
    """[rows, dim], mapped."""
    rows: NumPyArray
    """int64 [tokens]: the row of each token; -1 for the unknown token."""
    weights: NumPyArray | None
    """float64 [tokens]."""


class StaticModel:
    """A static embedder, see the module. About 3 MB of text a second and core, which is the tokenizer's speed.

    All processes of a machine share one copy of the vectors.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read the settings.

        Raises:
            AnnotatorError: a file is missing, or `config.json` is not usable.
        """
        self._paths = {name: Path(folder, name) for name in FILES}
        for name, path in self._paths.items():
            if not path.is_file():
                raise AnnotatorError(f"{folder}: has no {name}; a static model is a folder with {', '.join(FILES)}")
        self._normalize, self._max_length = _read_config(self._paths["config.json"])
        self._loaded: _Loaded | None = None

    @cached_property
    def identity(self) -> str:
        """`static model` and a sha256 of the three files. The first use reads them."""
        return f"static model {fingerprint([remembered_sha256(path) for path in self._paths.values()])}"

    def load(self) -> None:
        """Map the vectors and build the tokenizer.

        Raises:
            AnnotatorError: a file is damaged, or the files do not fit together.
        """
        if self._loaded is None:
            tokenizer, unknown = _read_tokenizer(self._paths["tokenizer.json"], max_length=self._max_length)
            self._loaded = _load(self._paths["model.safetensors"], tokenizer, unknown=unknown)

    def embed(self, texts: list[str]) -> Floats:
        """See `Embedder.embed`: NaN for a text without a known token."""
        self.load()
        assert self._loaded is not None
        vectors = np.full((len(texts), self._loaded.table.shape[1]), np.nan, np.float32)
        for place, text in enumerate(texts):
            tokens = self._tokens(text)
            if tokens.size:
                vectors[place] = self._mean(tokens)
        return vectors

    def _tokens(self, text: str) -> NumPyArray:
        """int64: the first tokens of a text, without the unknown ones."""
        assert self._loaded is not None
        some = text[: self._max_length * self._loaded.token_length]
        with panics_as_errors():  # one text a call: a call with several would start threads beside the pass's workers
            ids = self._loaded.tokenizer.encode_batch_fast([some], add_special_tokens=False)[0].ids
        tokens = np.array(ids, np.int64)
        return tokens[self._loaded.rows[tokens] >= 0]

    def _mean(self, tokens: NumPyArray) -> NumPyArray:
        """float64 [dim]. A sum of its own for each text, so that its bits do not depend on the batch."""
        assert self._loaded is not None
        _, _, table, rows, weights = self._loaded
        vectors = table[rows[tokens]]
        if weights is not None:
            vectors = vectors * weights[tokens, None]
        mean: NumPyArray = vectors.sum(axis=0, dtype=np.float64) / len(tokens)
        return mean / max(float(np.linalg.norm(mean)), 1e-32) if self._normalize else mean


def _read_config(path: Path) -> tuple[bool, int]:
    try:
        config = json.loads(path.read_bytes())
        normalize, max_length = config.get("normalize", False), config.get("max_length", _MAX_LENGTH)
    except (OSError, ValueError, AttributeError, RecursionError):
        raise AnnotatorError(f"{path}: not a JSON object") from None
    if not isinstance(normalize, bool):
        raise AnnotatorError(f"{path}: normalize: expected true or false, got {normalize!r:.40}")
    if max_length is None:
        raise AnnotatorError(f"{path}: max_length: is null, no bound; set the number of tokens that are read of a text")
    if not isinstance(max_length, int) or isinstance(max_length, bool) or not 1 <= max_length <= 1 << 20:
        raise AnnotatorError(f"{path}: max_length: expected 1 to {1 << 20}, got {max_length!r:.40}")
    return normalize, max_length


def _read_tokenizer(path: Path, *, max_length: int) -> tuple[Tokenizer, int | None]:
    """The tokenizer, and the id of its unknown token."""
    try:
        content = json.loads(path.read_bytes())
        with panics_as_errors():
            tokenizer = Tokenizer.from_str(json.dumps(content))
            tokenizer.no_padding()
            tokenizer.enable_truncation(max_length)
    except Exception as error:  # `tokenizers` raises bare exceptions
        raise AnnotatorError(f"{path}: not a usable tokenizer: {one_line(error)}") from None
    model: dict[str, Any] = content["model"]
    named = model.get("unk_token")
    return tokenizer, model.get("unk_id") if named is None else tokenizer.token_to_id(named)


def _load(path: Path, tokenizer: Tokenizer, *, unknown: int | None) -> _Loaded:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = max(vocabulary.values(), default=-1) + 1
    try:
        file = TensorFile(path)
    except AnnotatorError:
        raise
    except ValueError:
        raise AnnotatorError(f"{path}: not a safetensors file") from None
    table = file.tensor("embeddings")
    rows = np.array(file.tensor("mapping") if "mapping" in file.entries else np.arange(len(table)))
    weights = file.tensor("weights") if "weights" in file.entries else None
    if table.ndim != 2 or table.dtype not in _VECTOR_TYPES:
        raise AnnotatorError(f"{path}: embeddings: expected vectors of floats or int8, got {table.dtype} {table.shape}")
    if rows.ndim != 1 or rows.dtype.kind != "i" or len(rows) < tokens:
        raise AnnotatorError(f"{path}: has vectors for {len(rows)} tokens; {FILES[2]} beside it has {tokens}")
    if rows.min(initial=0) < 0 or rows.max(initial=-1) >= len(table):
        raise AnnotatorError(f"{path}: mapping: outside of the {len(table)} rows of embeddings")
    if weights is not None and (weights.shape != rows.shape or weights.dtype.kind != "f"):
        raise AnnotatorError(f"{path}: weights: expected a float for each of {len(rows)} tokens")
    rows = rows.astype(np.int64)
    if unknown is not None:
        rows[unknown] = -1
    token_length = int(np.median([len(token) for token in vocabulary])) if vocabulary else 0
    return _Loaded(tokenizer, token_length, table, rows, None if weights is None else weights.astype(np.float64))
