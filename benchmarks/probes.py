"""Measures one part of the job alone, in its own process: `python -m benchmarks.probes NAME JOB.json [MEGABYTES]`.

The last line of the output is a JSON object of seconds and sizes. Timed code uses one thread. Loading is timed
separately. Each part first runs on a few documents without being timed, except where the text must be cold.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
[annotators.url]

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
"""
Result = dict[str, Any]


class Stopwatch:
    """Seconds by name; `with watch("read"):` adds to them. A block that raises is not counted."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time of the block under `name`."""
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


def read(job: Job) -> Result:
    """Measure the reader of the pipeline: id and text of all partitions."""
    from colophon.pipeline.inputs.readers import PartitionReader

    resolved = _resolved(job)
    watch = Stopwatch()
    text_bytes = 0
    for partition in resolved.inputs.partitions:
        batches = iter(PartitionReader(partition, resolved.columns.tokenize_needs, stage="read"))
        while True:
            with watch("read"):
                batch = next(batches, None)
            if batch is None:
                break
            text_bytes += _size(batch.column("text"))
    return {"seconds": watch.seconds, "text_bytes": text_bytes}


class _Scorers:
    """Runs both classifiers in three ways."""

    def __init__(self, job: Job, watch: Stopwatch) -> None:
        import fasttext

        from colophon.annotators.fasttext.model import FastTextModel

        classifiers = (job.quality, job.topic)
        self._models = [FastTextModel(classifier.model) for classifier in classifiers]
        with watch("load"):
            for model in self._models:
                model.load()
        self._annotators = _resolved(job).annotators
        for annotator in self._annotators:
            annotator.load()
        with watch("library_load"):
            self._quality, self._topic = (fasttext.load_model(classifier.model).f for classifier in classifiers)

    def kernel(self, texts: pa.Array) -> None:
        for model in self._models:
            model.probabilities(texts)

    def annotators(self, texts: pa.Array) -> None:
        batch = pa.record_batch({"text": texts})
        for annotator in self._annotators:
            annotator.annotate(batch)

    def library(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._quality.predict(line, 2, 0.0, "strict")
            self._topic.predict(line, 1, 0.0, "strict")

    def run(self, texts: pa.Array, watch: Stopwatch, *, first: int = 0) -> None:
        """Score `texts` in each way, one after the other, beginning with way number `first`."""
        strings = texts.to_pylist()
        lines = [string.replace("\n", " ") + "\n" for string in strings]
        copied = pa.array(strings, texts.type)  # at the same address, the kernel reuses words that it has split
        ways: list[tuple[str, Callable[[], None]]] = [
            ("kernel", lambda: self.kernel(texts)),
            ("library", lambda: self.library(lines)),
            ("annotators", lambda: self.annotators(copied)),
        ]
        for i in range(len(ways)):
            name, way = ways[(first + i) % len(ways)]
            with watch(name):
                way()


def score(job: Job, *, megabytes: float | None = None) -> Result:
    """Measure both classifiers: the kernel, the annotators around it, the library; alternating every 1,024 texts.

    The library gets ready Python strings with spaces for newlines, the others Arrow columns.
    """
    watch = Stopwatch()
    scorers = _Scorers(job, watch)
    scorers.run(next(_texts(job)).slice(0, _WARM_UP_ROWS), Stopwatch())
    text_bytes = 0
    for number, texts in enumerate(_texts(job, megabytes=megabytes)):
        scorers.run(texts, watch, first=number)
        text_bytes += _size(texts)
    return {"seconds": watch.seconds, "text_bytes": text_bytes}


def tokenize_engine(job: Job) -> Result:
    """Measure Colophon's tokenizer on cold text, from Arrow to Arrow."""
    from colophon.shards.tokenizer.tokenizer import TokenizerConfig, load_tokenizer

    watch = Stopwatch()
    with watch("load"):
        config = TokenizerConfig(path=job.vocabulary.tiktoken, pattern=job.vocabulary.pattern_name)
        tokenizer = load_tokenizer(config)
        tokenizer.encode_batch(pa.array(["a b"]))
    text_bytes = tokens = 0
    for texts in _texts(job):
        with watch("tokenize"):
            ids = tokenizer.encode_batch(texts)
        text_bytes += _size(texts)
        tokens += len(ids.flatten())
    return {"seconds": watch.seconds, "text_bytes": text_bytes, "tokens": tokens, "engine": tokenizer.engine}


def tokenize_tiktoken(job: Job) -> Result:
    """Measure tiktoken on cold text, from ready Python strings to numpy arrays."""
    import tiktoken

    watch = Stopwatch()
    with watch("load"):
        lines = (line.split() for line in Path(job.vocabulary.tiktoken).read_bytes().splitlines() if line)
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        encoding = tiktoken.Encoding("bench", pat_str=job.vocabulary.pattern, mergeable_ranks=ranks, special_tokens={})
    text_bytes = tokens = 0
    for texts in _texts(job):
        strings = texts.to_pylist()
        with watch("tokenize"):
            rows = [encoding.encode_to_numpy(string, disallowed_special=()) for string in strings]
        text_bytes += _size(texts)
        tokens += sum(map(len, rows))
    return {"seconds": watch.seconds, "text_bytes": text_bytes, "tokens": tokens, "engine": "tiktoken"}


def write(job: Job) -> Result:
    """Measure writing the files of annotations and tokens: write, check, hash, sync and rename."""
    from colophon.pipeline.storage.commits import Store

    resolved = _resolved(job)
    watch = Stopwatch()
    text_bytes = 0
    for annotator in resolved.annotators:
        annotator.load()
    with tempfile.TemporaryDirectory(dir=Path(job.output).parent) as scratch:
        store = Store(scratch)
        for number, file in enumerate(job.files):
            batches = list(_batches(file, ["id", "text"]))
            text_bytes += sum(_size(batch.column("text")) for batch in batches)
            for annotator in resolved.annotators:
                _write_annotations(store, str(number), annotator, batches, watch=watch)
            _write_tokens(store, str(number), resolved.tokenizer, batches, watch=watch)
    return {"seconds": watch.seconds, "text_bytes": text_bytes}


def _write_annotations(
    store: Any, partition: str, annotator: Any, batches: Sequence[pa.RecordBatch], *, watch: Stopwatch
) -> None:
    from colophon.pipeline.stages.annotation import AnnotationFile, with_ids
    from colophon.shards.outputs import Output

    annotated = [with_ids(batch.column("id"), annotator.annotate(batch)) for batch in batches]
    output = Output.annotations(annotator.name)
    with (
        store.draft(output=output, partition=partition, suffix=output.suffix) as draft,
        AnnotationFile(draft, annotator.schema) as file,
        watch("annotations"),
    ):
        for batch in annotated:
            file.add(batch)
        rows = sum(batch.num_rows for batch in annotated)
        store.publish([file.finish("", rows=rows, problems=[], counts={}, content={})])


def _write_tokens(
    store: Any, partition: str, tokenizer: Any, batches: Sequence[pa.RecordBatch], *, watch: Stopwatch
) -> None:
    from colophon.shards.arrow_files import growing_table, read_table, tokens_table
    from colophon.shards.outputs import TOKENS
    from colophon.shards.schema import tokens_schema

    dtype = tokenizer.dtype
    tables = [tokens_table(b.column("id"), tokenizer.encode_batch(b.column("text")), dtype=dtype) for b in batches]
    with store.draft(output=TOKENS, partition=partition, suffix=TOKENS.suffix) as draft, watch("tokens"):
        with growing_table(draft.path, tokens_schema(dtype)) as add:
            for table in tables:
                add(table)
        rows = sum(table.num_rows for table in tables)
        store.publish([draft.finish(check=read_table, rows=rows, fingerprint="", counts={})])


def pack_layouts(job: Job) -> Result:
    """Measure packing in every layout, one file at a time: metadata (rendered, tokenized) and arranging apart."""
    resolved = _resolved(job, more=_LAYOUTS)
    topic = next(annotator for annotator in resolved.annotators if annotator.name == "topic")
    topic.load()
    _pack_file(job.files[0], resolved, topic, watch=Stopwatch())
    watch = Stopwatch()
    tokens: Counter[str] = Counter()
    for file in job.files:
        tokens.update(_pack_file(file, resolved, topic, watch=watch))
    total = tokens.pop("")
    return {"seconds": watch.seconds, "tokens": total, "packed_tokens": dict(tokens)}


def _pack_file(file: str, resolved: Any, topic: Any, *, watch: Stopwatch) -> dict[str, int]:
    """Return the number of tokens by layout; the empty name has the tokens of the texts alone."""
    from colophon.shards.arrow_files import list_chunks
    from colophon.shards.metadata import document_metadata
    from colophon.shards.packing.pack import pack

    tokenizer, recipe = resolved.tokenizer, resolved.recipe
    available = [name for name in ("id", "text", "url") if name in pq.read_schema(file).names]
    batches = list(_batches(file, available))
    table = pa.Table.from_batches(batches)
    input_ids = pa.chunked_array([tokenizer.encode_batch(batch.column("text")) for batch in batches])
    topics = pa.Table.from_batches([topic.annotate(batch) for batch in batches])["topic"].combine_chunks()
    columns = {"topic": topics, "url": _column(table, "url")}
    ids, (offsets, chunks) = _column(table, "id"), list_chunks(input_ids)
    tokens = {"": int(offsets[-1])}
    for name, layout in recipe.layouts.items():
        fields = {field: columns[field] for field in layout.fields}
        with watch(f"{name}_metadata"):
            metadata = document_metadata(layout, ids=ids, columns=fields, tokenizer=tokenizer, seed=0)
        with watch(name):
            packed = pack(
                layout,
                text_offsets=offsets,
                text_ids=chunks,
                metadata=metadata,
                special=tokenizer.special,
                sequence_length=recipe.pack.sequence_length,
            )
        tokens[name] = int(packed.input_ids.size)
    return tokens


def _column(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks() if name in table.column_names else pa.nulls(table.num_rows, pa.string())


def _resolved(job: Job, *, more: str = "") -> Any:
    from colophon.pipeline.recipe.loading import load_recipe
    from colophon.pipeline.runs.resolve import resolve

    recipe = write_recipe(job, more=more)
    return resolve(load_recipe(str(recipe)), where=str(recipe))


def _batches(file: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file) as parquet:
        yield from parquet.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False)


def _texts(job: Job, *, megabytes: float | None = None) -> Iterator[pa.Array]:
    """Yield texts of the input, 1,024 at a time, up to `megabytes`."""
    left = float("inf") if megabytes is None else megabytes * 1e6
    for file in job.files:
        for batch in _batches(file, ["text"]):
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
