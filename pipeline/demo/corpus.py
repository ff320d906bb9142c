"""The demo's corpus: documentation of the installed Python packages, as FineWeb-style shards with labels.

Real text that is on any machine with the dependencies installed. Source files are parsed and never imported:

- *modules*: the docstrings of one module under their qualified names, of the installed distributions and of Python's
  standard library; a long module becomes several documents, cut between docstrings;
- *descriptions*: what a distribution's METADATA says about it (its README), and .md/.rst files beside its code;
- *boilerplate*: changelogs that stand at the end of descriptions, and licence files.

A `url` is an address that the project itself names in its metadata (documentation, repository or home page) with the
documented object or the file as its fragment; for the standard library it is the page of the library reference or,
where a module has none, its source file in CPython's repository. Distributions that name no address are left out.

`topic` maps the trove classifiers that a distribution declares onto a few names. `quality` is **a label by source and
by share of prose, for the demonstration only**: no person judged these texts. "high": descriptions, and modules most of
whose characters stand in running sentences. "low": boilerplate, and modules with hardly a sentence (lists of
parameters, examples) or with one-line remarks only. What lies between has no label.

Same distributions, same Python: the same bytes. `date` is therefore no clock but the latest date among the calendar
versions installed (certifi 2026.10.18): the day before which this environment cannot have been put together.

Cost: about 5 MB/s of Python source a process, at most 8 MB of it a distribution.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sysconfig
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.demo.distributions import (
    Distribution,
    documented,
    find_distributions,
    installed_paths,
    snapshot_date,
)
from colophon.pipeline.demo.documents import Document, collect
from colophon.pipeline.demo.prose import digest
from colophon.pipeline.errors import UsageError

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("text", "id", "dump", "url", "date", "file_path", "language")]
    + [("language_score", pa.float64()), ("token_count", pa.int64())]
    + [("score", pa.float64()), ("int_score", pa.int64())]
    + [("topic", pa.string()), ("quality", pa.string())]
)
LABEL_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.string())])
RECORD_NAME = "corpus.json"
ROW_GROUP_ROWS = 1000
VALIDATION_SHARE = 0.02
TEST_SHARE = 0.2
MAX_LABELLED = 150
"""Documents of one distribution among the labels, so that the largest do not become the label."""


@dataclass(frozen=True, kw_only=True)
class DemoCorpus:
    """What `write_demo_corpus` left under `output`; counts are of documents over training and validation files."""

    output: Path
    train_files: tuple[Path, ...]
    validation_file: Path
    label_files: dict[str, Path]
    """`topic_train`, `topic_test`, `quality_train`, `quality_test`: Parquet with columns `text` and `label`."""
    num_documents: int
    num_validation_documents: int
    text_bytes: int
    """Of the texts in UTF-8, before compression."""
    topics: dict[str, int]
    qualities: dict[str, int]
    num_unreadable_files: int
    """Source and text files that were left out because they cannot be parsed or decoded."""
    fingerprint: str
    reused: bool
    """Whether the corpus was already there and nothing was written."""


_Labelled = list[tuple[Document, str]]


def write_demo_corpus(
    output: Path,
    *,
    max_documents: int | None = None,
    num_files: int = 4,
    num_workers: int = 2,
    search_paths: Sequence[Path] | None = None,
    stdlib_path: Path | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> DemoCorpus:
    """Write `corpus/train-*.parquet`, `corpus-validation/validation.parquet` and `labels/*.parquet` under `output`.

    Does nothing where `output/corpus.json` names the same environment and settings and its files are there.
    `max_documents` stops early: whole distributions are left out, in an order that a hash of their names gives.
    `search_paths` are folders with `*.dist-info`, `stdlib_path` the folder of the standard library; without both, those
    of the running interpreter. `num_workers` processes parse; their number changes nothing in the result.

    Raises:
        UsageError: the folders hold too little documentation for `num_files` files, or `num_files` is not one.
        OSError: `output` cannot be written.
    """
    if num_files < 1:
        raise UsageError(f"num_files must be at least 1, got {num_files}")
    if search_paths is None and stdlib_path is None:
        search_paths, stdlib_path = installed_paths(), Path(sysconfig.get_path("stdlib"))
    distributions = find_distributions(search_paths or [])
    fingerprint = _fingerprint(distributions, stdlib_path, max_documents=max_documents, num_files=num_files)
    if (existing := _existing(output, fingerprint)) is not None:
        report(f"{output} is up to date: {_summary(existing)}")
        return existing
    tasks = documented(distributions, stdlib_path)
    report(f"reading the documentation of {len(tasks)} packages")
    collected = collect(tasks, num_workers=num_workers, max_documents=max_documents)
    documents = _distinct(chain.from_iterable(part.documents for part in collected))[:max_documents]
    if len(documents) < 2 * num_files:
        places = ", ".join(str(path) for path in (*(search_paths or []), stdlib_path) if path is not None)
        raise UsageError(f"too little documentation for {num_files} files: {len(documents)} documents in {places}")
    corpus = _write(
        output,
        documents,
        num_files=num_files,
        snapshot=snapshot_date(distributions),
        num_unreadable_files=sum(part.num_unreadable_files for part in collected),
        fingerprint=fingerprint,
    )
    report(f"{output}: {_summary(corpus)}")
    return corpus


def _fingerprint(distributions: list[Distribution], stdlib_path: Path | None, **settings: int | None) -> str:
    parts = {
        "distributions": [(d.name, d.version) for d in distributions],
        "python": platform.python_version(),
        "stdlib": stdlib_path is not None,
        "settings": settings,
        "code": _code_digest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _code_digest() -> str:
    """sha256 of the sources that the corpus depends on: those of this package."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _distinct(documents: Iterable[Document]) -> list[Document]:
    """Each text once (case, punctuation and copyright lines aside), each url once, shuffled by a hash of the url."""
    texts: set[str] = set()
    urls: dict[str, Document] = {}
    for document in sorted(documents, key=lambda d: (d.package, d.file_path, d.url)):
        lines = (line for line in document.text.lower().splitlines() if "copyright" not in line)
        key = digest(re.sub(r"\W+", " ", " ".join(lines)))
        if key not in texts and document.url not in urls:
            texts.add(key)
            urls[document.url] = document
    return sorted(urls.values(), key=lambda d: digest(d.url))


