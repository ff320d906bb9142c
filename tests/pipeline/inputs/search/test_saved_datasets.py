"""Directories of Hugging Face `datasets`, written by the library itself: what it loads is what is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.columns import ColumnNeed
from colophon.pipeline.inputs.partitions import Inputs, plan_inputs
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.inputs.search.saved_datasets import EARLIER_SAVE
from colophon.pipeline.recipe.schema import InputSection

datasets = pytest.importorskip("datasets")
NEEDS = (ColumnNeed("id", "id"), ColumnNeed("text", "text"))
ROWS = [{"id": f"id-{i}", "text": f"größe {i}"} for i in range(10)]
CACHE, SIDE = "cache file of datasets", "side file"


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def saved(rows: list[dict[str, str]], path: str, *, shards: int) -> Any:
    datasets.Dataset.from_list(rows).save_to_disk(path, num_shards=shards)
    return datasets.load_from_disk(path)


def planned(path: str) -> Inputs:
    return plan_inputs(InputSection(paths=[path]), needs=NEEDS)


def rows_of(inputs: Inputs) -> list[dict[str, str]]:
    batches = [batch for part in inputs.partitions for batch in PartitionReader(part, NEEDS, stage="test")]
    return [row for batch in batches for row in batch.to_pylist()]


def left_aside(inputs: Inputs) -> dict[str, int]:
    return {one.kind: one.count for one in inputs.left_aside}


@pytest.mark.parametrize("path", ["saved", "saved/*.arrow"])
def test_results_that_the_library_keeps_beside_a_data_set_are_left_aside(path: str) -> None:
    loaded = saved(ROWS, "saved", shards=2)
    loaded.map(lambda row: {"text": row["text"].upper()})
    loaded.filter(lambda row: True)
    loaded.shuffle(seed=1)
    inputs = planned(path)
    assert rows_of(inputs) == list(loaded) == ROWS
    assert left_aside(inputs) == {CACHE: 3, **({SIDE: 2} if path == "saved" else {})}


def test_a_result_that_a_path_names_is_read() -> None:
    saved(ROWS, "saved", shards=2).map(lambda row: {"text": row["text"].upper()})
    (path,) = Path("saved").glob("cache-*")
    expected = [{**row, "text": row["text"].upper()} for row in ROWS]
    assert rows_of(planned(str(path))) == expected


def test_all_splits_of_a_data_set_are_read() -> None:
    parts = {"train": ROWS[:7], "test": ROWS[7:]}
    splits = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()})
    splits.save_to_disk("splits", num_shards={"train": 2, "test": 1})
    assert sorted(rows_of(planned("splits")), key=lambda row: row["id"]) == ROWS
    assert rows_of(planned("splits/train")) == parts["train"]
    assert left_aside(planned("splits")) == {SIDE: 5}


@pytest.mark.parametrize("shards", [(3, 1), (1, 3)])
def test_files_of_an_earlier_save_are_left_aside(shards: tuple[int, int]) -> None:
    saved(ROWS, "saved", shards=shards[0])
    loaded = saved(ROWS[:6], "saved", shards=shards[1])
    inputs = planned("saved")
    assert rows_of(inputs) == list(loaded) == ROWS[:6]
    assert left_aside(inputs) == {EARLIER_SAVE: shards[0], SIDE: 2}
    assert len(rows_of(planned("saved/data-00000-of-00003.arrow"))) in (2, 4)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"_data_files": 5}', '{"_data_files": [{}]}'])
def test_files_of_several_saves_without_a_list_are_one_line(content: str) -> None:
    saved(ROWS, "saved", shards=3)
    saved(ROWS, "saved", shards=1)
    Path("saved/state.json").write_text(content)
    with pytest.raises(
        UsageError, match=r"saved/state\.json: .*Arrow files of several saves: it lists no files"
    ) as raised:
        planned("saved")
    assert "\n" not in str(raised.value)
