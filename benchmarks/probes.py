"""Parts of the job alone, each in a process of its own: `python -m benchmarks.probes NAME JOB.json [MEGABYTES]`.

The last line of the output is a JSON object of seconds and sizes. What is timed uses one thread. Loading is told apart,
and everything is called once on a few documents before time is taken, except where cold text is the point.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.contestants import write_recipe
from benchmarks.job import Job, load

_BATCH_ROWS = 1024
_WARM_UP_ROWS = 64
_LAYOUTS = """
[pack]
sequence_length = 2048
[layouts.plain]
position = "plain"
[layouts.prepend]
position = "prepend"
template = "{url}"
[layouts.append]
position = "append"
template = "{topic}"
[layouts.meta_tokens]
position = "meta_tokens"
[annotators.url]
"""
Result = dict[str, Any]


class Stopwatch:
    """Seconds by name, and how often each was measured."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        """Call, and add the time that it takes."""
        begun = time.perf_counter()
        result = call()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
        return result


def read(job: Job) -> Result:
    """The reader of the pipeline: id and text of all partitions."""
    from pipeline.readers import PartitionReader

    prepared = _prepared(job)
    watch = Stopwatch()
    text_bytes = 0
    for partition in prepared.inputs.partitions:
        batches = iter(PartitionReader(partition, prepared.tokenize_needs, stage="read"))
        while (batch := watch.time("read", lambda batches=batches: next(batches, None))) is not None:
            text_bytes += _size(batch.column("text"))
    return {"seconds": watch.seconds, "text_bytes": text_bytes}


def score(job: Job, *, megabytes: float | None = None) -> Result:
    """Both classifiers: the kernel, the annotators around it, and the fastText library, in turn for every 1,024 texts.

    The library gets Python strings whose newlines are spaces already, the others Arrow columns.
    """
    import fasttext

    from annotators.fasttext_model import FastTextModel

    watch = Stopwatch()
    annotators = _prepared(job).annotators
    models = [FastTextModel(classifier.model) for classifier in (job.quality, job.topic)]
    watch.time("load", lambda: [model.load() for model in models])
    for annotator in annotators:
        annotator.load()
    library = watch.time("library_load", lambda: [fasttext.load_model(c.model).f for c in (job.quality, job.topic)])

    def with_kernel(texts: pa.Array) -> None:
        for model in models:
            model.probabilities(texts)

    def with_annotators(texts: pa.Array) -> None:
        batch = pa.record_batch({"text": texts})
        for annotator in annotators:
            annotator.annotate(batch)

    def with_library(lines: Sequence[str]) -> None:
        for line in lines:
            library[0].predict(line, 2, 0.0, "strict")
            library[1].predict(line, 1, 0.0, "strict")

    text_bytes = 0
    for number, texts in enumerate(_texts(job, megabytes=megabytes, warm_up=True)):
        lines = [text.replace("\n", " ") + "\n" for text in texts.to_pylist()]
        own = pa.array(texts.to_pylist(), texts.type)  # elsewhere in memory: words that were split are not found again
        watch_or_not = watch if number else Stopwatch()
        watch_or_not.time("kernel", lambda texts=texts: with_kernel(texts))
        watch_or_not.time("library", lambda lines=lines: with_library(lines))
        watch_or_not.time("annotators", lambda own=own: with_annotators(own))
        text_bytes += _size(texts) if number else 0
    return {"seconds": watch.seconds, "text_bytes": text_bytes}


def tokenize_engine(job: Job) -> Result:
    """Colophon's tokenizer on cold text, from Arrow to Arrow."""
    from shards.tokenizer import TokenizerConfig, load_tokenizer

    watch = Stopwatch()
    config = TokenizerConfig(path=job.vocabulary.tiktoken, pattern=job.vocabulary.pattern_name)
    tokenizer = watch.time("load", lambda: load_tokenizer(config))
    watch.time("load", lambda: tokenizer.encode_batch(pa.array(["a b"])))
    text_bytes = tokens = 0
    for texts in _texts(job):
        ids = watch.time("tokenize", lambda texts=texts: tokenizer.encode_batch(texts))
        text_bytes += _size(texts)
        tokens += len(ids.flatten())
    engine = getattr(tokenizer, "engine", "tiktoken")
    return {"seconds": watch.seconds, "text_bytes": text_bytes, "tokens": tokens, "engine": engine}


def tokenize_tiktoken(job: Job) -> Result:
    """tiktoken on cold text, from Python strings that are there already to numpy arrays."""
    import tiktoken

    def make() -> tiktoken.Encoding:
        lines = (line.split() for line in Path(job.vocabulary.tiktoken).read_bytes().splitlines() if line)
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        return tiktoken.Encoding("bench", pat_str=job.vocabulary.pattern, mergeable_ranks=ranks, special_tokens={})

    watch = Stopwatch()
    encoding = watch.time("load", make)
    text_bytes = tokens = 0
    for texts in _texts(job):
        strings = texts.to_pylist()
        rows = watch.time(
            "tokenize", lambda strings=strings: [encoding.encode_to_numpy(s, disallowed_special=()) for s in strings]
        )
        text_bytes += _size(texts)
        tokens += sum(map(len, rows))
    return {"seconds": watch.seconds, "text_bytes": text_bytes, "tokens": tokens, "engine": "tiktoken"}


