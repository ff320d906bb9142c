"""The demo's corpus: documentation of the installed Python packages, as FineWeb-style shards with labels.

It is real text that every machine with the dependencies installed has. Source files are parsed and never imported:

- *modules*: the docstrings of one module under their qualified names, from the installed distributions and Python's
  standard library; a long module becomes several documents, cut between docstrings;
- *descriptions*: the description in a distribution's METADATA (its README), and .md/.rst files beside its code;
- *boilerplate*: changelogs at the end of descriptions, and licence files.

A `url` is an address in the project's own metadata (documentation, repository or home page) with the documented object
or the file as its fragment. For the standard library it is the page of the library reference or, where a module has
none, its source file in CPython's repository. Distributions that name no address are excluded.

`topic` maps the trove classifiers that a distribution declares onto a few names. `quality` is **a label by source and
by share of prose, for the demonstration only**: nobody judged these texts. "high": descriptions, and modules whose
characters are mostly in running sentences. "low": boilerplate, and modules with hardly a sentence (lists of parameters,
examples) or with one-line remarks only. Modules in between have no label.

Same distributions, same Python: the same bytes. So `date` is not the current day but the latest date among the calendar
versions installed (certifi 2026.10.18): this environment cannot have been installed before that day.

Cost: about 5 MB/s of Python source a process, at most 8 MB of it a distribution.
"""

from __future__ import annotations

import hashlib
import json
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
from colophon.pipeline.demo.labels import KINDS, PARTS, label_tables
from colophon.pipeline.demo.prose import digest
from colophon.pipeline.errors import UsageError
from colophon.shards.common import digests
from colophon.shards.common.durable import replace_text, replaced_file
from colophon.shards.common.output_paths import OutputPathError, entries, inside
from colophon.shards.common.state_files import read_state

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("text", "id", "dump", "url", "date", "file_path", "language")]
    + [("language_score", pa.float64()), ("token_count", pa.int64())]
    + [("score", pa.float64()), ("int_score", pa.int64())]
    + [("topic", pa.string()), ("quality", pa.string())]
)
RECORD_NAME = "corpus.json"
ROW_GROUP_ROWS = 1000
VALIDATION_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class DemoCorpus:
    """The files that `write_demo_corpus` wrote under `output`. Counts include training and validation documents."""

    output: Path
    train_files: tuple[Path, ...]
    validation_file: Path
    label_files: dict[str, Path]
    """`topic_train`, `topic_test`, `quality_train`, `quality_test`: Parquet with columns `text` and `label`."""
    num_documents: int
    num_validation_documents: int
    text_bytes: int
    """Bytes of the texts in UTF-8, before compression."""
    topics: dict[str, int]
    qualities: dict[str, int]
    num_unreadable_files: int
    """Source and text files that were excluded because they cannot be parsed or decoded."""
    fingerprint: str
    reused: bool
    """Whether the corpus already existed and nothing was written."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, below `output`."""
        return (*self.train_files, self.validation_file, *self.label_files.values())


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

    Writes nothing if `output/corpus.json` is of the same environment and settings and its files exist.
    `max_documents` is a limit: distributions are read in an order by a hash of their names until it is reached.
    `search_paths` are folders with `*.dist-info`, `stdlib_path` is the folder of the standard library; without both,
    those of the running interpreter. `num_workers` processes parse; their number changes nothing in the result.

    Raises:
        UsageError: the folders hold too little documentation for `num_files` files, or `num_files` is below 1.
        OSError: `output` cannot be written.
        OutputPathError: a file or folder of the corpus is a link, a pipe or the like.
    """
    if num_files < 1:
        raise UsageError(f"num_files must be at least 1, got {num_files}")
    if search_paths is None and stdlib_path is None:
        search_paths, stdlib_path = installed_paths(), Path(sysconfig.get_path("stdlib"))
    distributions = find_distributions(search_paths or [])
    fingerprint = _fingerprint(distributions, stdlib_path, max_documents=max_documents, num_files=num_files)
    if (existing := _existing_corpus(output, fingerprint)) is not None:
        report(f"{output} is up to date: {_summary(existing)}")
        return existing
    tasks = documented(distributions, stdlib_path)
    report(f"reading the documentation of {len(tasks)} packages")
    collected = collect(tasks, num_workers=num_workers, max_documents=max_documents)
    documents = _distinct_documents(chain.from_iterable(part.documents for part in collected))[:max_documents]
    if len(documents) < 2 * num_files:
        places = ", ".join(str(path) for path in (*(search_paths or []), stdlib_path) if path is not None)
        raise UsageError(f"too little documentation for {num_files} files: {len(documents)} documents in {places}")
    corpus = _write_corpus(
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
    return digests.fingerprint(parts)


def _code_digest() -> str:
    """sha256 of the sources that the corpus depends on: those of this package."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _distinct_documents(documents: Iterable[Document]) -> list[Document]:
    """Each text once (regardless of case, punctuation, copyright lines), each url once, sorted by a hash of the url."""
    texts: set[str] = set()
    urls: dict[str, Document] = {}
    for document in sorted(documents, key=lambda d: (d.package, d.file_path, d.url)):
        lines = (line for line in document.text.lower().splitlines() if "copyright" not in line)
        key = digest(re.sub(r"\W+", " ", " ".join(lines)))
        if key not in texts and document.url not in urls:
            texts.add(key)
            urls[document.url] = document
    return sorted(urls.values(), key=lambda d: digest(d.url))


