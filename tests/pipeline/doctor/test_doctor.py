"""`colophon doctor`: what works is found to work, what is broken is named with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colophon.pipeline.doctor import installation
from colophon.pipeline.doctor.check import Finding, findings
from colophon.shards.common.errors import ColophonError
from tests.pipeline.project import colophon

SLOW = ("--skip", "workers", "--skip", "ray", "--skip", "gpu", "--skip", "fasttext")


def checks(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code and the findings by name."""
    called = colophon("doctor", *arguments, *SLOW, "--json")
    assert called.err == ""
    result = json.loads(called.out)
    assert result["ok"] == (called.code == 0)
    return called.code, {check["name"]: check for check in result["checks"]}


def test_fasttext_scores_as_its_library_does() -> None:
    assert installation.check_fasttext().state == "ok"


def test_scores_that_differ_are_a_failure_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_library_probabilities", lambda path, texts, labels: np.zeros((12, 2)))
    found = installation.check_fasttext()
    assert found.state == "failed"
    assert "differ from the library's by" in found.found
    assert found.remedy


def test_libraries_that_are_missing_or_too_old_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installation.check_libraries().state == "ok"
    wanted = ["no-such-library-at-all>=1", "numpy<1", "torch; extra == 'never'"]
    monkeypatch.setattr(installation, "requires", lambda name: wanted)
    found = installation.check_libraries()
    assert found.state == "failed"
    assert "no-such-library-at-all is missing; numpy is " in found.found
    assert "torch" not in found.found


def test_a_recipe_is_checked_on_this_machine(project: Path) -> None:
    code, found = checks("recipe.toml")
    assert code == 0
    assert {name: check["state"] for name, check in found.items()} == {
        **dict.fromkeys(("libraries", "cache", "tokenizer", "input", "disk", "memory"), "ok"),
        **dict.fromkeys(("fasttext", "workers", "ray", "gpu"), "skipped"),
    }
    assert "small" in found["tokenizer"]["found"]
    assert "ids checked against tiktoken" in found["tokenizer"]["found"]
    assert found["input"]["found"].startswith("3 files, ")
    assert not Path("out").exists()


def test_a_missing_model_is_a_finding_beside_the_others(project: Path) -> None:
    model = "annotators.quality={type='fasttext', model='missing.bin', score={probability_of='high'}}"
    code, found = checks("recipe.toml", "--set", model)
    assert code == 1
    assert found["recipe"]["state"] == "failed"
    assert "missing.bin" in found["recipe"]["found"]
    assert found["libraries"]["state"] == "ok"


def test_lines_for_people_name_state_check_and_remedy(project: Path) -> None:
    called = colophon("doctor", "recipe.toml", "--set", "ray.num_workers=1000000", *SLOW)
    assert (called.code, called.err) == (1, "")
    lines = called.out.splitlines()
    assert lines[0].startswith("ok      libraries    Python 3.")
    assert any(line.startswith("failed  memory       1000000 workers of ") for line in lines)
    assert any(line.strip().startswith("-> --set ray.num_workers=") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--skip", "tokeniser"),
            "--skip tokeniser: unknown check; available: libraries, cache, ",
        ),
        (("missing.toml",), "no recipe file missing.toml; bundled recipes: "),
    ],
)
def test_an_unknown_check_or_recipe_is_one_line(project: Path, arguments: tuple[str, ...], message: str) -> None:
    called = colophon("doctor", *arguments)
    assert called.code == 2
    assert called.line.startswith(message)


def test_a_check_that_raises_does_not_end_the_others() -> None:
    def broken() -> Finding:
        raise ImportError("libfoo.so: cannot open")

    def refused() -> Finding:
        raise ColophonError("no answer")

    found = list(findings({"a": broken, "b": refused, "c": installation.check_cache}, skip=[]))
    assert [(one.name, one.state) for one in found] == [("a", "failed"), ("b", "failed"), ("cache", "ok")]
    assert [one.found for one in found[:2]] == ["ImportError: libfoo.so: cannot open", "no answer"]
