"""A small run of all stages for tests, which write its input, tokenizer and recipe."""

from __future__ import annotations

import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from colophon.pipeline.executors.base import Executor
from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.resolve import resolve
from colophon.pipeline.runs.run import Run

RECIPE = """
[input]
paths = ["{root}/data/*.parquet"]
partition_bytes = 4000
[output]
path = "{root}/out"
[annotators.url]
[annotators.crawl]
[tokenizer]
path = "{root}/bytes.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 160
[layouts.plain]
position = "plain"
[layouts.prepend-url]
position = "prepend"
template = "{{url}}"
[layouts.append-host]
position = "append"
template = "{{url_host}} {{crawl_year}}"
[layouts.meta-tokens]
position = "meta_tokens"
"""


def write_small_run(root: Path, *, num_files: int = 3, num_documents: int = 60) -> Path:
    """Write `data/*.parquet`, a tokenizer of the 256 bytes, and the recipe whose path is returned."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "data").mkdir()
    for file in range(num_files):
        numbers = range(file * num_documents, (file + 1) * num_documents)
        table = pa.table(
            {
                "text": [f"Document {i}. " + "Größe und Länge. " * (i % 17) for i in numbers],
                "id": [f"<{i}>" for i in numbers],
                "url": [f"https://site{i % 7}.example.org/page/{i}" for i in numbers],
                "dump": [f"CC-MAIN-20{13 + i % 10}-05" for i in numbers],
            }
        )
        pq.write_table(table, root / "data" / f"part-{file}.parquet", row_group_size=20)
    lines = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
    (root / "bytes.tiktoken").write_text("".join(lines))
    recipe = root / "recipe.toml"
    recipe.write_text(RECIPE.format(root=root))
    return recipe


def run_recipe(recipe: Path, *, output: Path, executor: Executor | None = None) -> dict[str, str]:
    """Run all stages; sha256 of every committed file by its path."""
    resolved = resolve(load_recipe(str(recipe), overrides=[f'output.path="{output}"']), where=str(recipe))
    with (output.parent / f"{output.name}.log").open("w") as log:
        run = Run(resolved, executor=executor or InlineExecutor(), console=Console(file=log))
        result = run.execute()
    outputs = result.manifest.outputs.values()
    return {record.path: record.sha256 for output in outputs for record in output.records}
