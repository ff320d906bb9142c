"""The input of all contestants: files, two classifiers of realistic sizes, a vocabulary; built once and kept."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.job import Classifier, Job
from benchmarks.vocabulary import PATTERN_NAME, both_formats
from colophon.annotators.fasttext.model_file import read_header
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext.training.classifier import train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from colophon.pipeline.demo.corpus import write_demo_corpus
from colophon.shards.tokenizer.training import train_tokenizer

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
TRAINING_MEGABYTES = 90.0
"""Text to train classifiers on; the web text gives them 250,000 words, 0.9 and 2.3 GB."""
START_DOCUMENTS = 64
QUICK_DOCUMENTS = 400
_COMPARED_TEXTS = 1000
_LABEL_OF_NONE = "other"
_HIGH = "__label__high"


class WorkloadError(RuntimeError):
    """The input cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of models and vocabulary."""

    name: str
    """Name of their directory."""
    quality_dim: int
    topic_dim: int
    buckets: int
    num_topics: int
    """Maximum number of topics; rarer ones share one label."""
    vocabulary_size: int
    """Size of the vocabulary, if it has to be trained."""
    min_count: int
    """Words seen less often are not in the models."""


REAL = Sizes(
    name="real", quality_dim=100, topic_dim=256, buckets=2_000_000, num_topics=24, vocabulary_size=32_768, min_count=2
)
"""Sizes that public quality and topic classifiers have."""
SMALL = Sizes(name="small", quality_dim=8, topic_dim=16, buckets=5000, num_topics=8, vocabulary_size=600, min_count=1)
"""For a smoke run."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The job, and a small job of the same kind that measures the start."""

    name: str
    """Name of the input in results."""
    job: Job
    start: Job
    """A file of `START_DOCUMENTS` documents for each worker."""
    text_bytes: int
    documents: int
    start_text_bytes: int
    models: tuple[dict[str, object], ...]
    """Description of the classifiers for results."""


def find_input(
    paths: Sequence[str], *, work: Path, log: Callable[[str], None], quick: bool = False
) -> tuple[str, list[Path]]:
    """Return a name and the Parquet files: `paths`, else the web text beside the checkout, else the demo's corpus.

    Args:
        paths: files and directories.
        work: directory for the demo's corpus.
        log: receives a line about each file that is written.
        quick: take only the first `QUICK_DOCUMENTS`, as two files.

    Raises:
        WorkloadError: a path holds no Parquet file.
    """
    if paths:
        files = [file.absolute() for path in paths for file in _parquet_files(Path(path))]
        name = Path(paths[0]).stem
    elif (SHARED / "web").is_dir():
        name, files = "web", sorted((SHARED / "web").glob("*.parquet"))
    else:
        log("no ../shared/data/web beside the checkout: the demo's corpus")
        corpus = write_demo_corpus(work / "demo", report=log)
        name, files = "demo", [file.absolute() for file in (*corpus.train_files, corpus.validation_file)]
    return (f"{name}-quick", _first_documents(files[0], work / "quick" / name)) if quick else (name, files)