def _write(
    output: Path,
    documents: list[Document],
    *,
    num_files: int,
    snapshot: date,
    num_unreadable_files: int,
    fingerprint: str,
) -> DemoCorpus:
    """Write all files, the record last; training files of an earlier corpus under other names are removed."""
    record_file = output / RECORD_NAME
    record_file.unlink(missing_ok=True)
    num_validation = max(1, round(VALIDATION_SHARE * len(documents)))
    validation, train = documents[:num_validation], documents[num_validation:]
    record = {
        "num_train_files": num_files,
        "num_documents": len(documents),
        "num_validation_documents": num_validation,
        "text_bytes": sum(len(d.text.encode()) for d in documents),
        "topics": _counts(d.topic for d in documents),
        "qualities": _counts(d.quality for d in documents),
        "num_unreadable_files": num_unreadable_files,
        "fingerprint": fingerprint,
    }
    corpus = _corpus(output, record, reused=False)
    for stale in set((output / "corpus").glob("train-?????.parquet")) - set(corpus.train_files):
        stale.unlink()
    for number, path in enumerate(corpus.train_files):
        share = train[len(train) * number // num_files : len(train) * (number + 1) // num_files]
        _write_table(_table(share, snapshot), path)
    _write_table(_table(validation, snapshot), corpus.validation_file)
    _write_labels(corpus.label_files, train)
    _replace(record_file, lambda path: path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n"))
    return corpus


def _corpus(output: Path, record: dict[str, Any], *, reused: bool) -> DemoCorpus:
    fields = dict(record)
    num_train_files = fields.pop("num_train_files")
    return DemoCorpus(
        output=output,
        train_files=tuple(output / "corpus" / f"train-{number:05d}.parquet" for number in range(num_train_files)),
        validation_file=output / "corpus-validation" / "validation.parquet",
        label_files={
            f"{kind}_{part}": output / "labels" / f"{kind}_{part}.parquet"
            for kind in ("topic", "quality")
            for part in ("train", "test")
        },
        reused=reused,
        **fields,
    )


def _existing(output: Path, fingerprint: str) -> DemoCorpus | None:
    """The corpus that a finished earlier run left, if it is of the same environment and none of its files is gone."""
    try:
        corpus = _corpus(output, json.loads((output / RECORD_NAME).read_text()), reused=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = (*corpus.train_files, corpus.validation_file, *corpus.label_files.values())
    return corpus if corpus.fingerprint == fingerprint and all(path.is_file() for path in files) else None


def _table(documents: list[Document], snapshot: date) -> pa.Table:
    week = snapshot.isocalendar()
    columns: dict[str, list[str | None]] = {
        "text": [d.text for d in documents],
        "id": [f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, d.url)}>" for d in documents],
        "dump": [f"PYDOC-{week[0]}-{week[1]:02d}"] * len(documents),
        "url": [d.url for d in documents],
        "date": [f"{snapshot.isoformat()}T00:00:00Z"] * len(documents),
        "file_path": [d.file_path for d in documents],
        "language": ["en"] * len(documents),
        "topic": [d.topic for d in documents],
        "quality": [d.quality for d in documents],
    }
    # nothing measured language, tokens or score here
    return pa.table({name: columns.get(name, [None] * len(documents)) for name in SCHEMA.names}, schema=SCHEMA)


def _write_labels(files: dict[str, Path], documents: list[Document]) -> None:
    for kind in ("topic", "quality"):
        labelled, taken = [], Counter[str]()
        for document in documents:
            label = getattr(document, kind)
            if label is not None and taken[document.package] < MAX_LABELLED:
                taken[document.package] += 1
                labelled.append((document, label))
        for part, rows in zip(("train", "test"), _split_labels(labelled), strict=True):
            columns = {"text": [document.text for document, _ in rows], "label": [label for _, label in rows]}
            _write_table(pa.table(columns, schema=LABEL_SCHEMA), files[f"{kind}_{part}"])


def _split_labels(labelled: _Labelled) -> tuple[_Labelled, _Labelled]:
    """About TEST_SHARE of each label to the test: whole packages, so that none is on both sides.

    A label that whole packages cannot share out (only one package has it, say) is split by document.
    """
    sizes: dict[str, Counter[str]] = {}
    for document, label in labelled:
        sizes.setdefault(document.package, Counter())[label] += 1
    totals = sum(sizes.values(), Counter[str]())
    in_test, test_packages = Counter[str](), set()
    for package in sorted(sizes, key=digest):
        if all(in_test[label] + size <= 1.25 * TEST_SHARE * totals[label] for label, size in sizes[package].items()):
            test_packages.add(package)
            in_test.update(sizes[package])
    parts: tuple[_Labelled, _Labelled] = ([], [])
    seen = Counter[str]()
    for document, label in labelled:
        seen[label] += 1
        by_document = seen[label] % round(1 / TEST_SHARE) == 2
        parts[document.package in test_packages if in_test[label] else by_document].append((document, label))
    return parts


def _write_table(table: pa.Table, path: Path) -> None:
    _replace(path, lambda name: pq.write_table(table, name, compression="zstd", row_group_size=ROW_GROUP_ROWS))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Nothing unfinished is ever visible under `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _counts(labels: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(label or "unlabelled" for label in labels).items()))


def _summary(corpus: DemoCorpus) -> str:
    return (
        f"{corpus.num_documents:,} documents, {corpus.text_bytes / 1e6:.1f} MB of text in "
        f"{len(corpus.train_files)} training files and a validation file"
    )
