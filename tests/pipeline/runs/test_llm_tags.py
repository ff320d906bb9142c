"""`llm_tags` in runs: budgets that resume, commands that send nothing, and what a run refuses before it starts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.chat_server import ChatServer, chat_server, completion
from tests.pipeline.project import Called, colophon, manifest, run, snapshot, write_documents, write_json_lines

TAGS = """
[annotators.tags]
type = "llm_tags"
endpoint = "{endpoint}"
model = "small"
cache = "replies"
{keys}

[layouts.tags]
position = "prepend"
template = "{{tags_topic}}, {{tags_format}}"
max_metadata_tokens = 24
"""
_HEAD = """
[input]
paths = ["data/*"]
partition_bytes = 7000
[output]
path = "out"
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.chdir(tmp_path)
    write_documents(Path("data/a.parquet"), range(60))
    with chat_server(lambda one: completion({"topic": f"topic {len(one.prompt)}", "format": "list"})) as running:
        yield running


def write_recipe(server: ChatServer, keys: str = "") -> None:
    Path("recipe.toml").write_text(_HEAD + TAGS.format(endpoint=server.endpoint, keys=keys).partition("[layouts")[0])


def annotate(*words: str) -> Called:
    return colophon("annotate", "recipe.toml", "--executor", "inline", *words)


def statuses() -> Counter[str | None]:
    records = manifest().outputs["annotations/tags"].records
    tables = [pq.read_table(Path("out", record.path)) for record in records]
    return Counter(value for table in tables for value in table["tags_status"].to_pylist())


def test_a_spent_budget_ends_the_run_with_one_line_and_a_larger_one_resumes_it(server: ChatServer) -> None:
    write_recipe(server, "max_requests = 30")
    called = annotate()
    assert called.code == 1
    assert called.line.startswith("annotators.tags: max_requests = 30 is spent: 30 requests and 3,300 tokens ")
    assert len(server.received) == 30
    committed = {path: path.stat().st_mtime_ns for path in Path("out/annotations/tags").rglob("*.parquet")}
    assert committed
    called = annotate("--set", "annotators.tags.max_requests=500")
    assert (called.code, called.err) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in committed} == committed
    assert len(server.received) == len(set(server.prompts)) == statuses()["answered"]
    before = len(server.received)
    assert annotate("--rebuild", "--set", "annotators.tags.max_chars=6001").code == 0
    assert len(server.received) == before, "texts that are cut at the same place are not sent again"


@pytest.mark.parametrize("sample", ["0.5", "30"], ids=["a share", "a number, which is calibrated"])
def test_commands_that_look_send_nothing(server: ChatServer, sample: str) -> None:
    write_recipe(server, f"prices = [0.5, 2.0]\nsample = {sample}\nmax_requests = 10\nconcurrency = 5")
    before = snapshot()
    called = annotate("--dry-run", "--set", "ray.num_workers=1")
    assert (called.code, called.err) == (0, "")
    line = f"annotators.tags: at most about 30 requests to {server.endpoint}, "
    assert line in called.out
    assert "tokens, 0:12 of waiting, price 0.0" in called.out
    assert "annotators.tags: max_requests = 10 leaves 10 requests" in called.out
    planned = json.loads(annotate("--dry-run", "--json").out)["estimate"]
    assert planned["requests"][0]["requests"] == 30
    assert (snapshot(), server.received) == (before, [])
    write_recipe(server, f"sample = {sample}")
    assert annotate().code == 0
    called = annotate("--dry-run", "--rebuild", "--set", "annotators.tags.seed=1")
    sent = len(server.received)
    assert f"({sent:,} earlier requests)" in called.out
    for words in (["verify", "recipe.toml", "--deep", "--executor", "inline"], ["status", "recipe.toml"]):
        called = colophon(*words)
        assert (called.code, called.err) == (0, ""), called.out
    assert len(server.received) == sent


def test_a_layout_shows_the_answers(project: Path) -> None:
    with chat_server() as server:
        recipe = Path("recipe.toml")
        recipe.write_text(recipe.read_text() + TAGS.format(endpoint=server.endpoint, keys="sample = 0.3"))
        called = run()
        assert (called.code, called.err) == (0, "")
        assert f"annotators.tags: sends a sample (0.3) of the documents to small at {server.endpoint}" in called.out
        called = colophon("annotate", "recipe.toml", "--executor", "inline", "--set", 'annotators.more={type="pii"}')
        assert called.code == 0
        assert "sends" not in called.out, "the other annotator alone has work"
    assert statuses()[None] > 100
    assert statuses()["answered"] == len(server.received) > 30
    assert set(manifest().outputs) >= {"annotations/tags", "packed/tags"}


def test_a_sample_of_a_number_of_documents_keeps_its_share_when_input_is_added(server: ChatServer) -> None:
    write_json_lines(Path("data/b.jsonl"), [{"text": f"line {number} of JSON"} for number in range(60)])
    write_recipe(server, "sample = 40")
    called = annotate()
    assert (called.code, called.err) == (0, "")
    assert "annotators.tags: the input has about 120 documents" in called.out
    stored = json.loads(Path("out/calibration/tags.json").read_text())["calibration"]
    assert stored == {"num_documents": 120}
    assert 20 <= len(server.received) <= 60
    write_documents(Path("data/c.parquet"), range(60, 120))
    called = annotate()
    assert (called.code, called.err) == (0, "")
    assert "about" not in called.out.partition("annotate")[0]
    assert json.loads(Path("out/calibration/tags.json").read_text())["calibration"] == stored


def test_a_missing_key_is_found_before_anything_is_written(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOPBACK_KEY", raising=False)
    write_recipe(server, 'key_variable = "LOOPBACK_KEY"')
    called = annotate()
    assert called.code == 2
    assert called.line == (
        "annotators.tags.key_variable: LOOPBACK_KEY is not set in the environment of the process that annotates"
    )
    assert not list(Path("out").rglob("*.parquet"))
    monkeypatch.setenv("LOOPBACK_KEY", "sk-loopback-0123456789")
    assert annotate().code == 0
    written = [path for path in Path().rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not any(b"sk-loopback" in path.read_bytes() for path in written)
