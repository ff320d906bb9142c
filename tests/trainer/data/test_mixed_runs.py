"""Training and resuming runs that mix several layouts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train
from tests.pipeline.project import RECIPE, colophon, run, write_project
from tests.trainer.annotated import NUM_DOCUMENTS, annotate
from tests.trainer.courses import assert_same_end, kill_at, metrics_of
from tests.trainer.data.rows.mixtures import MIXED, mixed
from tests.trainer.ranks import train_on_ranks
from tests.trainer.runs import config

TRAINED: dict[str, Any] = {
    **MIXED,
    "steps": 10,
    "phases": [{"from_step": 5, "layout": "plain"}, {"from_step": 8, "sources": MIXED["sources"]}],
    "checkpoint_every": 3,
    "log_every": 1,
    "learning_rate": 1e-2,
}


@pytest.mark.parametrize("killed", [4, 7, 10])
def test_a_mixed_run_killed_in_any_phase_resumes_to_the_bit(run_output: Path, killed: int) -> None:
    settings = config(**TRAINED)
    train(settings, name="unbroken", output=run_output)
    with pytest.raises(Exception, match=r"^$"):
        train(settings, name="killed", output=run_output, report=kill_at(killed))
    lines: list[str] = []
    train(settings, name="killed", output=run_output, resume=True, report=lines.append)
    assert lines[0].startswith(f"resumed after step {(killed - 1) // 3 * 3} from ")
    assert_same_end(run_output, "unbroken", "killed")


def test_two_processes_give_the_losses_of_one_on_a_mixture(run_output: Path) -> None:
    settings = config(**TRAINED, micro_batch_size=2)
    train(settings, name="one", output=run_output)
    train_on_ranks(settings, num_ranks=2, name="two", output=run_output)
    losses = [[m["loss"] for m in metrics_of(run_output, name) if "loss" in m] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        (
            {"sources": [{"layout": "prepend", "weight": 1}, {"layout": "append", "weight": 1}]},
            "sources.0.share: 0.75 -> 0.5",
        ),
        (
            {"sources": [{"layout": "prepend"}]},
            "sources.0.share: 0.75 -> 1.0; sources.1: {'layout': 'append', 'shards': ",
        ),
        ({"sources": [MIXED["sources"][0], {"layout": "plain", "weight": 1}]}, "sources.1.layout: 'append' -> 'plain'"),
        ({"phases": []}, "phases: {'0': {'first step': 5, "),
        ({"phases": [{"from_step": 4, "layout": "plain"}]}, "phases.0.first step: 5 -> 4"),
        ({"phases": [{"from_step": 5, "layout": "masked"}]}, "phases.0.sources.0.layout: 'plain' -> 'masked'"),
    ],
)
def test_a_resume_with_other_data_is_refused(
    tmp_path: Path, packed_run: Path, settings: dict[str, Any], difference: str
) -> None:
    output = tmp_path / "run"
    shutil.copytree(packed_run, output, ignore=shutil.ignore_patterns("training"))
    train(mixed(steps=6), name="a", output=output)
    with pytest.raises(TrainerError, match="cannot resume from") as raised:
        train(mixed(steps=6, **settings), name="a", output=output, resume=True)
    assert difference in str(raised.value)


def test_a_resume_with_other_annotations_is_refused(run_output: Path) -> None:
    scores = list(range(NUM_DOCUMENTS))
    annotate(run_output, quality=scores)
    weighted = {"layout": "prepend", "row_weights": {"column": "quality"}, "curriculum": {"column": "quality"}}
    settings = config(sources=[weighted], steps=2)
    train(settings, name="a", output=run_output)
    annotate(run_output, quality=scores[::-1])
    with pytest.raises(
        TrainerError, match=r"sources\.0\.row weights: '\w+\.\.\. -> '\w+\.\.\.; sources\.0\.scores: '\w+\.\.\. -> "
    ):
        train(settings, name="a", output=run_output, resume=True)


def test_phases_that_have_not_begun_may_change(run_output: Path) -> None:
    """The trunk of a schedule is trained once, and cooled down as often as one likes."""
    trunk: dict[str, Any] = {**MIXED, "schedule": {"type": "wsd", "warmup_steps": 1, "decay_fraction": 0.0}}
    cooled = [{"from_fraction": 0.75, "layout": "plain"}]
    train(config(**{**trunk, "steps": 4, "phases": []}), name="a", output=run_output)
    train(config(**{**trunk, "steps": 8, "phases": cooled}), name="a", output=run_output, resume=True)
    train(config(**{**trunk, "steps": 8, "phases": cooled}), name="unbroken", output=run_output)
    losses = [[m["loss"] for m in metrics_of(run_output, name) if "loss" in m] for name in ("a", "unbroken")]
    assert losses[0] == losses[1]
    # At step 8 the phase has begun, and a longer run would move it.
    with pytest.raises(TrainerError, match=r"phases: \{'0': \{'first step': 7, .* -> None"):
        train(config(**{**trunk, "steps": 16, "phases": cooled}), name="a", output=run_output, resume=True)


WHOLE_RECIPE = (
    RECIPE.split("[train.tiny]")[0]
    + """
[train.tiny]
model = { num_layers = 1, hidden_size = 16, ffn_size = 16, num_heads = 2, num_kv_heads = 1 }
steps = 6
batch_size = 4
device = "cpu"
learning_rate = 0.01

[[train.tiny.sources]]
layout = "prepend-url"
weight = 3
row_weights = { column = "crawl_year", table = { 2014 = 4, 2020 = 0 } }

[[train.tiny.sources]]
layout = "append-quality"
weight = 1
curriculum = { column = "quality_fine", order = "descending", buckets = 3 }

[[train.tiny.phases]]
from_fraction = 0.5
layout = "plain"
"""
)


def test_a_recipe_from_documents_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(WHOLE_RECIPE)
    assert run().code == 0
    assert colophon("train", "recipe.toml").code == 0
    assert [m["step"] for m in metrics_of(tmp_path / "out", "tiny") if "loss" in m] == [1, 2, 3, 4, 5, 6]
    recipe.write_text(WHOLE_RECIPE.replace('column = "crawl_year"', 'column = "crawl_yaer"'))
    called = colophon("train", "recipe.toml", "--overwrite")
    assert called.code == 2
    assert called.line.startswith("out: no annotator has a column 'crawl_yaer'; available: ")
    assert "quality_fine" in called.line
