"""The labelled texts of the demo's classifiers: training and test tables for `topic` and `quality`."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import pyarrow as pa

from colophon.pipeline.demo.documents import Document
from colophon.pipeline.demo.prose import digest

LABEL_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.string())])
KINDS = ("topic", "quality")
PARTS = ("train", "test")
TEST_SHARE = 0.2
MAX_LABELLED = 150
"""Labelled documents of one distribution, so that no label means one large distribution."""

_Labelled: TypeAlias = list[tuple[Document, str]]


def label_tables(documents: list[Document]) -> dict[str, pa.Table]:
    """Tables with columns `text` and `label`, named `topic_train`, `topic_test`, `quality_train`, `quality_test`."""
    tables: dict[str, pa.Table] = {}
    for kind in KINDS:
        for part, rows in zip(PARTS, _split_by_package(_labelled(documents, kind)), strict=True):
            columns = {"text": [document.text for document, _ in rows], "label": [label for _, label in rows]}
            tables[f"{kind}_{part}"] = pa.table(columns, schema=LABEL_SCHEMA)
    return tables


def _labelled(documents: list[Document], kind: str) -> _Labelled:
    """The documents that have a label of this kind, at most `MAX_LABELLED` of a package."""
    labelled, num_taken = [], Counter[str]()
    for document in documents:
        label = getattr(document, kind)
        if label is not None and num_taken[document.package] < MAX_LABELLED:
            num_taken[document.package] += 1
            labelled.append((document, label))
    return labelled


def _split_by_package(labelled: _Labelled) -> tuple[_Labelled, _Labelled]:
    """Training and test rows: about `TEST_SHARE` of each label is in the test, and no package is in both.

    Packages go to the test in the order of a hash, each only if no label's test part then exceeds 1.25 times its share.
    A label of which no package fits (only one package has it, say) is split by document: every fifth goes to the test.
    """
    sizes: dict[str, Counter[str]] = {}
    for document, label in labelled:
        sizes.setdefault(document.package, Counter())[label] += 1
    totals = sum(sizes.values(), Counter[str]())
    num_test, test_packages = Counter[str](), set()
    for package in sorted(sizes, key=digest):
        if all(num_test[label] + size <= 1.25 * TEST_SHARE * totals[label] for label, size in sizes[package].items()):
            test_packages.add(package)
            num_test.update(sizes[package])
    parts: tuple[_Labelled, _Labelled] = ([], [])
    num_seen = Counter[str]()
    for document, label in labelled:
        num_seen[label] += 1
        by_document = num_seen[label] % round(1 / TEST_SHARE) == 2
        parts[document.package in test_packages if num_test[label] else by_document].append((document, label))
    return parts