def _write_corpus(
    output: Path,
    documents: list[Document],
    *,
    num_files: int,
    snapshot: date,
    num_unreadable_files: int,
    fingerprint: str,
) -> DemoCorpus:
    """Write all files, the record last; remove training files of an earlier corpus that have other names."""
    record_file = inside(output, RECORD_NAME)
    record_file.unlink(missing_ok=True)
    num_validation = max(1, round(VALIDATION_SHARE * len(documents)))
    validation, train = documents[:num_validation], documents[num_validation:]
    record = {
        "num_train_files": num_files,
        "num_documents": len(documents),
        "num_validation_documents": num_validation,
        "text_bytes": sum(len(d.text.encode()) for d in documents),
        "topics": _label_counts(d.topic for d in documents),
        "qualities": _label_counts(d.quality for d in documents),
        "num_unreadable_files": num_unreadable_files,
        "fingerprint": fingerprint,
    }
    corpus = _corpus_of_record(output, record, reused=False)
    for path in corpus.files:
        inside(output, path.relative_to(output))
    for path in set(entries(output, "corpus")) - set(corpus.train_files):
        if path.match("train-?????.parquet"):
            path.unlink()
    for number, path in enumerate(corpus.train_files):
        share = train[len(train) * number // num_files : len(train) * (number + 1) // num_files]
        _write_table(_table(share, snapshot), path)
    _write_table(_table(validation, snapshot), corpus.validation_file)
    for name, table in label_tables(train).items():
        _write_table(table, corpus.label_files[name])
    replace_text(record_file, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return corpus


def _corpus_of_record(output: Path, record: dict[str, Any], *, reused: bool) -> DemoCorpus:
    fields = dict(record)
    num_train_files = fields.pop("num_train_files")
    return DemoCorpus(
        output=output,
        train_files=tuple(output / "corpus" / f"train-{number:05d}.parquet" for number in range(num_train_files)),
        validation_file=output / "corpus-validation" / "validation.parquet",
        label_files={
            f"{kind}_{part}": output / "labels" / f"{kind}_{part}.parquet" for kind in KINDS for part in PARTS
        },
        reused=reused,
        **fields,
    )


def _existing_corpus(output: Path, fingerprint: str) -> DemoCorpus | None:
    """The corpus of an earlier complete run, if it has this fingerprint and all its files exist."""
    try:
        record = read_state(inside(output, RECORD_NAME), remedy="Delete it")
        corpus = _corpus_of_record(output, record or {}, reused=True)
    except OutputPathError:
        raise
    except (ValueError, KeyError, TypeError):
        return None
    complete = all(inside(output, path.relative_to(output)).is_file() for path in corpus.files)
    return corpus if corpus.fingerprint == fingerprint and complete else None


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
    # `language_score`, `token_count`, `score` and `int_score` stay null: nothing measured them
    return pa.table({name: columns.get(name, [None] * len(documents)) for name in SCHEMA.names}, schema=SCHEMA)


def _write_table(table: pa.Table, path: Path) -> None:
    with replaced_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP_ROWS)


def _label_counts(labels: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(label or "unlabelled" for label in labels).items()))


def _summary(corpus: DemoCorpus) -> str:
    return (
        f"{corpus.num_documents:,} documents, {corpus.text_bytes / 1e6:.1f} MB of text in "
        f"{len(corpus.train_files)} training files and a validation file"
    )
