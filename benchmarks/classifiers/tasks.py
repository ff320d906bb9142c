"""The tasks: labelled texts, of which the test texts come from other sources than the training texts.

| task | training and test texts |
| --- | --- |
| `quality` | files of their own, from different sources |
| `news` | files of their own: AG News |
| `page type` | a random split by registered domain, another for each seed |
| `topic` | web pages, a random split by registered domain (of Reddit: by subreddit), another for each seed |
| `taught score` | the same pages, split in the same way; the label is the sixth of a teacher's score, see `_judged` |
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.static_model import write_static_model
from colophon.annotators.embedding.model import EmbeddingModel
from colophon.annotators.embedding.static_model import StaticModel
from colophon.pipeline.classifiers.embedding_training import train_embedding
from colophon.pipeline.classifiers.groups import registered_domains
from colophon.trainer.classifiers.settings import EmbeddingSettings

_TEST_SHARE = {"label": 0.3, "topic": 0.25, "score": 0.25}
"""By the name of the label column."""
_LARGEST_GROUP = 0.15
"""A group with a larger share of the texts is in the training part: Reddit's largest boards, say."""
_WEB_TEXTS = (4000, 2000)
_WEB_FILES = 3
_SCORE_CLASSES = 6
_SUBREDDIT = re.compile(r"^https?://[^/]*reddit\.com/(r/[^/]+)")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Texts and labels to train on and to test on."""

    texts: pa.Array
    labels: pa.Array
    test_texts: pa.Array
    test_labels: pa.Array


def tasks(data: Path) -> dict[str, Callable[[int], Task]]:
    """Each task by name, as a function of the seed; `data` is the folder with `labels/` and `web/`."""
    return {
        "quality": lambda seed: _from_files(data, "quality"),
        "news": lambda seed: _from_files(data, "ag_news"),
        "page type": lambda seed: _split(pq.read_table(data / "labels" / "page_type.parquet"), "label", seed),
        "topic": lambda seed: _topic(data, seed),
        "taught score": lambda seed: _split(_judged(data), "score", seed, most=_WEB_TEXTS),
    }


def _from_files(data: Path, name: str) -> Task:
    train, test = (pq.read_table(data / "labels" / f"{name}_{part}.parquet") for part in ("train", "test"))
    return _task(train, test, "label")


def _topic(data: Path, seed: int) -> Task:
    pages = _pages(data)
    return _split(pages.filter(pc.is_valid(pages["topic"])), "topic", seed, most=_WEB_TEXTS)


def _pages(data: Path) -> pa.Table:
    files = sorted((data / "web").glob("train-*.parquet"))[:_WEB_FILES]
    return pa.concat_tables([pq.read_table(file, columns=["text", "url", "topic"]) for file in files])


@cache
def _judged(data: Path) -> pa.Table:
    """Web pages with a teacher's score, as the number of its sixth, as `colophon distill` cuts scores.

    The teacher is a classifier of quality that is neither of the kinds compared: an MLP on the vectors of a static
    model, whose vocabulary differs a little with each process. Half a minute of CPU time.
    """
    pages, quality = _pages(data), pq.read_table(data / "labels" / "quality_train.parquet")
    with tempfile.TemporaryDirectory(prefix="colophon-bench-") as work:
        static, path = Path(work, "static"), Path(work, "teacher.safetensors")
        write_static_model(static, pages["text"].slice(0, _WEB_TEXTS[0]).to_pylist())
        texts, labels = (quality[name].cast(pa.string()).combine_chunks() for name in ("text", "label"))
        train_embedding(
            texts, {"quality": labels}, embedder=lambda: StaticModel(static), output=path, settings=EmbeddingSettings()
        )
        model = EmbeddingModel(path, lambda: StaticModel(static))
        batches = pages["text"].cast(pa.string()).combine_chunks()
        parts = [model.probabilities(batches.slice(first, 1000))[0] for first in range(0, len(batches), 1000)]
    scores = np.concatenate(parts)[:, model.heads[0].labels.index("high")]
    is_known = np.isfinite(scores)
    edges = np.quantile(scores[is_known], np.arange(1, _SCORE_CLASSES) / _SCORE_CLASSES)
    sixths = np.searchsorted(edges, scores[is_known], side="right")
    return pages.filter(pa.array(is_known)).append_column("score", pa.array(sixths.astype(str)))


def _split(table: pa.Table, label: str, seed: int, *, most: tuple[int, int] | None = None) -> Task:
    """Groups in random order, until the test part has its share of the texts; then up to `most` texts of each part."""
    random = np.random.default_rng(seed)
    groups = np.array(_groups(table["url"].combine_chunks()))
    sizes = Counter(groups.tolist())
    share = _TEST_SHARE[label]
    names, chosen, count = sorted(sizes), set[str](), 0
    for place in random.permutation(len(names)).tolist():
        if count < share * len(groups) and sizes[names[place]] < _LARGEST_GROUP * len(groups):
            chosen.add(names[place])
            count += sizes[names[place]]
    is_test = np.array([group in chosen for group in groups])
    parts = [random.permutation(np.flatnonzero(which)) for which in (~is_test, is_test)]
    sizes_wanted = most or (len(parts[0]), len(parts[1]))
    train, test = (table.take(part[:size]) for part, size in zip(parts, sizes_wanted, strict=True))
    return _task(train, test, label)


def _groups(urls: pa.Array) -> list[str]:
    """The registered domain of each URL; of Reddit the board."""
    domains = registered_domains(urls).to_pylist()
    boards = (_SUBREDDIT.match(url) for url in urls.to_pylist())
    return [domain if board is None else board[1].lower() for domain, board in zip(domains, boards, strict=True)]


def _task(train: pa.Table, test: pa.Table, label: str) -> Task:
    texts, labels, test_texts, test_labels = (
        part[name].cast(pa.string()).combine_chunks() for part in (train, test) for name in ("text", label)
    )
    return Task(texts=texts, labels=labels, test_texts=test_texts, test_labels=test_labels)
