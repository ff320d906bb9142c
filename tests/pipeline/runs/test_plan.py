"""The plan: fingerprints of all partitions at once are those of one JSON list each."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.runs.plan import Plan
from colophon.shards.outputs import TOKENS, Output
from tests.pipeline.project import RECIPE, resolved_recipe, write_tokenizer

INPUTS = """
[[inputs]]
name = "web"
paths = ["web"]
partition_bytes = 1
[[inputs]]
name = "notes"
paths = ["notes/*"]
format = "text"
"""


def sha(value: object) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups, a cut and a whole JSONL file, CSV, and a text file whose name JSON escapes."""
    monkeypatch.chdir(tmp_path)
    Path("web").mkdir()
    row = {"text": "x" * 1000, "url": "u", "dump": "d", "score": 1.5}
    pq.write_table(pa.Table.from_pylist([row] * 3), "web/a.parquet", row_group_size=1)
    line = json.dumps(row) + "\n"
    Path("web/cut.jsonl").write_text(line * 600)
    Path("web/whole.jsonl").write_text(line)
    Path("web/b.csv").write_text("text,url,dump,score\na,b,c,1.5\n")
    Path("notes").mkdir()
    Path('notes/ü "q".txt').write_text("text")
    write_tokenizer(Path("small.tiktoken"))
    Path("recipe.toml").write_text(INPUTS + RECIPE[RECIPE.index("[output]") :])


def test_fingerprints_are_those_of_a_json_list_of_settings_extent_and_sources(inputs: None) -> None:
    plan = Plan(resolved_recipe())
    partitions = list(plan.resolved.inputs.partitions)
    assert [p.format for p in partitions] == ["parquet"] * 3 + ["csv"] + ["jsonl"] * 4 + ["text"]
    known: dict[Output, list[str]] = {}
    for output in (TOKENS, *map(Output.annotations, ("url", "crawl")), *map(Output.packed, ("plain", "prepend-url"))):
        expected = []
        for number, partition in enumerate(partitions):
            extent = [partition.identity, partition.row_groups, partition.first_row]
            if partition.format == "jsonl":
                extent.append("ids by line")
            if (piece := partition.piece) is not None:
                extent += [piece.number, piece.content_begin, piece.content_end]
            if partition.format == "text":
                extent.append(partition.source)
            settings = plan.resolved.settings.fingerprints_in_sources[output, partition.source_name]
            expected.append(sha([settings, extent, [known[source][number] for source in plan.upstream(output)]]))
        assert plan.fingerprints(output).to_pylist() == expected
        known[output] = expected
