"""Writes a static embedder in model2vec's format from texts alone, so that `embedding` can be run without a download.

python -m benchmarks.static_model --output models/static

The vectors of tokens are the largest singular vectors of their positive pointwise mutual information with the tokens
around them (Levy and Goldberg 2014), weighted by a / (a + frequency) as model2vec weights those that it distils (Arora
et al. 2017). A minute of one core. Vectors of a sentence encoder are better.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from benchmarks.workload import SHARED
from colophon.shards.common.arrays import NumPyArray

_TOKENS = 4096
_DIM = 128
_WINDOW = 5
_SMOOTHING = 1e-3
"""The a of a / (a + frequency)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.static_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--texts", type=Path, default=SHARED / "web" / "train-00002.parquet", help="Parquet with texts")
    parser.add_argument("--megabytes", type=float, default=12, help="text to read")
    options = parser.parse_args(arguments)
    write_static_model(options.output, read_texts(options.texts, megabytes=options.megabytes))
    return 0


def read_texts(path: Path, *, megabytes: float) -> list[str]:
    """The first texts of a file."""
    texts, characters = [], 0
    for text in pq.read_table(path, columns=["text"])["text"].drop_null().to_pylist():
        texts.append(text)
        characters += len(text)
        if characters > megabytes * 1e6:
            break
    return texts


def write_static_model(output: Path, texts: Sequence[str]) -> None:
    """Train a vocabulary and its vectors on `texts`. Of equally frequent pairs, the vocabulary has any."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=_TOKENS, special_tokens=["[UNK]"]))
    ids = [np.array(each.ids) for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    output.mkdir(parents=True, exist_ok=True)
    save_file({"embeddings": token_vectors(ids, tokenizer.get_vocab_size())}, output / "model.safetensors")
    tokenizer.save(str(output / "tokenizer.json"))
    (output / "config.json").write_text('{"normalize": true, "max_length": 512}\n', encoding="utf-8")


def token_vectors(ids: Sequence[NumPyArray], num_tokens: int) -> NumPyArray:
    """float32 [num_tokens, dim], from the ids of texts."""
    counts = np.zeros(num_tokens**2)
    for distance in range(1, _WINDOW + 1):
        pairs = np.concatenate([each[:-distance] * num_tokens + each[distance:] for each in ids])
        counts += np.bincount(pairs, minlength=num_tokens**2)
    after = counts.reshape(num_tokens, num_tokens)
    near = after + after.T
    totals = np.maximum(near.sum(axis=1), 1)
    with np.errstate(divide="ignore"):
        information = np.log(near * near.sum() / totals[:, None] / totals)
    matrix = torch.from_numpy(np.maximum(information, 0).astype(np.float32))
    torch.manual_seed(0)
    left, values, _ = torch.svd_lowrank(matrix, q=min(_DIM, num_tokens), niter=4)
    weights = _SMOOTHING / (_SMOOTHING + totals / totals.sum())
    found: NumPyArray = (left * values.sqrt()).numpy() * weights[:, None].astype(np.float32)
    return np.ascontiguousarray(found, np.float32)


if __name__ == "__main__":
    sys.exit(main())
