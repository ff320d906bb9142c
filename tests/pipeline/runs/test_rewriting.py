"""`[tokenizer] rewritten_by`: the replaced text of an annotator is tokenized, with or without its annotations."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe, resolve
from colophon.pipeline.runs.run import Run, RunResult
from colophon.pipeline.runs.staleness import check_unchanged
from colophon.pipeline.verification.verification import Verification
from colophon.shards.arrow_files import read_table
from colophon.shards.outputs import STAGES, TOKENS, StageName
from tests.pipeline.small_run import write_small_run

TEXTS = ["Write to a@uni.ch.", None, "", "nothing", "from 91.20.30.40 and b@uni.ch", "Größe"]
REWRITTEN = ["Write to <email-pii>.", "", "", "nothing", "from <ip-pii> and <email-pii>", "Größe"]


PERSONAL = """
[annotators.personal]
type = "pii"

[tokenizer]
rewritten_by = ["personal"]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = write_small_run(tmp_path, num_files=0)
    table = pa.table({"text": TEXTS, "url": ["http://a.org/"] * 6, "dump": ["x"] * 6})
    pq.write_table(table, tmp_path / "data/a.parquet")
    text = path.read_text().replace("[tokenizer]", PERSONAL)
    path.write_text(text + '[train.t]\nlayout = "plain"\nmodel = "1m"\nsteps = 2\n')
    return path


def resolved_recipe(recipe: Path, *overrides: str) -> ResolvedRecipe:
    return resolve(load_recipe(str(recipe), overrides=list(overrides)), where="recipe.toml")


def execute(recipe: Path, *overrides: str, stages: Sequence[StageName] = STAGES, rebuild: bool = False) -> RunResult:
    resolved = resolved_recipe(recipe, *overrides)
    console = Console(file=io.StringIO())
    return Run(resolved, stages=stages, executor=InlineExecutor(), console=console, rebuild=rebuild).execute()


def tokenized(output: Path) -> list[str]:
    (path,) = (output / "tokens").glob("*.arrow")
    return [bytes(ids).decode() for ids in read_table(path).column("input_ids").to_pylist()]


def test_tokens_are_those_of_the_replaced_text_and_do_not_need_annotations(recipe: Path, tmp_path: Path) -> None:
    execute(recipe, f"output.path={tmp_path / 'alone'}", stages=("tokenize",))
    result = execute(recipe)
    assert tokenized(tmp_path / "out") == tokenized(tmp_path / "alone") == REWRITTEN
    (record,) = result.manifest.outputs[TOKENS].records
    assert record.counts["documents_rewritten"] == 2
    (annotations,) = (tmp_path / "out/annotations/personal").glob("*.parquet")
    spans = pq.read_table(annotations).column("personal_spans").to_pylist()
    assert [None if each is None else len(each) for each in spans] == [1, None, 0, 0, 2, 0]
    found = Verification(resolved_recipe(recipe), deep=True).findings()
    assert [each for each in found if not each.path.startswith("report/")] == []
    check_unchanged(load_recipe(str(recipe)), "t", where="recipe.toml")


def test_the_settings_of_the_annotator_are_part_of_the_fingerprint_of_tokens(recipe: Path, tmp_path: Path) -> None:
    execute(recipe)
    fewer = 'annotators.personal.kinds=["email"]'
    with pytest.raises(UsageError, match=r"was written with other settings: .*kinds"):
        check_unchanged(load_recipe(str(recipe), overrides=[fewer]), "t", where="recipe.toml")
    with pytest.raises(UsageError, match=r"was written with other settings"):
        execute(recipe, fewer, stages=("tokenize",))
    execute(recipe, fewer, rebuild=True)
    assert tokenized(tmp_path / "out")[4] == "from 91.20.30.40 and <email-pii>"
    execute(recipe, "tokenizer.rewritten_by=[]", rebuild=True)
    assert tokenized(tmp_path / "out") == [text or "" for text in TEXTS]
    settings = resolved_recipe(recipe, "tokenizer.rewritten_by=[]").settings.by_output
    assert all("rewritten_by" not in each for each in settings.values())


def test_the_stage_is_sent_to_workers(recipe: Path) -> None:
    stage = pickle.loads(pickle.dumps(Plan(resolved_recipe(recipe)).stage(("tokenize",))))
    (rewriter,) = stage.encoding.rewriters
    assert rewriter.rewrite(pa.array(TEXTS)).to_pylist()[4] == REWRITTEN[4]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            '["pii"]',
            "rewritten_by: 'pii' is no annotator of the recipe that replaces text; available: personal",
        ),
        (
            '["url"]',
            "rewritten_by: 'url' is no annotator of the recipe that replaces text; available: personal",
        ),
        ('"personal"', "tokenizer.rewritten_by: "),
    ],
)
def test_names_that_do_not_fit_are_one_line_before_a_run(recipe: Path, names: str, message: str) -> None:
    with pytest.raises(UsageError) as failed:
        execute(recipe, f"tokenizer.rewritten_by={names}")
    assert message in str(failed.value)
    assert "\n" not in str(failed.value)
    assert not (recipe.parent / "out").exists()
