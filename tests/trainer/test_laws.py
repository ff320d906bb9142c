"""Laws from the text to the loss, on real runs of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colophon.trainer.loop import train
from tests.pipeline.small_run import run_recipe, write_small_run
from tests.trainer.courses import metrics_of
from tests.trainer.runs import config

DROPPED = """
[layouts.dropped]
position = "prepend"
template = "{url}"
dropout = 1.0
when_dropped = "nothing"
[layouts.empty]
position = "prepend"
template = "{url}"
dropout = 1.0
when_dropped = "empty"
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = write_small_run(tmp_path_factory.mktemp("laws"))
    recipe.write_text(recipe.read_text() + DROPPED)
    run_recipe(recipe, output=recipe.parent / "out")
    return recipe.parent / "out"


def course(output: Path, layout: str, **settings: Any) -> list[dict[str, Any]]:
    train(config(layout, learning_rate=1e-2, **settings), name=layout, output=output)
    return metrics_of(output, layout)


def test_metadata_that_is_always_dropped_without_a_wrapper_is_plain_training(output: Path) -> None:
    plain = course(output, "plain")
    assert course(output, "dropped") == plain
    assert course(output, "empty") != plain  # the wrapper stays
    assert len({m["loss"] for m in plain if "loss" in m}) == 8
