"""`colophon trace` at the command line: its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

from colophon.shards.common.errors import ExitCode
from tests.pipeline.project import colophon

TINY = "{num_layers=1,hidden_size=16,ffn_size=16,num_heads=2,num_kv_heads=1}"
TRACE = ("trace", "recipe.toml", "--name", "tiny", "--step", "2")


def trained(**settings: object) -> None:
    """Train `tiny` for two steps of four rows."""
    values = {"model": TINY, "steps": 2, "batch_size": 4, "device": '"cpu"', **settings}
    options = [word for key, value in values.items() for word in ("--set", f"train.tiny.{key}={value}")]
    called = colophon("train", "recipe.toml", "--name", "tiny", *options)
    assert called.code == 0, called.err


def test_the_documents_of_an_update_as_json_and_as_a_table(finished: Path) -> None:
    trained(checkpoint_every=1)
    called = colophon(*TRACE, "--json")
    assert called.code == 0, called.err
    found = json.loads(called.out)
    update = [json.loads(line) for line in Path("out/training/tiny/metrics.jsonl").read_text().splitlines()]
    first, second = (one for one in update if "loss" in one)
    assert (found["step"], found["checkpoint"]) == (2, 1)
    assert found["text_tokens"] == second["text_tokens"] - first["text_tokens"]
    assert abs(found["text_loss"] - second["text_loss"]) < 1e-5
    losses = [one["text_loss"] for one in found["documents"]]
    assert losses == sorted(losses, reverse=True)

    called = colophon(*TRACE, "--column", "url_host", "--documents", "3")
    assert called.code == 0, called.err
    title, heading, *rows, more, about = called.out.splitlines()
    number = len(found["documents"])
    assert title == (
        f"step 2: {number:,} documents, {found['text_tokens']:,} text tokens, text loss {found['text_loss']:.4f}"
    )
    assert heading.split() == ["id", "loss", "tokens", "row", "partition", "url_host"]
    for row, one in zip(rows, found["documents"], strict=False):
        assert row.split()[1:4] == [f"{one['text_loss']:.4f}", str(one["text_tokens"]), str(one["row"])]
        assert row.split()[-1] == (one["annotations"]["url_host"] or "null")
    assert len(rows) == 3
    assert more == f"{number - 3} more documents: --documents {number} prints all"
    assert about == "losses of the update itself: the model after step 1"


def test_an_update_without_losses_and_what_is_refused(finished: Path) -> None:
    trained(checkpoint_every=0)
    called = colophon(*TRACE)
    assert called.code == 0, called.err
    assert called.out.splitlines()[-1] == "without losses: no checkpoint of this training is left"
    assert colophon(*TRACE, "--no-losses").out.splitlines()[-1] == "without losses: --no-losses"
    called = colophon(*TRACE, "--no-losses", "--column", "url_hots")
    assert called.code == ExitCode.USAGE
    assert called.line.startswith("--column: unknown column 'url_hots'; available: ")
    assert called.line.endswith("Did you mean 'url_host'?")
    assert colophon(*TRACE[:-1], "0").code == ExitCode.USAGE
    called = colophon(*TRACE[:-1], "3")
    assert called.code != 0
    assert called.line.endswith("no step 3; it has steps 1 to 2")
