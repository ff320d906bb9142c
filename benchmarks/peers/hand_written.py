"""A hand-written script with two processes, fastText and tiktoken, as an engineer writes it in an afternoon.

Source: fastText's Python page (`load_model`, `predict`) and tiktoken's README (`Encoding` from ranks and pattern,
`encode_to_numpy`). `predict` of fasttext 0.9.3 raises on numpy 2, so the script calls the bound method beneath it, as
issues of both projects advise; that method needs the newline that `predict` adds. It asks for both labels of the
2-label model, and for the best label of the other.
Each process loads the models once; a file is read by row groups and written at the end.
"""

from __future__ import annotations

import base64
import multiprocessing
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tiktoken

from benchmarks.job import Job, job_of_command_line

_state: dict[str, Any] = {}


def start(job: Job) -> None:
    """Load models and vocabulary in a worker."""
    lines = (line.split() for line in Path(job.vocabulary.tiktoken).read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    _state["job"] = job
    _state["quality"] = fasttext.load_model(job.quality.model).f
    _state["topic"] = fasttext.load_model(job.topic.model).f
    _state["encoding"] = tiktoken.Encoding(
        "bench", pat_str=job.vocabulary.pattern, mergeable_ranks=ranks, special_tokens={}
    )


def work(file: str) -> int:
    """Score and tokenize one file; return the number of its documents."""
    job: Job = _state["job"]
    batches = []
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(columns=["id", "text"]):
            texts = batch.column("text").to_pylist()
            quality, topic, topic_score = score(texts, high=job.high)
            columns = [
                batch.column("id"),
                pa.array(quality, pa.float32()),
                pa.array(topic, pa.string()),
                pa.array(topic_score, pa.float32()),
                tokenize(texts, dtype=np.dtype(np.uint16 if job.vocabulary.num_ids <= 1 << 16 else np.uint32)),
            ]
            names = ["id", "quality", "topic", "topic_score", "input_ids"]
            batches.append(pa.RecordBatch.from_arrays(columns, names))
    table = pa.Table.from_batches(batches)
    path = Path(job.output) / f"{Path(file).stem}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return int(table.num_rows)


def score(texts: list[str], *, high: str) -> tuple[list[float], list[str], list[float]]:
    """Return the probability of `high`, the most probable topic, and its probability."""
    quality, topic, topic_score = [], [], []
    for text in texts:
        line = text.replace("\n", " ") + "\n"
        quality.append(next(p for p, label in _state["quality"].predict(line, 2, 0.0, "strict") if label == high))
        probability, label = _state["topic"].predict(line, 1, 0.0, "strict")[0]
        topic.append(label)
        topic_score.append(probability)
    return quality, topic, topic_score


def tokenize(texts: list[str], *, dtype: np.dtype[Any]) -> pa.ListArray:
    """Return the ids of each text as a list column."""
    rows = [_state["encoding"].encode_to_numpy(text, disallowed_special=()) for text in texts]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows).astype(dtype)))


def main() -> None:
    """Run the job of the command line."""
    job = job_of_command_line()
    with multiprocessing.get_context("spawn").Pool(job.workers, initializer=start, initargs=(job,)) as pool:
        documents = sum(pool.imap_unordered(work, job.files))
    print(f"{documents} documents")


if __name__ == "__main__":
    main()
