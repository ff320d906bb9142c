from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from colophon.trainer.config import CurriculumConfig, PhaseConfig, RowWeightsConfig, SourceConfig, TrainConfig
from tests.pipeline.project import RECIPE, colophon, write_tokenizer
from tests.trainer.runs import TINY_MODEL, config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SOURCES = [{"layout": "b", "weight": 1}, {"layout": "a", "output": "elsewhere", "weight": 3}]


def test_the_layout_of_a_mixture_is_its_first_by_default() -> None:
    settings: dict[str, Any] = {"model": TINY_MODEL, "steps": 8, "sources": SOURCES}
    assert TrainConfig.model_validate(settings).layout == "b"
    assert TrainConfig.model_validate({**settings, "layout": "a"}).layout == "a"
    read_back = TrainConfig.model_validate_json(TrainConfig.model_validate(settings).model_dump_json())
    assert read_back == TrainConfig.model_validate(settings)
    with pytest.raises(ValidationError, match="layout\n  Field required"):
        TrainConfig.model_validate({**settings, "sources": []})


def test_a_curriculum_is_that_of_sources_without_their_own() -> None:
    own, shared = {"column": "own"}, {"column": "shared", "buckets": 3}
    sources = [{"layout": "a"}, {"layout": "b", "curriculum": own}]
    phases = [{"from_step": 3, "sources": sources}, {"from_step": 5, "layout": "c", "curriculum": shared}]
    made = config("a", sources=sources, phases=phases, curriculum=shared)

    def columns(part: Any) -> list[str | None]:
        return [source.curriculum and source.curriculum.column for source in part.mixed_sources]

    assert columns(made) == ["shared", "own"]
    assert [columns(phase) for phase in made.phases] == [[None, "own"], ["shared"]]


@pytest.mark.parametrize(
    ("phase", "steps", "first"),
    [
        ({"from_step": 2}, 8, 2),
        ({"from_step": 8}, 8, 8),
        ({"from_fraction": 0.9}, 1000, 901),
        ({"from_fraction": 0.5}, 7, 5),
        ({"from_fraction": 0.29}, 100, 30),
    ],
)
def test_where_a_phase_starts(phase: dict[str, Any], steps: int, first: int) -> None:
    assert config(steps=steps, phases=[{**phase, "layout": "plain"}]).phase_starts() == [first]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "c", "sources": SOURCES}, "layout 'c' is none of the sources'; available: b, a"),
        ({"sources": [SOURCES[0], {"layout": "a"}], "layout": "a"}, "sources: give all of them a weight, or none"),
        ({"phases": [{"layout": "b"}]}, "a phase has either from_step or from_fraction"),
        ({"phases": [{"layout": "b", "from_step": 2, "from_fraction": 0.5}]}, "either from_step or from_fraction"),
        ({"phases": [{"from_step": 2}]}, "a phase has either layout or sources"),
        ({"phases": [{"from_step": 2, "layout": "b", "sources": SOURCES}]}, "a phase has either layout or sources"),
        ({"phases": [{"from_step": 9, "layout": "b"}]}, "phases.0 starts at step 9, of 8 steps"),
        (
            {"phases": [{"from_step": 5, "layout": "b"}, {"from_fraction": 0.5, "layout": "c"}]},
            "phases.1 starts at step 5, after data that starts at step 5",
        ),
        ({"phases": [{"from_step": 1, "layout": "b"}]}, "greater than or equal to 2"),
        ({"sources": [{"layout": "a", "weight": 0}], "layout": "a"}, "greater than 0"),
        ({"curriculum": {"column": "q", "order": "up"}}, "'ascending' or 'descending'"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        config(**{"layout": "a", **settings})
    (error, *_) = raised.value.errors()
    assert message in error["msg"]


SOURCE = '[[train.tiny.sources]]\nlayout = "{}"\n'


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (
            SOURCE.format("prepend-url") + SOURCE.format("plian"),
            "train.tiny.sources.1.layout: no layout 'plian'; avail",
        ),
        ('[[train.tiny.phases]]\nfrom_step = 2\nlayout = "plian"\n', "train.tiny.phases.0.layout: no layout 'plian'"),
        (SOURCE.format("prepend-url") + "wieght = 1\n", "train.tiny.sources.0.wieght: unknown key; available: curric"),
        (
            SOURCE.format("prepend-url") + 'row_weights = { column = "topic", tabel = {} }\n',
            "train.tiny.sources.0.row_weights.tabel: unknown key; available: column, default, table",
        ),
        (
            SOURCE.format("prepend-url") + 'row_weights = { column = "topic" }\n',
            "train.tiny.sources.0.row_weights.column: no annotator writes 'topic'; "
            "available: crawl_slice, crawl_year, ",
        ),
        (
            SOURCE.format("prepend-url") + '[train.tiny.curriculum]\ncolumn = "score"\n',
            "train.tiny.curriculum.column: no annotator writes 'score'; available: crawl_slice, ",
        ),
        (
            '[[train.tiny.phases]]\nfrom_step = 2\nlayout = "plain"\ncurriculum = { column = "score" }\n',
            "train.tiny.phases.0.curriculum.column: no annotator writes 'score'; available: crawl_slice, ",
        ),
        (
            'group_by = ["url_host", "copy_keys"]\n[annotators.copy]\ntype = "duplicate_keys"\n',
            "train.tiny.group_by.1: copy_keys is list<item: uint64>, not one value; available: copy_file, ",
        ),
        ("mask_unpaid_ids = true\n", "train.tiny.mask_unpaid_ids: renamed to mask_zero_weight_ids"),
        ('[train.tiny.sources]\nlayout = "plain"\n', "train.tiny.sources: must be a list"),
        (
            SOURCE.format("prepend-url") + 'row_weights = { column = "topic", table = { a = -1 } }\n',
            "train.tiny.sources.0.row_weights.table.a: must be greater than or equal to 0",
        ),
    ],
)
def test_an_error_of_a_recipe_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tokenizer(Path("small.tiktoken"))
    Path("recipe.toml").write_text(RECIPE.replace("steps = 1", "steps = 4") + added)
    called = colophon("run", "recipe.toml", "--dry-run")
    assert called.code == 2
    assert message in called.line


DOCUMENT, REFERENCE = (
    (Path(__file__).parents[3] / "docs" / page).read_text(encoding="utf-8")
    for page in ("training.md", "recipe-reference.md")
)


def test_the_recipes_of_the_documentation_are_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    runs = [run for block in blocks for run in tomllib.loads(block)["train"].values()]
    assert len(runs) == 11
    used = [TrainConfig.model_validate(run) for run in runs]
    assert {bool(run.sources) for run in used} == {bool(run.phases) for run in used} == {True, False}


@pytest.mark.parametrize("section", [SourceConfig, RowWeightsConfig, CurriculumConfig, PhaseConfig])
def test_every_key_is_documented(section: type[BaseModel]) -> None:
    assert not [name for name in section.model_fields if f"`{name}`" not in REFERENCE]
