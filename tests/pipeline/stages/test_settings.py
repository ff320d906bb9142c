"""The settings of outputs: their keys are part of every fingerprint, and reading one reads nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from colophon.pipeline.errors import UsageError
from colophon.shards.common.digests import fingerprint
from colophon.shards.outputs import TOKENS, Output
from tests.pipeline.project import LAYOUTS, resolved_recipe

ANNOTATORS = ("url", "crawl", "edu_score")


def test_every_output_has_settings_and_their_fingerprint(project: Path) -> None:
    settings = resolved_recipe().settings
    outputs = [*map(Output.annotations, ANNOTATORS), TOKENS, *map(Output.packed, LAYOUTS)]
    assert list(settings.by_output) == outputs
    assert settings.fingerprints == {output: fingerprint(settings.of(output)) for output in outputs}


def test_their_keys_are_those_of_all_earlier_runs(project: Path) -> None:
    settings = resolved_recipe("input.columns.dump=crawl").settings
    crawl = settings.of(Output.annotations("crawl"))
    assert list(crawl) == ["annotator", "columns"]
    assert crawl["columns"] == {"dump": "crawl"}
    assert settings.of(TOKENS)["columns"] == {"text": "text", "id": "id"}
    assert list(settings.of(TOKENS)) == ["tokenizer", "columns"]
    for layout in LAYOUTS:
        assert list(settings.of(Output.packed(layout))) == ["layout", "pack", "tokenizer", "format_version"]


def test_annotations_need_no_vocabulary(project: Path) -> None:
    settings = resolved_recipe().settings
    Path("small.tiktoken").unlink()
    assert settings.of(Output.annotations("url"))["annotator"]
    with pytest.raises(UsageError, match=r"recipe\.toml: tokenizer: "):
        settings.of(TOKENS)


def test_without_a_tokenizer_there_are_only_annotations(project: Path) -> None:
    recipe = Path("recipe.toml").read_text().partition("[tokenizer]")[0]
    Path("recipe.toml").write_text(recipe)
    assert list(resolved_recipe().settings.by_output) == [*map(Output.annotations, ANNOTATORS)]
