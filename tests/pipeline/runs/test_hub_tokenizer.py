"""A run with a tokenizer of the Hugging Face Hub, from a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.project import colophon, hashes, manifest, run, snapshot
from tests.pipeline.servers import ModelHub, model_hub_serving, use_model_hub
from tests.shards.tokenizer.vocabularies import edit_json, write_byte_level_json


@pytest.fixture
def hub(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    """A hub with `org/model`; the project's recipe names it."""
    recipe = Path("recipe.toml").read_text()
    named = 'name = "hf:org/model"\n'
    Path("recipe.toml").write_text(recipe.replace('path = "small.tiktoken"\npattern = "gpt2"\n', named))
    files = {"tokenizer.json": write_byte_level_json(Path("tokenizer.json")).read_bytes()}
    with model_hub_serving(ModelHub({"org/model": files})) as hub:
        use_model_hub(hub.address, project / "hub", monkeypatch)
        yield hub


def test_a_run_names_the_commit_and_depends_on_the_content_alone(hub: ModelHub) -> None:
    commit = f"tokenizer org/model: hf:org/model@{hub.commit('org/model')}"
    planned = colophon("run", "recipe.toml", "--dry-run", "--no-probe")
    assert commit in planned.out.splitlines()
    assert not Path("out").exists()
    called = run()
    assert (called.code, called.err) == (0, "")
    assert commit in called.out
    assert manifest().outputs["tokens"].settings["tokenizer"]["name"] == "org/model"

    first, files = hashes(manifest()), snapshot(Path("out/tokens"))
    hub.repositories["org/model"]["README.md"] = b"a commit that changes no token"
    again = run()
    assert again.code == 0
    assert f"hf:org/model@{hub.commit('org/model')}" in again.out
    assert (hashes(manifest()), snapshot(Path("out/tokens"))) == (first, files)

    edit_json(Path("tokenizer.json"), normalizer={"type": "NFC"})
    hub.repositories["org/model"] = {"tokenizer.json": Path("tokenizer.json").read_bytes()}
    assert "out/tokens was written with other settings: tokenizer.sha256" in run().line


def test_an_output_does_not_choose_what_is_downloaded(hub: ModelHub) -> None:
    assert run().code == 0
    hub.requests.clear()
    called = colophon("report", "out")
    assert called.code == 0
    assert hub.requests == []
    assert "tokenizer hf:org/model may have to be downloaded" in Path("out/report/report.html").read_text()


def test_a_repository_that_is_missing_is_one_line_and_nothing_is_written(hub: ModelHub) -> None:
    hub.repositories.clear()
    for arguments in ([], ["--dry-run"], ["--dry-run", "--json"]):
        called = colophon("run", "recipe.toml", "--executor", "inline", *arguments)
        assert called.code == 2
        assert called.line.startswith("recipe.toml: tokenizer: hf:org/model: the Hub has no such repository")
    assert not Path("out").exists()
    assert json.dumps(hub.requests).count("/api/models/org/model") == 3
