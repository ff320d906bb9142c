"""Measures what a run costs beside time: bytes, files and requests, each by what it grows with.

Everything is counted on real runs in this process, so that a busy machine changes nothing; of times there is only the
CPU time of packing and of a partition without work.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

import colophon
from benchmarks.machine import machine
from benchmarks.summary import Spread, interleaved
from benchmarks.workload import SMALL, text_bytes_of, train

LAYOUTS = {
    "plain": '{ position = "plain" }',
    "prepend-url": '{ position = "prepend", template = "{url}" }',
    "append-topic": '{ position = "append", template = "{topic}" }',
    "meta-tokens": '{ position = "meta_tokens" }',
}
ANNOTATORS = ("url", "crawl", "quality", "topic")
SEQUENCE_LENGTH = 4096
MIB = 1 << 20
_PARTITION_BYTES = (16 * MIB, 2 * MIB)
_EMPTY_PARTITIONS = (20, 100)
_REQUEST_PARTITIONS = (4, 16)
_ROUNDS = 3
_RECIPE = """
[input]
paths = {paths}
partition_bytes = {partition_bytes}
[output]
path = "{output}"
[annotators.url]
[annotators.crawl]
[annotators.quality]
type = "fasttext"
model = "{models}/quality.bin"
score = {{ argmax = true }}
[annotators.topic]
type = "fasttext"
model = "{models}/topic.bin"
score = {{ argmax = true }}
[tokenizer]
name = "tekken"
[pack]
sequence_length = {sequence_length}
[layouts]
{layouts}
"""


def measure(files: Sequence[Path], *, work: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Measure all of it on these Parquet files of text; writes below `work`, which is replaced."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name in ("quality", "topic"):
        train(name, [str(file) for file in files[:1]], work / f"{name}.bin", SMALL)
    log("sizes")
    sizes = _sizes(files, work)
    log("packing")
    packing = _packing(files, work)
    log("partitions")
    return {
        "format": 1,
        "method": __doc__,
        "machine": machine(),
        "rounds": _ROUNDS,
        "input": {"files": len(files), "documents": _documents(files), "text_bytes": sum(map(text_bytes_of, files))},
        "sequence_length": SEQUENCE_LENGTH,
        **sizes,
        "pack_cpu_seconds_per_million_tokens": packing,
        "cpu_seconds_per_partition": _cpu_per_partition(work),
        "requests_per_partition": _requests(work),
    }


def _sizes(files: Sequence[Path], work: Path) -> dict[str, Any]:
    """Run all stages with two sizes of partitions: the same data, and files and bytes that grow with partitions."""
    counted = []
    for partition_bytes in _PARTITION_BYTES:
        output = work / f"out-{partition_bytes}"
        _run(_recipe(work, files, output=output, partition_bytes=partition_bytes))
        counted.append(_count(output))
    few, many = counted
    partitions = many["partitions"] - few["partitions"]
    tokens = _tokens(work / f"out-{_PARTITION_BYTES[0]}")
    documents = _documents(files)
    return {
        "tokens": tokens,
        "bytes_per_document": {name: few["bytes"][f"annotations/{name}"] / documents for name in ANNOTATORS},
        "bytes_per_token": {
            "tokens": few["bytes"]["tokens"] / tokens,
            **{name: few["bytes"][f"packed/{name}"] / tokens for name in LAYOUTS},
        },
        "files_per_partition": (many["files"] - few["files"]) / partitions,
        "state_bytes_per_partition": (many["state"] - few["state"]) / partitions,
    }


def _count(output: Path) -> dict[str, Any]:
    """Count files, the bytes of each output, and those of all else: records, the manifest, the report."""
    files = [path for path in output.rglob("*") if path.is_file()]
    data: dict[str, int] = {}
    for path in files:
        place = path.relative_to(output).parts
        if place[0] in ("annotations", "tokens", "packed") and path.suffix in (".parquet", ".arrow"):
            name = "tokens" if place[0] == "tokens" else "/".join(place[:2])
            data[name] = data.get(name, 0) + path.stat().st_size
    return {
        "partitions": len(list((output / "tokens").rglob("*.arrow"))),
        "files": len(files),
        "bytes": data,
        "state": sum(path.stat().st_size for path in files) - sum(data.values()),
    }


def _packing(files: Sequence[Path], work: Path) -> dict[str, dict[str, Any]]:
    """CPU seconds of packing a million tokens, by layout: the same run with and without work, in turn."""
    output = work / f"out-{_PARTITION_BYTES[0]}"
    tokens = _tokens(output)
    found: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    for turn, name in interleaved(list(LAYOUTS), rounds=_ROUNDS):
        recipe = _recipe(work, files, output=output, layouts=[name], overrides=[f"pack.seed={turn + 1}"])
        packed, nothing = (_cpu(partial(_run, recipe)) for _ in range(2))
        found[name].append((packed - nothing) / tokens * 1e6)
    return {name: Spread.of(values).as_dict() for name, values in found.items()}


def _cpu_per_partition(work: Path) -> dict[str, Any]:
    """CPU seconds of a partition of one short document, from runs of few and of many."""
    found = []
    for turn in range(_ROUNDS):
        seconds = []
        for count in _EMPTY_PARTITIONS:
            directory = work / f"small-{count}"
            _write_small(directory, count)
            recipe = _recipe(work, [directory], output=work / f"small-out-{turn}-{count}")
            seconds.append(_cpu(partial(_run, recipe)))
        found.append((seconds[1] - seconds[0]) / (_EMPTY_PARTITIONS[1] - _EMPTY_PARTITIONS[0]))
    return Spread.of(found).as_dict()


def _requests(work: Path) -> dict[str, float]:
    """Requests of a partition to an S3 that this process runs, of a first run and of one that finds all done."""
    totals = []
    for count in _REQUEST_PARTITIONS:
        directory = work / f"requested-{count}"
        _write_small(directory, count)
        with _counted_s3() as requests:
            recipe = _recipe(work, [directory], output="s3://bucket/out")
            _run(recipe)
            first = requests()
            _run(recipe)
            totals.append((first, requests() - first))
    (few, few_again), (many, many_again) = totals
    partitions = _REQUEST_PARTITIONS[1] - _REQUEST_PARTITIONS[0]
    return {"first_run": (many - few) / partitions, "nothing_to_do": (many_again - few_again) / partitions}


@contextmanager
def _counted_s3() -> Iterator[Callable[[], int]]:
    import fsspec

    from tests.pipeline.servers import proxy_before, s3_environment, s3_server

    with s3_server() as server, proxy_before(server) as proxy, s3_environment(proxy.address):
        fsspec.filesystem("s3").mkdir("bucket")
        proxy.reset()

        def counted() -> int:
            """The requests but those of the lock's beats, of three each, which come with time."""
            beats = sum(method == "HEAD" and path.endswith("/.lock") for method, path in proxy.requests)
            return len(proxy.requests) - 3 * beats

        yield counted


