"""Annotations of two runs whose meanings differ, by their settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.shards.manifest import Manifest, OutputManifest
from colophon.trainer.data.annotation_compatibility import TrainedAnnotators, check_annotations, different_annotators
from colophon.trainer.data.annotator_settings import first_difference, shown_apart
from colophon.trainer.errors import TrainerError
from tests.recorded import record_of

EDGES = [0.0, 0.25, 0.5]
SETTINGS: dict[str, Any] = {
    "type": "fasttext",
    "code_version": 2,
    "config": {"score": {"argmax": True}, "bins": {"quantiles": 4, "edges": None, "sample": 9, "labels": None}},
    "edges": EDGES,
    "model_sha256": "b0",
    "idna": "3.1",
}


def write_run(output: Path, changes: dict[str, Any], *, name: str = "quality", calibration: bool = True) -> Path:
    """A run with one annotation file."""
    settings = {**SETTINGS, **changes}
    path = output / f"annotations/{name}/0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"quality": [1, 2], "quality_score": [0.1, 0.3]}), path)
    outputs = {
        f"annotations/{name}": OutputManifest(
            settings={"annotator": settings}, records=[record_of(output, path, rows=2)]
        )
    }
    manifest = Manifest(colophon_version="0", recipe={}, partitions=[], outputs=outputs)
    (output / "manifest.json").write_text(manifest.model_dump_json())
    if calibration:
        (output / "calibration").mkdir(exist_ok=True)
        (output / "calibration/quality.json").write_text(json.dumps({"calibration": {"edges": settings["edges"]}}))
    return output


def trained_on(run: Path) -> TrainedAnnotators:
    return TrainedAnnotators.of_run(run, ["quality", "quality_score"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"code_version": 3, "idna": "3.10.1"},
        {"edges": [0.0, 0.25, 0.5 + 1e-12]},
        {"config": {"score": {"argmax": True}, "bins": {"quantiles": None, "edges": EDGES, "labels": None}}},
    ],
)
def test_annotations_of_the_same_meaning_are_accepted(tmp_path: Path, changes: dict[str, Any]) -> None:
    trained, other = write_run(tmp_path / "web", {}), write_run(tmp_path / "val", changes)
    check_annotations(["quality", "quality_score"], trained=trained_on(trained), other=other)
    assert different_annotators(["quality"], trained=trained_on(trained), other=other) == []


def test_quantile_bins_of_the_input_s_columns_are_compared_by_their_edges() -> None:
    """Edges that a recipe gives equal those of quantiles; the settings of each column are compared."""

    def settings(bins: dict[str, Any], edges: list[float] | None, **column: Any) -> dict[str, Any]:
        config = {"columns": {"x": {"column": "score", "bins": bins, **column}}}
        return {"type": "columns", "code_version": 1, "config": config, "edges": edges and {"x": edges}}

    fitted = settings({"quantiles": 3, "sample": 9}, [0.1, 0.2])
    assert first_difference(fitted, settings({"quantiles": 3, "sample": 99}, [0.1 + 1e-12, 0.2])) == ""
    found = first_difference(fitted, settings({"quantiles": 3, "sample": 9}, [0.1, 0.3]))
    assert found == "edges.x [0.1, 0.2] in training, [0.1, 0.3] here"
    other = settings({"quantiles": 3, "sample": 9}, [0.1, 0.2], column="stars")
    assert first_difference(fitted, other) == "config.columns.x.column score in training, stars here"


def test_a_run_rebuilt_with_other_edges_is_compared_with_its_own_past(tmp_path: Path) -> None:
    run = write_run(tmp_path / "web", {})
    trained = TrainedAnnotators(training="url", output=run, record=trained_on(run).record)
    check_annotations(["quality"], trained=trained, other=run)
    write_run(run, {"edges": [0.0, 0.25, 0.50001]})
    message = r"annotator 'quality' of .*web is not the one of the training \(url\): edges "
    with pytest.raises(
        TrainerError, match=message + r"\[0, 0\.25, 0\.5\] in training, \[0, 0\.25, 0\.50001"
    ) as refused:
        check_annotations(["quality"], trained=trained, other=run)
    assert str(refused.value).endswith(
        "write bins = { edges = [0.0, 0.25, 0.5] } in that recipe and run it with --rebuild"
    )


def test_a_record_without_annotation_files_has_all_annotators(tmp_path: Path) -> None:
    run = write_run(tmp_path / "web", {})
    for path in run.glob("annotations/*/*"):
        path.unlink()
    record = trained_on(run).record
    assert (record.columns, record.settings) == ({}, {"quality": SETTINGS})
    other = write_run(tmp_path / "val", {"edges": [0.1]})
    with pytest.raises(TrainerError, match=r"edges \[0, 0\.25, 0\.5\] in training, \[0\.1\] here"):
        check_annotations(
            ["quality"], trained=TrainedAnnotators(training="url", output=run, record=record), other=other
        )


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ([0.5, 1.0], [0.25, 1.0], ("[0.5, 1]", "[0.25, 1]")),
        ([0.123451], [0.123452], ("[0.123451]", "[0.123452]")),
        ([*range(20)], [*range(19), 7], ("[..., number 20: 19, ...]", "[..., number 20: 7, ...]")),
        (["a", "b"], ["a", "c"], ("[a, b]", "[a, c]")),
        ("x" * 90 + "old", "x" * 90 + "new", ("…old", "…new")),
    ],
)
def test_different_values_are_shown_differently(old: Any, new: Any, shown: tuple[str, str]) -> None:
    assert shown_apart(old, new) == shown


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"edges": [0.0, 0.3, 0.5]}, "edges [0, 0.25, 0.5] in training, [0, 0.3, 0.5] here; copy web/calibration/"),
        (
            {"model_sha256": "c1"},
            "model_sha256 b0 in training, c1 here; annotate val with the settings of the training",
        ),
        ({"config": {"score": {"argmax": False}}}, "config.score.argmax True in training, False here; annotate val"),
        (
            {"config": {"score": {"argmax": True}, "bins": {"edges": [0.1]}}, "edges": [0.1]},
            "write bins = { edges = [0.0, 0.25, 0.5] } in that recipe and run it with --rebuild",
        ),
    ],
)
def test_annotations_of_a_different_meaning_are_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    trained, other = write_run(Path("web"), {}), write_run(Path("val"), changes)
    with pytest.raises(TrainerError) as refused:
        check_annotations(["quality_score"], trained=trained_on(trained), other=other, instead="; or not")
    message = str(refused.value)
    assert message.startswith("annotator 'quality' of val is not the one of the training (web): ")
    assert expected in message
    assert message.endswith("; or not")
    assert "\n" not in message
    (line,) = different_annotators(["quality"], trained=trained_on(trained), other=other)
    assert line.startswith("annotator 'quality' is not that of web (")
    check_annotations(["url"], trained=trained_on(trained), other=other)  # of a different annotator, or of none


def test_without_a_calibration_file_the_remedy_is_edges_in_the_recipe(tmp_path: Path) -> None:
    trained = write_run(tmp_path / "web", {}, calibration=False)
    other = write_run(tmp_path / "val", {"edges": [0.1]})
    with pytest.raises(TrainerError, match=r"write bins = \{ edges = \[0\.0, 0\.25, 0\.5\] \} in that recipe"):
        check_annotations(["quality"], trained=trained_on(trained), other=other)


def test_an_annotator_of_another_name_is_found_by_its_column(tmp_path: Path) -> None:
    trained = write_run(tmp_path / "web", {}, name="grade")
    check_annotations(["quality"], trained=trained_on(trained), other=write_run(tmp_path / "same", {}))
    other = write_run(tmp_path / "val", {"edges": [0.1]})
    with pytest.raises(
        TrainerError, match=r"annotator 'quality' of .*: edges \[0, 0\.25, 0\.5\] in training, \[0\.1\]"
    ):
        check_annotations(["quality"], trained=trained_on(trained), other=other)
    assert different_annotators(["other"], trained=trained_on(trained), other=other) == []