def _first_documents(file: Path, directory: Path) -> list[Path]:
    """Write the first `QUICK_DOCUMENTS` of a file as two files."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"part-{i}.parquet" for i in range(2)]
    with pq.ParquetFile(file) as parquet:
        half = max(min(QUICK_DOCUMENTS, parquet.metadata.num_rows) // 2, 1)
        table = pa.Table.from_batches(list(islice(parquet.iter_batches(half), 2)), parquet.schema_arrow)
    for i, path in enumerate(paths):
        pq.write_table(table.slice(i * half, half), path, row_group_size=max(half // 2, 1))
    return paths


def _parquet_files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise WorkloadError(f"{path}: no Parquet file")
    return files


def text_bytes_of(path: Path) -> int:
    """Return the UTF-8 bytes of the text column."""
    with pq.ParquetFile(path) as parquet:
        return sum(pc.sum(pc.binary_length(b.column(0))).as_py() or 0 for b in parquet.iter_batches(columns=["text"]))


def within(files: Sequence[Path], megabytes: float | None) -> list[Path]:
    """Return the first files that together hold at most `megabytes` of text, at least one; all of them for None."""
    if megabytes is None:
        return list(files)
    taken: list[Path] = []
    total = 0.0
    for file in files:
        total += text_bytes_of(file) / 1e6
        if taken and total > megabytes:
            break
        taken.append(file)
    return taken


def repeated(files: Sequence[Path], megabytes: float, *, directory: Path) -> list[Path]:
    """The files, and copies of them under other names until all hold at least so much text.

    In copy `k` the id `a` is `a#k`: ids stay unique, texts repeat. A cache of tokens therefore meets words that it
    has seen, as it would in a larger crawl, only more often.

    Args:
        files: Parquet with an `id` column.
        megabytes: of text in all returned files, at least.
        directory: where copies are written; copies that exist are used again.
    """
    taken, total = list(files), sum(map(text_bytes_of, files)) / 1e6
    own_megabytes = [text_bytes_of(file) / 1e6 for file in files]
    directory.mkdir(parents=True, exist_ok=True)
    for number in count(len(files)):
        if total >= megabytes:
            return taken
        copy, place = divmod(number, len(files))
        path = directory / f"{copy}-{_digest([files[place]])}-{files[place].name}"
        if not path.is_file():
            table = pq.read_table(files[place])
            ids = pc.binary_join_element_wise(table["id"], f"#{copy}", "")
            copied = table.set_column(table.schema.get_field_index("id"), "id", ids)
            pq.write_table(copied, path, row_group_size=1000, compression="zstd")
        taken.append(path)
        total += own_megabytes[place]
    raise AssertionError("count() does not end")


def make_workload(
    name: str,
    files: Sequence[Path],
    *,
    all_files: Sequence[Path] | None = None,
    work: Path,
    workers: int,
    sizes: Sizes = REAL,
    models: Path | None = None,
    log: Callable[[str], None],
) -> Workload:
    """The job over `files`, with models and vocabulary under `work`, trained where they are not there yet.

    Args:
        name: of the input.
        files: Parquet with `id`, `text` and `url`, and better `topic` (and `quality`, high or low).
        all_files: the input of which `files` are a part: models are trained on its first files.
        work: directory that is kept between runs.
        workers: processes of each contestant.
        sizes: of models and vocabulary.
        models: directory with `quality.bin` and `topic.bin` instead of training.
        log: gets a line about what takes long.

    Raises:
        WorkloadError: ids that are not unique, by which outputs are compared.
    """
    learned = within(all_files or files, TRAINING_MEGABYTES)
    assets = work / "assets" / f"{name}-{sizes.name}-{_digest(learned)}"
    own = assets / _digest(files)
    own.mkdir(parents=True, exist_ok=True)
    documents = _checked(files)
    quality, topic = _models(learned, models or assets, sizes=sizes, log=log)
    job = Job(
        files=tuple(str(file) for file in files),
        output=str(work),
        workers=workers,
        quality=quality,
        high=_HIGH if _HIGH in quality.labels else quality.labels[0],
        topic=topic,
        vocabulary=both_formats(
            _vocabulary(learned, assets, sizes=sizes, log=log),
            texts=[text.as_py() for text in documents["text"][:_COMPARED_TEXTS]],
            output=assets / "tokenizer.json",
        ),
        json_lines=str(own / "documents"),
    )
    start_files = _start_files(documents, own / f"start-{workers}", count=workers)
    return Workload(
        name=name,
        job=job,
        start=job.at(work, files=tuple(map(str, start_files)), json_lines=str(own / f"start-{workers}-documents")),
        text_bytes=sum(map(text_bytes_of, files)),
        documents=documents.num_rows,
        start_text_bytes=sum(map(text_bytes_of, start_files)),
        models=tuple(_described(model) for model in (quality, topic)),
    )


def _digest(files: Sequence[Path]) -> str:
    """Return a digest of the files' names, sizes and times of change; it names the directory of their models."""
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()[:10]


def _checked(files: Sequence[Path]) -> pa.Table:
    table = pa.concat_tables(pq.read_table(file, columns=["id", "text"]) for file in files)
    if pc.count_distinct(table["id"]).as_py() != table.num_rows:
        raise WorkloadError("documents of the input share ids: outputs cannot be compared")
    return table