def _recipe(
    work: Path,
    files: Sequence[Path],
    *,
    output: Path | str,
    partition_bytes: int = _PARTITION_BYTES[0],
    layouts: Sequence[str] = tuple(LAYOUTS),
    overrides: Sequence[str] = (),
) -> Any:
    path = work / "recipe.toml"
    tables = "\n".join(f"{name} = {LAYOUTS[name]}" for name in layouts)
    paths = json.dumps([str(file.absolute()) for file in files])
    text = _RECIPE.format(
        paths=paths,
        partition_bytes=partition_bytes,
        output=output,
        models=work.absolute(),
        sequence_length=SEQUENCE_LENGTH,
        layouts=tables,
    )
    path.write_text(text, encoding="utf-8")
    return colophon.load_recipe(str(path), overrides=overrides)


def _run(recipe: Any) -> None:
    colophon.run(recipe, executor="inline", rebuild=True)


def _write_small(directory: Path, count: int) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(count):
        line = json.dumps({"text": f"Document {number}.", "id": str(number), "url": "https://example.org/", "dump": ""})
        (directory / f"{number:05}.jsonl").write_text(line + "\n", encoding="utf-8")


def _cpu(work: Callable[[], None]) -> float:
    def now() -> float:
        times = os.times()
        return time.process_time() + times.children_user + times.children_system

    begin = now()
    work()
    return now() - begin


def _tokens(output: Path) -> int:
    lengths = colophon.open(output).tokens().select(pl.col("input_ids").list.len().cast(pl.Int64).sum())
    return int(lengths.collect().item())


def _documents(files: Sequence[Path]) -> int:
    return sum(pq.read_metadata(file).num_rows for file in files)
