"""The static model that benchmarks and the recipe `annotate-everything` make from texts alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.static_model import write_static_model
from colophon.annotators.embedding.static_model import StaticModel
from tests.annotators.conftest import COMMON, WORDS


def texts(label: str, *, count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [
        " ".join(random.permutation([*random.choice(WORDS[label], 6), *random.choice(COMMON, 4)])) for _ in range(count)
    ]


def test_texts_of_one_kind_have_similar_vectors(tmp_path: Path) -> None:
    """Texts that share no word are alike by the company that their words keep in other texts."""
    write_static_model(tmp_path, [*texts("high", count=300, seed=0), *texts("low", count=300, seed=1)])
    high, low = (WORDS[label] for label in ("high", "low"))
    model = StaticModel(tmp_path)
    halves = [" ".join(words) for words in (high[:5], high[5:], low[:5], low[5:])]
    vectors = model.embed(halves)
    similar = vectors @ vectors.T
    assert min(similar[0, 1], similar[2, 3]) > max(similar[0, 2], similar[0, 3], similar[1, 2], similar[1, 3])