def _start_files(documents: pa.Table, directory: Path, *, count: int) -> list[Path]:
    """Write small files with the input's first documents."""
    directory.mkdir(parents=True, exist_ok=True)
    size = min(START_DOCUMENTS, max(documents.num_rows // count, 1))
    files = [directory / f"start-{i}.parquet" for i in range(count)]
    for i, file in enumerate(files):
        pq.write_table(documents.slice(i * size, size), file)
    return files


def _models(
    files: Sequence[Path], directory: Path, *, sizes: Sizes, log: Callable[[str], None]
) -> tuple[Classifier, Classifier]:
    paths = {name: directory / f"{name}.bin" for name in ("quality", "topic")}
    for name, path in paths.items():
        if path.is_file():
            continue
        log(f"training the {name} classifier: {path}")
        # In a separate process, so that its gigabytes are freed at its end.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(train, name, [str(file) for file in files], path, sizes).result()
    quality, topic = (Classifier(model=str(p), labels=read_header(p).labels) for p in paths.values())
    return quality, topic


def train(name: str, files: Sequence[str], output: Path, sizes: Sizes) -> None:
    """Train one epoch on the texts of `labelled`: raw text, newlines as spaces, as the library's `predict` reads it."""
    texts, labels = labelled(name, files, num_topics=sizes.num_topics)
    settings = TrainingSettings(
        dim=sizes.quality_dim if name == "quality" else sizes.topic_dim,
        buckets=sizes.buckets,
        min_count=sizes.min_count,
        word_ngrams=2,
        epoch=1,
        loss="softmax",
    )
    train_classifier(texts, labels, output=output, normalize=TextPreparation(), settings=settings)


def labelled(name: str, files: Sequence[str], *, num_topics: int) -> tuple[pa.Array, pa.Array]:
    """Return all texts of the input and their labels.

    `topic`: the column of that name, else the host of the url; the most frequent ones, all others as one label.
    `quality`: the column of that name, else "low" for documents of the host that has most of them (in the web text
    reddit.com). The labels are sources, not judgements: the models need realistic sizes, not good predictions.
    """
    wanted = ("text", name, "url")
    tables = [pq.read_table(f, columns=[c for c in wanted if c in pq.read_schema(f).names]) for f in files]
    table = pa.concat_tables(tables)
    source = table[name] if name in table.column_names else _hosts(table["url"])
    frequent = [value for value, _ in _by_frequency(source)]
    if name == "topic":
        kept = pa.array(frequent[: num_topics - 1], pa.string())
        labels = pc.if_else(pc.is_in(source, kept), source, _LABEL_OF_NONE)
    elif name in table.column_names:
        labels = source
    else:
        labels = pc.if_else(pc.equal(source, frequent[0]), "low", "high")
    return table["text"].combine_chunks(), pc.cast(labels, pa.string()).combine_chunks()


def _by_frequency(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    counted = column.drop_null().value_counts().to_pylist()
    return sorted(((row["values"], row["counts"]) for row in counted), key=lambda pair: (-pair[1], pair[0]))


def _hosts(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([urlsplit(url or "").hostname or "" for url in urls.to_pylist()], pa.string())])


def _vocabulary(files: Sequence[Path], assets: Path, *, sizes: Sizes, log: Callable[[str], None]) -> Path:
    shared = SHARED / "vocab" / "gpt2.tiktoken"
    if shared.is_file():
        return shared
    path = assets / "vocabulary.tiktoken"
    if not path.is_file():
        log(f"training a vocabulary: {path}")
        train_tokenizer(_texts(files), vocabulary_size=sizes.vocabulary_size, output=path, pattern=PATTERN_NAME)
    return path


def _texts(files: Sequence[Path]) -> Iterator[pa.Array]:
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(columns=["text"]):
                yield batch.column(0)


def _described(model: Classifier) -> dict[str, object]:
    header = read_header(model.model)
    return {
        "bytes": header.file_bytes,
        "dim": header.dim,
        "labels": len(header.labels),
        "words": header.num_words,
        "buckets": header.buckets,
        "word_ngrams": header.word_ngrams,
        "loss": header.loss,
    }
