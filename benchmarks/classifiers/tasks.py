"""The tasks: labelled texts, of which the test texts come from other sources than the training texts.

| task | training and test texts |
| --- | --- |
| `quality` | files of their own, from different sources |
| `news` | files of their own: AG News |
| `page type` | a random split by registered domain, another for each seed |
| `topic` | web pages, a random split by registered domain (of Reddit: by subreddit), another for each seed |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from colophon.pipeline.classifiers.groups import registered_domains

_TEST_SHARE = {"label": 0.3, "topic": 0.25}
"""By the name of the label column."""
_LARGEST_GROUP = 0.15
"""A group with a larger share of the texts is in the training part: Reddit's largest boards, say."""
_TOPIC_TEXTS, _TOPIC_TEST_TEXTS = 4000, 2000
_TOPIC_FILES = 3
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
    }


def _from_files(data: Path, name: str) -> Task:
    train, test = (pq.read_table(data / "labels" / f"{name}_{part}.parquet") for part in ("train", "test"))
    return _task(train, test, "label")


def _topic(data: Path, seed: int) -> Task:
    files = sorted((data / "web").glob("train-*.parquet"))[:_TOPIC_FILES]
    pages = pa.concat_tables([pq.read_table(file, columns=["text", "url", "topic"]) for file in files])
    return _split(pages.filter(pc.is_valid(pages["topic"])), "topic", seed, most=(_TOPIC_TEXTS, _TOPIC_TEST_TEXTS))


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
