"""datatrove: ParquetReader → two FastTextClassifierFilters → ParquetWriter (scores) → DocumentTokenizer.

Source: the README (LocalPipelineExecutor with more tasks than workers; readers, filters and writers as blocks) and
the docstrings of the blocks. Where they fail as written, this script changes as little as possible, in their favour:

- `FastTextClassifierFilter` without labels to keep crashes in its annotate-only mode: one label is kept from a
  probability of 0 on, which keeps every document.
- Its default removes newlines, which joins words: `newline_replacement=" "`.
- It requires the distribution `fasttext-numpy2-wheel`, which would overwrite the module `fasttext` of the other
  contestants: the library itself (0.9.3, built on this machine) is accepted, so that all run the same code.
- It calls `predict` of that library, which raises on numpy 2 (`np.array(..., copy=False)`): replaced by the same code
  with `np.asarray`.
- Only the columns `id` and `text` are read, and only ids and scores are written beside the tokens.
- `shuffle_documents=False`: the other contestants shuffle nothing.
- The model files are in datatrove's asset cache before the timed runs (the filter copies them there at first use).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fasttext.FastText
import numpy as np
from datatrove.pipeline.filters import FastTextClassifierFilter

from benchmarks.job import Job, job_of_command_line

_TASKS_PER_WORKER = 2


def _predict(self: Any, text: str, k: int = 1, threshold: float = 0.0, on_unicode_error: str = "strict") -> Any:
    """Do what `_FastText.predict` does for one line; numpy 2 refuses the last line of the library's version."""
    if "\n" in text:
        raise ValueError("predict processes one line at a time")
    predictions = self.f.predict(text + "\n", k, threshold, on_unicode_error)
    probabilities, labels = zip(*predictions, strict=True) if predictions else ((), ())
    return labels, np.asarray(probabilities)


# Workers import this module as their main module, so the fix applies to them too.
fasttext.FastText._FastText.predict = _predict
FastTextClassifierFilter._requires_dependencies = ["fasttext", "fasteners"]


class ScoresOnly:
    """Return the fields to write for a document: its id and scores. Picklable, for the workers."""

    def __init__(self, job: Job) -> None:
        self._high = job.high
        self._topics = job.topic.labels

    def __call__(self, _: Any, document: Any) -> dict[str, Any]:
        """Return the row of the scores file; the first argument is the writer."""
        metadata = document.metadata
        topic = max(self._topics, key=metadata.__getitem__)
        row = {"id": document.id, "quality": metadata[self._high], "topic": topic, "topic_score": metadata[topic]}
        document.metadata = {}
        return row


def main() -> None:
    """Run the job of the command line."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import ParquetWriter

    job = job_of_command_line()
    output = Path(job.output)
    listing = output / "files.txt"
    listing.write_text("".join(f"{os.path.relpath(file, '/')}\n" for file in job.files), encoding="utf-8")
    tasks = min(_TASKS_PER_WORKER * job.workers, len(job.files))
    LocalPipelineExecutor(
        pipeline=[
            ParquetReader("/", paths_file=str(listing), read_metadata=False),
            *(
                FastTextClassifierFilter(
                    classifier.model,
                    keep_labels=[(classifier.labels[0].removeprefix("__label__"), 0.0)],
                    newline_replacement=" ",
                )
                for classifier in (job.quality, job.topic)
            ),
            ParquetWriter(str(output / "scores"), adapter=ScoresOnly(job)),
            DocumentTokenizer(
                str(output / "tokens"), tokenizer_name_or_path=job.vocabulary.huggingface, shuffle_documents=False
            ),
        ],
        tasks=tasks,
        workers=job.workers,
        logging_dir=str(output / "logs"),
    ).run()


if __name__ == "__main__":
    main()
