"""`--json`: every command that prints a result prints it as one JSON value too, with numbers as numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from colophon.pipeline import cli
from tests.pipeline.project import colophon, manifest, run

WITHOUT = {"submit", "lm-eval"}
"""They pass on the output of a different program."""


def test_every_command_that_prints_a_result_has_the_option() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    without = {name for name, c in commands.items() if all("--json" not in option.opts for option in c.params)}
    assert without == WITHOUT


def result_of(*arguments: str, code: int = 0) -> Any:
    called = colophon(*arguments, "--json")
    assert called.code == code, called.err
    return json.loads(called.out)


def test_a_run_prints_its_summary_and_its_progress_elsewhere(project: Path) -> None:
    called = run("--json")
    assert called.code == 0
    result = json.loads(called.out)
    assert (result["exit_code"], result["output"]) == (0, "out")
    assert result["documents"]["documents"] == 200
    assert result["layouts"]["plain"]["tokens"]["text"] > 0
    report = json.loads(Path("out/report/summary.json").read_text())
    assert {name: value for name, value in report.items() if name != "checksum"} == {
        name: value for name, value in result.items() if name not in ("exit_code", "output")
    }
    assert "annotate, tokenize: " in called.err
    described = {row["column"]: row for row in result["annotations"]}
    assert isinstance(described["crawl_year"]["frequent"][0]["share"], float)
    assert isinstance(described["quality_score" if "quality_score" in described else "url_domain"]["known"], float)


def test_a_plan_as_json(finished: Path) -> None:
    result = result_of("run", "recipe.toml", "--dry-run", "--no-probe")
    assert result["stages"]["pack"]["files"] == 0
    assert result["stages"]["pack"]["up_to_date"] == len(result["partitions"]) == len(manifest().partitions)
    assert result["recipe"]["pack"]["sequence_length"] == 64
    assert result["recipe"]["annotators"]["url"]["type"] == "url"
    assert result["estimate"]["available_bytes"] > 0


def test_documents_sequences_status_and_findings_as_json(finished: Path) -> None:
    document = result_of("inspect", "recipe.toml", "--document", "3")["document"]
    assert document["document"] == 3
    assert isinstance(document["tokens"], int)
    assert set(document["annotations"]) == {"url", "crawl", "edu_score"}
    sequence = result_of("inspect", "recipe.toml", "--layout", "prepend-url", "--tokens", "20")["sequence"]
    shown = sum(len(run["input_ids"]) for run in sequence["runs"])
    assert shown >= 20
    assert shown + sequence["tokens_left"] == sequence["tokens"] == 65
    assert {run["weight"] for run in sequence["runs"]} <= {0.0, 1.0}
    assert result_of("status", "recipe.toml")["outputs"]["tokens"]["missing"] == 0
    verified = result_of("verify", "recipe.toml")
    assert verified["findings"] == []
    assert verified["files"] > 0
    Path("out", manifest().outputs["tokens"].records[0].path).write_bytes(b"")
    assert result_of("verify", "recipe.toml", code=1)["findings"]


def test_an_export_as_json(finished: Path) -> None:
    result = result_of("export", "recipe.toml", "--to", "exported")
    assert result == {"path": "exported", "files": len(manifest().partitions), "quarantined_partitions": 0}


def test_an_error_prints_no_json(project: Path) -> None:
    called = colophon("run", "missing.toml", "--json")
    assert (called.code, called.out) == (2, "")
    assert called.line


@pytest.mark.parametrize("command", ["run", "pack"])
def test_options_that_are_mistyped_are_guessed(project: Path, command: str) -> None:
    called = colophon(command, "recipe.toml", "--rebild")
    assert called.code == 2
    assert "--rebuild" in called.err
