"""A worker's memory does not grow with the file: neither a row group nor a partition is ever whole in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.executors.environment import WORKER_ENVIRONMENT
from tests.pipeline.small_run import write_small_run

ROOT = Path(__file__).parents[3]
TEXT_BYTES = 250_000_000
OWN_BYTES = 330_000_000
"""For a whole process: 70 MB of interpreter and libraries, the vocabulary, batches of which one holds 15 MB."""
LONG_TEXT_BYTES = 5_000_000

# Run apart, because the peak of a process is looked at: the passes as in a worker, with an annotator that reads texts.
MEASURE = """
import sys
import pyarrow as pa, pyarrow.compute as pc
from colophon.annotators.base import Annotator
from colophon.pipeline.runs.resolve import resolve
from colophon.pipeline.recipe.loading import load_recipe
from tests.pipeline.executors.memory import one_thread_a_library, pass_peaks

class Length(Annotator):
    name, columns, settings = "length", ("text",), {}
    schema = pa.schema([("length", pa.int32())])

    def annotate(self, batch):
        return pa.RecordBatch.from_arrays([pc.binary_length(batch.column("text")).cast(pa.int32())], schema=self.schema)

if __name__ == "__main__":
    import __main__
    sys.modules["measure"] = __main__
    Length.__module__ = "measure"
    one_thread_a_library()
    resolved = resolve(load_recipe(sys.argv[1], overrides=sys.argv[2:]), where="test")
    resolved = resolved.with_annotators([Length(), *resolved.annotators])
    for title, peak, text_bytes, _ in pass_peaks(resolved):
        print(title, peak.anonymous, text_bytes, sep=chr(9))
"""


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured through Linux's smaps_rollup"
)
@pytest.mark.parametrize(
    "row_group_rows",
    [
        pytest.param(None, id="one row group"),
        pytest.param(1000, id="one partition of many row groups", marks=pytest.mark.slow),
    ],
)
def test_a_worker_holds_neither_a_row_group_nor_a_partition(tmp_path: Path, row_group_rows: int | None) -> None:
    recipe = write_small_run(tmp_path / "run", num_files=1)
    recipe.write_text(recipe.read_text().partition("[layouts.append-host]")[0])
    data = tmp_path / "large.parquet"
    write_large_file(data, row_group_rows=row_group_rows)
    peaks = measured(recipe, f'input.paths="{data}"', "input.partition_bytes=1000000000", "pack.sequence_length=2048")
    assert {title: text for title, (_, text) in peaks.items()} == dict.fromkeys(
        ("annotate, tokenize", "pack"), pytest.approx(TEXT_BYTES, rel=0.05)
    )
    assert {title: peak for title, (peak, _) in peaks.items() if peak > OWN_BYTES} == {}


def measured(recipe: Path, *settings: str) -> dict[str, tuple[int, int]]:
    """Return, by pass, the peak of the process's own memory and the bytes of text of the pass."""
    command = [sys.executable, "-c", MEASURE, str(recipe), *settings]
    environment = os.environ | WORKER_ENVIRONMENT
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split(chr(9)) for line in done.stdout.splitlines()]
    return {title: (int(peak), int(text)) for title, peak, text in lines}


def write_large_file(path: Path, *, row_group_rows: int | None) -> None:
    """250 MB of words; three documents of 5 MB on one line stand next to each other among short ones."""
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, n, dtype=np.uint8)).decode() for n in rng.integers(2, 11, 5000)]
    line = " ".join(rng.choice(words, 1_500_000))[: LONG_TEXT_BYTES + 1_000_000]
    starts = rng.integers(0, LONG_TEXT_BYTES, TEXT_BYTES // 4000)
    lengths = rng.integers(100, 7600, len(starts))
    texts = [line[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    texts[1000:1003] = [line[start : start + LONG_TEXT_BYTES] for start in (0, 1000, 5000)]
    table = pa.table({"text": texts, "url": [f"https://example.org/{i}" for i in range(len(texts))]})
    table = table.append_column("dump", pa.array(["CC-MAIN-2020-05"] * len(texts)))
    pq.write_table(table, path, row_group_size=row_group_rows or len(texts), compression="zstd")
