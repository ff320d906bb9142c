"""Ray Data: `read_parquet` → `map_batches` with two actors → `write_parquet`.

Source: Ray's guides "Transforming data" (a class whose `__init__` loads the model once per actor, `compute` an
`ActorPoolStrategy` of fixed size, `batch_format="pyarrow"` to avoid copies) and "Loading data" (`columns=` so that only
needed columns are read). Each actor requests half a CPU: on a machine with as many CPUs as actors, whole CPUs would
leave none for the reading tasks, and the job would never end. fastText and tiktoken as in `hand_written.py`.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from benchmarks.job import Job, job_of_command_line


class ScoreAndTokenize:
    """Applies both classifiers and the tokenizer to a batch."""

    def __init__(self, job: Job) -> None:
        import fasttext
        import tiktoken

        lines = (line.split() for line in Path(job.vocabulary.tiktoken).read_bytes().splitlines() if line)
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        self._high = job.high
        self._dtype = np.uint16 if job.vocabulary.num_ids <= 1 << 16 else np.uint32
        self._quality = fasttext.load_model(job.quality.model).f
        self._topic = fasttext.load_model(job.topic.model).f
        self._encoding = tiktoken.Encoding(
            "bench", pat_str=job.vocabulary.pattern, mergeable_ranks=ranks, special_tokens={}
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """`id` and `text` to `id`, `quality`, `topic`, `topic_score`, `input_ids`."""
        quality, topic, topic_score, rows = [], [], [], []
        for text in batch.column("text").to_pylist():
            line = text.replace("\n", " ") + "\n"
            quality.append(next(p for p, label in self._quality.predict(line, 2, 0.0, "strict") if label == self._high))
            probability, label = self._topic.predict(line, 1, 0.0, "strict")[0]
            topic.append(label)
            topic_score.append(probability)
            rows.append(self._encoding.encode_to_numpy(text, disallowed_special=()))
        columns: dict[str, Any] = {
            "id": batch.column("id"),
            "quality": pa.array(quality, pa.float32()),
            "topic": pa.array(topic, pa.string()),
            "topic_score": pa.array(topic_score, pa.float32()),
            "input_ids": self._lists(rows),
        }
        return pa.table(columns)

    def _lists(self, rows: list[Any]) -> pa.ListArray:
        offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows).astype(self._dtype)))


def main() -> None:
    """Run the job of the command line."""
    job = job_of_command_line()
    ray.init(num_cpus=job.workers, log_to_driver=False)
    documents = ray.data.read_parquet(list(job.files), columns=["id", "text"])
    scored = documents.map_batches(
        ScoreAndTokenize,
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(size=job.workers),
        batch_format="pyarrow",
        num_cpus=0.5,
    )
    scored.write_parquet(job.output)
    ray.shutdown()


if __name__ == "__main__":
    main()
