"""Training refuses shards that the recipe no longer describes; the check needs neither the input nor models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.staleness import check_unchanged
from tests.pipeline.project import RECIPE, colophon, run, write_tokenizer

LAYOUT = "out/packed/prepend-url was written with other settings: "
BINNED = """
[annotators.quality]
type = "fasttext"
model = "q.bin"
score = { probability_of = "high" }
bins = { quantiles = 4, sample = 1000 }

[layouts.binned]
position = "prepend"
template = "{quality}"
max_metadata_tokens = 4
"""


def check(*settings: str, layout: str = "prepend-url") -> None:
    loaded = load_recipe("recipe.toml", overrides=[f"train.tiny.layout={layout}", *settings])
    check_unchanged(loaded, "tiny", where="recipe.toml")


def refused(*settings: str, layout: str = "prepend-url") -> str:
    with pytest.raises(UsageError) as error:
        check(*settings, layout=layout)
    return str(error.value)


def without_input() -> None:
    """The project on a machine to which only shards were copied."""
    for directory in ("data", "out/annotations", "out/tokens", "out/records", "out/calibration"):
        shutil.rmtree(directory, ignore_errors=True)
    Path("small.tiktoken").unlink()


@pytest.fixture
def binned(project: Path, quality_model: Path) -> Path:
    """A run with a layout of quantile bins."""
    shutil.copy(quality_model, "q.bin")
    Path("recipe.toml").write_text(RECIPE + BINNED)
    assert run().code == 0
    return project


def test_training_over_other_settings_is_one_line_and_writes_nothing(finished: Path) -> None:
    called = colophon("train", "recipe.toml", "--set", "layouts.prepend-url.template={crawl_year}")
    assert called.code == 2
    assert called.line == (
        f"{LAYOUT}layout.template: '{{url}}' -> '{{crawl_year}}' "
        "(`colophon run recipe.toml --rebuild` rebuilds it; or change the recipe back)"
    )
    assert not Path("out/training").exists()


@pytest.mark.parametrize(
    ("setting", "difference"),
    [
        ("pack.sequence_length=32", "pack.sequence_length: 64 -> 32"),
        ("pack.seed=1", "pack.seed: 0 -> 1"),
        ("layouts.prepend-url.dropout=0.5", "layout.dropout: 0.1 -> 0.5"),
        ("layouts.meta-tokens.num_meta_tokens=9", "tokenizer.num_ids: "),
    ],
)
def test_the_settings_of_a_layout_are_compared(finished: Path, setting: str, difference: str) -> None:
    assert refused(setting).startswith(LAYOUT + difference)


def test_the_settings_of_its_upstream_are_compared(finished: Path) -> None:
    message = refused("annotators.url.private_suffixes=true")
    assert message.startswith(
        "out/packed/prepend-url (its annotations/url) was written with other settings: annotator."
    )
    assert refused("input.columns.text=url", layout="plain").startswith(
        "out/packed/plain (its tokens) was written with other settings: columns.text: 'text' -> 'url' "
    )


def test_a_different_vocabulary_under_the_same_name_is_found(finished: Path) -> None:
    write_tokenizer(Path("small.tiktoken"))
    check()
    with Path("small.tiktoken").open("a") as file:
        file.write("bm90aGluZw== 266\n")
    assert refused().startswith(f"{LAYOUT}tokenizer.sha256: ")


def test_other_parts_of_the_recipe_may_change(finished: Path) -> None:
    check("layouts.append-quality.dropout=0.5", "annotators.url.private_suffixes=true", layout="plain")
    check("train.tiny.steps=9", "input.paths=['elsewhere/*.parquet']", "ray.num_workers=3")


@pytest.mark.parametrize(
    "data",
    [
        "sources=[{layout='plain'},{layout='prepend-url'}]",
        "phases=[{from_step=2,layout='prepend-url'}]",
        "phases=[{from_step=2,sources=[{layout='plain',weight=1},{layout='prepend-url',weight=1}]}]",
    ],
)
def test_all_sources_and_phases_are_compared(finished: Path, data: str) -> None:
    settings = (f"train.tiny.{data}", "train.tiny.steps=2")
    check(*settings, layout="plain")
    assert refused(*settings, "layouts.prepend-url.dropout=0.5", layout="plain").startswith(LAYOUT)


def test_sources_of_another_run_are_not_compared(finished: Path) -> None:
    elsewhere = "train.tiny.sources=[{layout='plain'},{layout='prepend-url',output='out'}]"
    check(elsewhere, "layouts.prepend-url.dropout=0.5", layout="plain")


def test_annotators_of_weights_and_scores_are_compared(finished: Path) -> None:
    ordered = "train.tiny.curriculum={column='quality_fine'}"
    check(ordered, layout="plain")
    message = refused(ordered, "annotators.edu_score.column=int_score", layout="plain")
    assert message.startswith("out/annotations/edu_score was written with other settings: ")


def test_without_models_the_recipes_are_compared(finished: Path) -> None:
    without_input()
    for layout in ("plain", "prepend-url", "append-quality", "meta-tokens"):
        check(layout=layout)
    assert refused("layouts.prepend-url.dropout=0.5").startswith(f"{LAYOUT}layout.dropout: 0.1 -> 0.5 ")
    assert refused("tokenizer.path=other.tiktoken").startswith(f"{LAYOUT}tokenizer.path: ")
    assert refused("layouts.meta-tokens.num_meta_tokens=9").startswith(f"{LAYOUT}num_meta_tokens: 5 -> 9 ")


def test_a_model_is_compared_by_its_bytes_and_if_missing_by_its_name(binned: Path) -> None:
    check(layout="binned")
    Path("q.bin").rename("moved.bin")
    check("annotators.quality.model=moved.bin", layout="binned")
    check(layout="binned")
    message = refused("annotators.quality.model=gone.bin", layout="binned")
    assert "out/packed/binned (its annotations/quality) was written with other settings: annotator.model: " in message
    changed = bytearray(Path("moved.bin").read_bytes())
    changed[-1] ^= 1
    Path("q.bin").write_bytes(changed)
    assert "annotator.model_sha256: " in refused(layout="binned")


def test_fitted_edges_are_part_of_the_settings(binned: Path) -> None:
    message = refused("annotators.quality.bins.quantiles=3", layout="binned")
    assert "annotator.config.bins.quantiles: 4 -> 3" in message
    shutil.rmtree("out/calibration")
    check(layout="binned")
    message = refused("annotators.quality.bins.quantiles=3", layout="binned")
    assert "annotator.bins.quantiles: 4 -> 3" in message


def test_a_named_vocabulary_is_not_loaded_to_compare_it(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads(Path("out/manifest.json").read_text())
    manifest["recipe"]["tokenizer"].update(name="gpt2", path=None, pattern=None)
    Path("out/manifest.json").write_text(json.dumps(manifest))
    Path("recipe.toml").write_text(RECIPE.replace('path = "small.tiktoken"\npattern = "gpt2"', 'name = "gpt2"'))

    def load(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("colophon.pipeline.stages.tokenization.load_tokenizer", load)
    check()
    assert refused("layouts.prepend-url.dropout=0.5").startswith(f"{LAYOUT}layout.dropout: ")
    assert refused("tokenizer.name=o200k_base").startswith(f"{LAYOUT}tokenizer.name: ")


def test_after_a_rebuild_training_starts(finished: Path) -> None:
    assert run("--set", "layouts.prepend-url.dropout=0.5", "--rebuild").code == 0
    check("layouts.prepend-url.dropout=0.5")
    assert refused().startswith(f"{LAYOUT}layout.dropout: 0.5 -> 0.1 ")
