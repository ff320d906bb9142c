"""Quantile bins: their edges are fitted once, stored, and fitted again only when their settings change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.runs import calibration
from colophon.pipeline.runs.calibration import calibrated
from colophon.shards.outputs import Output
from tests.pipeline.project import (
    Called,
    colophon,
    directories,
    manifest,
    redone,
    resolved_recipe,
    run,
    snapshot,
    write_documents,
)

CALIBRATION = Path("out/calibration/quality.json")


@pytest.fixture
def settings(project: Path, quality_model: Path) -> list[str]:
    """Overrides that add an annotator with four quantile bins, and a layout that shows them."""
    score = "score = { probability_of = 'high' }, bins = { quantiles = 4, sample = 1000 }"
    return [
        "--set",
        f"annotators.quality={{ type = 'fasttext', model = '{quality_model}', {score} }}",
        "--set",
        "layouts.binned={ position = 'prepend', template = '{quality}', max_metadata_tokens = 4 }",
    ]


def refit(settings: list[str], *more: str) -> Called:
    return run(*settings, "--set", "annotators.quality.bins.quantiles=3", *more)


def edges() -> list[float]:
    edges: list[float] = json.loads(CALIBRATION.read_text())["calibration"]["edges"]
    return edges


def annotations() -> tuple[np.ndarray, np.ndarray]:
    """Scores and bins of all documents with a score."""
    tables = [pq.read_table(f"out/{record.path}") for record in manifest().outputs["annotations/quality"].records]
    scores = np.concatenate([table.column("quality_score").to_numpy() for table in tables])
    bins = np.concatenate([table.column("quality").to_numpy() for table in tables])
    return scores[~np.isnan(scores)], bins[~np.isnan(scores)]


def test_the_edges_are_the_quantiles_of_the_sample_and_cut_the_bins(settings: list[str]) -> None:
    called = run(*settings)
    assert (called.code, called.err) == (0, "")
    assert "annotators.quality: fitting quantiles on a sample of up to 1,000 documents" in called.out
    assert "annotators.quality: quantiles of 200 documents" in called.out
    scores, bins = annotations()
    # The sample holds all documents.
    np.testing.assert_allclose(edges(), np.quantile(scores, [0.25, 0.5, 0.75]), rtol=1e-6)
    np.testing.assert_array_equal(bins, np.searchsorted(np.float32(edges()), scores, side="right"))
    assert 3 in bins  # the largest score is not below any edge; equal scores may leave another bin empty


def test_the_edges_do_not_depend_on_how_the_input_is_cut_or_spelled(settings: list[str]) -> None:
    found = set()
    small = [*settings, "--set", "annotators.quality.bins.sample=60"]
    paths = ["data/part-2.parquet", "data/part-0.parquet", str(Path("data/part-1.parquet").absolute())]
    for more in (["partition_bytes=7000"], ["partition_bytes=1"], ["partition_bytes=1000000"], [f"paths={paths}"]):
        overrides = [word for setting in more for word in ("--set", f"input.{setting}")]
        called = colophon("annotate", "recipe.toml", "--executor", "inline", *small, *overrides, "--rebuild")
        assert (called.code, called.err) == (0, "")
        found.add(tuple(edges()))
        CALIBRATION.unlink()
    assert len(found) == 1


def test_bins_that_stay_empty_are_noted(settings: list[str]) -> None:
    called = run(*settings, "--set", "annotators.quality.bins.quantiles=900")
    assert called.code == 0
    filled = json.loads(CALIBRATION.read_text())["calibration"]["bins_filled"]
    _, bins = annotations()
    assert filled == len(set(bins.tolist())) < 900
    assert f"quality: {filled} of the 900 quantile bins have documents of the sample: too many" in called.out


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": {}}', '{"settings": {}, "calibration": {"edges": ["a"]}}'])
def test_a_damaged_calibration_is_one_line(settings: list[str], text: str) -> None:
    assert run(*settings).code == 0
    CALIBRATION.write_text(text)
    called = run(*settings)
    assert called.code == 2
    assert called.line.startswith(f"{CALIBRATION}: damaged: ")
    assert called.line.endswith(". Delete it, and the next run calibrates again")


def test_a_second_run_uses_the_stored_edges(settings: list[str]) -> None:
    assert run(*settings).code == 0
    before = snapshot(Path("out"))
    called = run(*settings)
    assert called.code == 0
    assert "fitting" not in called.out
    after = snapshot(Path("out"))
    assert redone(before, after) == set()
    assert before[str(CALIBRATION)] == after[str(CALIBRATION)]


def test_appended_files_are_binned_by_the_same_edges(settings: list[str]) -> None:
    assert run(*settings).code == 0
    before, fitted = snapshot(Path("out")), edges()
    write_documents(Path("data/part-9.parquet"), range(500, 530))
    called = run(*settings)
    assert (called.code, called.err) == (0, "")
    assert edges() == fitted
    assert all(Path(path).name.startswith("part-9-") for path in redone(before, snapshot(Path("out"))))
    scores, bins = annotations()
    np.testing.assert_array_equal(bins, np.searchsorted(np.float32(fitted), scores, side="right"))


def test_changed_settings_are_refused_without_writing_and_fitted_again_with_rebuild(settings: list[str]) -> None:
    assert run(*settings).code == 0
    before = snapshot(Path("out"))
    called = refit(settings)
    assert called.code == 2
    assert "config.bins.quantiles: 4 -> 3" in called.line
    assert called.line.startswith("out/annotations/quality was written with other settings: ")
    assert snapshot(Path("out")) == before

    called = refit(settings, "--rebuild")
    assert (called.code, called.err) == (0, "")
    assert len(edges()) == 2
    assert directories(redone(before, snapshot(Path("out")))) == {"annotations/quality", "packed/binned"}


def test_later_stages_use_the_stored_edges(settings: list[str]) -> None:
    for stage in ("annotate", "tokenize", "pack"):
        called = colophon(stage, "recipe.toml", "--executor", "inline", *settings)
        assert (called.code, called.err) == (0, "")
    assert colophon("verify", "recipe.toml", *settings).code == 0
    assert colophon("inspect", "recipe.toml", "--document", "3", *settings).code == 0
    assert colophon("export", "recipe.toml", "--to", "exported", *settings).code == 0


def test_a_dry_run_fits_nothing(settings: list[str]) -> None:
    called = run(*settings, "--dry-run")
    assert (called.code, called.err) == (0, "")
    assert not Path("out").exists()


def test_a_partition_that_cannot_be_read_is_skipped(settings: list[str]) -> None:
    path = Path("data/part-1.parquet")
    chunk = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[chunk.dictionary_page_offset + 30] ^= 0x55
    path.write_bytes(bytes(data))
    called = run(*settings)
    assert (called.code, called.err) == (3, "")
    assert len(edges()) == 3


def test_a_sample_without_a_score_is_a_usage_error_and_writes_nothing(settings: list[str]) -> None:
    write_documents(Path("none.parquet"), [5, 28])  # two documents without text
    called = run(*settings, "--set", "input.paths=none.parquet")
    assert called.code == 2
    assert called.line == "annotators.quality.bins: no document of the sample has a score"
    assert not Path("out").exists()


def test_a_recipe_without_bins_is_returned_as_it_is(project: Path) -> None:
    resolved = resolved_recipe()
    assert calibrated(resolved, write=True, log=lambda line: None) is resolved


def test_inputs_and_vocabulary_are_not_read_again(settings: list[str]) -> None:
    resolved = resolved_recipe(*settings[1::2])
    inputs, tokenizer = resolved.inputs, resolved.tokenizer
    fitted = calibrated(resolved, write=True, log=lambda line: None)
    assert fitted is not resolved
    assert fitted.inputs is inputs
    assert fitted.tokenizer is tokenizer
    quality = Output.annotations("quality")
    assert fitted.settings.of(quality) != resolved.settings.of(quality)


def test_the_first_of_several_shards_calibrates_for_all(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shards fit at once. On machines whose last bits differ, their edges would too."""
    fit = calibration._fit

    def fit_while_another_shard_is_faster(*arguments: Any, **options: Any) -> dict[str, Any]:
        fitted = fit(*arguments, **options)
        monkeypatch.setattr(calibration, "_fit", fit)
        assert run(*settings, "--shard", "2/2").code == 0
        return {**fitted, "edges": [edge + 0.01 for edge in fitted["edges"]]}

    monkeypatch.setattr(calibration, "_fit", fit_while_another_shard_is_faster)
    called = run(*settings, "--shard", "1/2")
    assert called.code == 0
    assert "annotators.quality: quantiles of 200 documents" in called.out, "of the whole input"
    assert colophon("finish", "recipe.toml", *settings).code == 0
    scores, bins = annotations()
    np.testing.assert_array_equal(bins, np.searchsorted(np.float32(edges()), scores, side="right"))
