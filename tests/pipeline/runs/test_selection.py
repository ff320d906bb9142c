"""`where` of a layout: the documents that are packed, what a change redoes, what is counted and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.reports.summary import print_summary, summarize
from colophon.pipeline.runs.resolve import resolve
from colophon.pipeline.runs.run import Run, RunResult
from colophon.pipeline.verification.verification import Verification
from colophon.shards.reader import PackedFile
from colophon.shards.schema import Role
from tests.pipeline.small_run import write_small_run

SITES = ["site1.example.org", "site4.example.org"]
WHERE = f"where = {{ url_host = {SITES}, crawl_year = {{ min = 2015 }} }}\n".replace("'", '"')


def execute(recipe: Path, *overrides: str, rebuild: bool = False) -> RunResult:
    resolved = resolve(load_recipe(str(recipe), overrides=list(overrides)), where=str(recipe))
    return Run(resolved, executor=InlineExecutor(), console=Console(file=io.StringIO()), rebuild=rebuild).execute()


def num_documents(layout: Path) -> int:
    """The documents with text in the files of a layout."""
    return sum(
        len(np.unique(documents[roles == Role.TEXT]))
        for _, _, roles, documents in (PackedFile(path).all_runs() for path in sorted(layout.glob("*.arrow")))
    )


def overrides(where: str) -> str:
    return f"layouts.chosen.where={where}"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = write_small_run(tmp_path, num_files=1)
    path.write_text(path.read_text() + f'\n[layouts.chosen]\nposition = "prepend"\ntemplate = "{{url_host}}"\n{WHERE}')
    return path


def test_a_layout_has_the_selected_documents_alone(recipe: Path, tmp_path: Path) -> None:
    result = execute(recipe)
    table = pq.read_table(tmp_path / "data")
    chosen = [
        number
        for number, (url, dump) in enumerate(zip(table["url"].to_pylist(), table["dump"].to_pylist(), strict=True))
        if url.split("/")[2] in SITES and int(dump[8:12]) >= 2015
    ]
    assert 0 < len(chosen) < table.num_rows
    assert num_documents(tmp_path / "out/packed/chosen") == len(chosen)
    assert num_documents(tmp_path / "out/packed/plain") == table.num_rows
    excluded = sum(record.counts["documents_excluded"] for record in result.manifest.layouts["chosen"].records)
    assert excluded == table.num_rows - len(chosen)
    summary = summarize(result, store=resolve(load_recipe(str(recipe)), where="r").store)
    console = Console(file=io.StringIO(), width=200)
    print_summary(summary, result.manifest, console=console)
    line = f"layout chosen: {len(chosen)} of {table.num_rows} documents are selected"
    assert line in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_change_redoes_that_layout_alone_and_verify_compares_the_selection(recipe: Path, tmp_path: Path) -> None:
    execute(recipe)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*/*.a*")}
    with pytest.raises(UsageError, match=r"packed/chosen was written with other settings: .*where"):
        execute(recipe, overrides("{ crawl_year = 2015 }"))
    execute(recipe, overrides("{ crawl_year = 2015 }"), rebuild=True)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*/*.a*")}
    redone = {path.parent.name for path in after if before.get(path) != after[path]}
    assert redone == {"chosen"}
    loaded = load_recipe(str(recipe), overrides=[overrides("{ crawl_year = 2015 }")])
    resolved = resolve(loaded, where=str(recipe))
    found = [each for each in Verification(resolved, deep=True).findings() if not each.path.startswith("report/")]
    assert found == []


def test_nothing_selected_is_an_empty_layout(recipe: Path, tmp_path: Path) -> None:
    result = execute(recipe, overrides("{ crawl_year = 1999 }"))
    assert num_documents(tmp_path / "out/packed/chosen") == 0
    assert sum(record.rows for record in result.manifest.layouts["chosen"].records) == 0


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("{ crawl_yaer = 1 }", "layouts.chosen.where.crawl_yaer: no annotator writes 'crawl_yaer'; available: crawl_"),
        (
            "{ crawl_year = 'x' }",
            "where.crawl_year: the column is int16; it cannot be compared with 'x'",
        ),
        ("{ url_host = { min = 'x' } }", "layouts.chosen.where.url_host: the column is string; it cannot be compared"),
        ("{ url_host = {} }", "a condition has at least one of one_of, none_of, min, max"),
        ("{ url_host = { maximum = 1 } }", "layouts.chosen.where.url_host.maximum: unknown key"),
    ],
)
def test_conditions_that_do_not_fit_are_one_line_before_a_run(recipe: Path, where: str, message: str) -> None:
    with pytest.raises(UsageError) as failed:
        execute(recipe, overrides(where))
    assert message in str(failed.value)
    assert "\n" not in str(failed.value)
    assert not (recipe.parent / "out").exists()