def write(job: Job) -> Result:
    """The pipeline's files of annotations and tokens: written, checked, hashed, synced and renamed."""
    from pipeline.annotate import SUFFIX, AnnotationFile, stage_of
    from pipeline.store import Store
    from pipeline.tokenizing import STAGE
    from pipeline.tokenizing import SUFFIX as TOKENS_SUFFIX
    from shards.files import growing_table, tokens_table
    from shards.schema import tokens_schema

    prepared = _prepared(job)
    tokenizer = prepared.tokenizer
    watch = Stopwatch()
    text_bytes = 0
    for annotator in prepared.annotators:
        annotator.load()
    with tempfile.TemporaryDirectory(dir=Path(job.output).parent) as scratch:
        store = Store(scratch)
        for number, file in enumerate(job.files):
            batches = list(_batches(file, ["id", "text"]))
            rows = sum(batch.num_rows for batch in batches)
            text_bytes += sum(_size(batch.column("text")) for batch in batches)
            for annotator in prepared.annotators:
                outputs = [annotator.annotate(batch) for batch in batches]
                with (
                    store.draft(stage=stage_of(annotator.name), partition=str(number), suffix=SUFFIX) as draft,
                    AnnotationFile(draft, annotator.schema) as annotations,
                ):
                    for output in outputs:
                        watch.time("annotations", lambda o=output, f=annotations: f.add(o))
                    watch.time("annotations", lambda f=annotations, n=rows: f.commit("", rows=n, problems=[]))
            tables = [
                tokens_table(batch.column("id"), tokenizer.encode_batch(batch.column("text")), dtype=tokenizer.dtype)
                for batch in batches
            ]
            with store.draft(stage=STAGE, partition=str(number), suffix=TOKENS_SUFFIX) as draft:
                with growing_table(draft.path, tokens_schema(tokenizer.dtype)) as add:
                    for table in tables:
                        watch.time("tokens", lambda t=table, add=add: add(t))
                watch.time(
                    "tokens",
                    lambda d=draft, n=rows: d.commit(check=lambda path: None, rows=n, fingerprint="", counts={}),
                )
    return {"seconds": watch.seconds, "text_bytes": text_bytes}


def pack_layouts(job: Job) -> Result:
    """Packing in every layout, a file at a time: metadata (rendered, tokenized) and arranging told apart."""
    from shards.files import list_chunks
    from shards.metadata import document_metadata
    from shards.packing import pack

    prepared = _prepared(job, more=_LAYOUTS)
    tokenizer, recipe = prepared.tokenizer, prepared.recipe
    topic = next(annotator for annotator in prepared.annotators if annotator.name == "topic")
    topic.load()
    watch = Stopwatch()
    tokens = 0
    packed_tokens: dict[str, int] = dict.fromkeys(recipe.layouts, 0)
    for number, file in enumerate([job.files[0], *job.files]):  # the first one twice: once to warm up
        table = pq.read_table(file, columns=[c for c in ("id", "text", "url") if c in pq.read_schema(file).names])
        batches = table.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS)
        input_ids = pa.chunked_array([tokenizer.encode_batch(batch.column("text")) for batch in batches])
        topics = pa.Table.from_batches([topic.annotate(batch) for batch in batches])["topic"].combine_chunks()
        columns = {"topic": topics, "url": _column(table, "url")}
        offsets, chunks = list_chunks(input_ids)
        clock = watch if number else Stopwatch()
        tokens += int(offsets[-1]) if number else 0
        for name, layout in recipe.layouts.items():
            metadata = clock.time(
                f"{name}_metadata",
                lambda layout=layout, ids=_column(table, "id"), columns=columns: document_metadata(
                    layout,
                    ids=ids,
                    columns={field: columns[field] for field in layout.fields},
                    tokenizer=tokenizer,
                    seed=0,
                ),
            )
            packed = clock.time(
                name,
                lambda layout=layout, metadata=metadata, offsets=offsets, chunks=chunks: pack(
                    layout,
                    text_offsets=offsets,
                    text_ids=chunks,
                    metadata=metadata,
                    special=tokenizer.special,
                    sequence_length=recipe.pack.sequence_length,
                ),
            )
            packed_tokens[name] += packed.input_ids.size if number else 0
    return {"seconds": watch.seconds, "tokens": tokens, "packed_tokens": packed_tokens}


def _column(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks() if name in table.column_names else pa.nulls(table.num_rows, pa.string())


def _prepared(job: Job, *, more: str = "") -> Any:
    from pipeline.prepare import prepare
    from pipeline.recipe import load_recipe

    recipe = write_recipe(job, more=more)
    return prepare(load_recipe(str(recipe)), where=str(recipe))


def _batches(file: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with ExitStack() as stack:
        parquet = stack.enter_context(pq.ParquetFile(file))
        yield from parquet.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False)


def _texts(job: Job, *, megabytes: float | None = None, warm_up: bool = False) -> Iterator[pa.Array]:
    """Texts of the input, 1,024 at a time, up to so many megabytes; with `warm_up` some of the first come before."""
    left = float("inf") if megabytes is None else megabytes * 1e6
    for file in job.files:
        for batch in _batches(file, ["text"]):
            if warm_up:
                yield batch.column(0).slice(0, _WARM_UP_ROWS)
                warm_up = False
            if left <= 0:
                return
            yield batch.column(0)
            left -= _size(batch.column(0))


def _size(texts: pa.Array) -> int:
    return pc.sum(pc.binary_length(texts)).as_py() or 0


PROBES: dict[str, Callable[..., Result]] = {
    "read": read,
    "score": score,
    "tokenize_engine": tokenize_engine,
    "tokenize_tiktoken": tokenize_tiktoken,
    "write": write,
    "pack": pack_layouts,
}


def main() -> None:
    """Run the probe of the command line."""
    name, job, *rest = sys.argv[1:]
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    result = PROBES[name](load(job), **({"megabytes": float(rest[0])} if rest else {}))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
