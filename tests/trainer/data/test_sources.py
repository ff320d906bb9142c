from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from colophon.shards.common.errors import ShardError
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.batch import read_batch
from colophon.trainer.data.sources import Phase
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train, zero_weight_ids
from tests.pipeline.project import RECIPE, colophon, run, write_project
from tests.trainer import runs
from tests.trainer.annotated import NUM_DOCUMENTS, annotate, text_tokens
from tests.trainer.ranks import train_on_ranks
from tests.trainer.runs import config, write_run
from tests.trainer.test_loop import assert_same_end, kill_at, metrics_of

MIXED: dict[str, Any] = {
    "sources": [{"layout": "prepend", "weight": 3}, {"layout": "append", "weight": 1}],
    "phases": [{"from_step": 5, "layout": "plain"}],
}
ONE = {"batch_size": 1, "micro_batch_size": 1}


def mixed(**settings: Any) -> TrainConfig:
    return config(**{"layout": "prepend", **MIXED, **settings})


def rows_of(output: Path, layout: str) -> dict[tuple[int, ...], int]:
    """The number of each of a layout's rows, by ids and roles."""
    dataset = PackedDataset.open(output, layout)
    batch = read_batch(dataset, np.arange(len(dataset)))
    return {
        (*ids, *roles): row
        for row, (ids, roles) in enumerate(zip(batch.tokens.tolist(), batch.roles.tolist(), strict=True))
    }


def seen(data: TrainingData, steps: range, known: dict[str, dict[tuple[int, ...], int]]) -> list[list[tuple[str, int]]]:
    """Layout and row of each sample, by step."""
    found = []
    for step in steps:
        batch = data.batch(step)
        keys = [(*ids, *roles) for ids, roles in zip(batch.tokens.tolist(), batch.roles.tolist(), strict=True)]
        found.append([next((name, rows[key]) for name, rows in known.items() if key in rows) for key in keys])
    return found


def test_layouts_are_mixed_by_weight_and_phases_switch_at_their_step(packed_run: Path) -> None:
    data = TrainingData(mixed(), output=packed_run)
    known = {layout: rows_of(packed_run, layout) for layout in ("prepend", "append", "plain")}
    samples = seen(data, range(1, 9), known)
    assert [[name for name, _ in batch] for batch in samples] == [["prepend"] * 6 + ["append"] * 2] * 4 + [
        ["plain"] * 8
    ] * 4


def test_every_row_of_every_source_comes_once_an_epoch(packed_run: Path) -> None:
    sources = [{"layout": "prepend"}, {"layout": "append"}, {"layout": "plain"}]
    data = TrainingData(config(sources=sources, batch_size=4), output=packed_run)
    known = {layout: rows_of(packed_run, layout) for layout in ("prepend", "append", "plain")}
    lengths = {name: len(source) for name, source in zip(known, data._phases[0].sources, strict=True)}
    # In proportion to their rows, so all epochs end together.
    samples = [sample for batch in seen(data, range(1, data.num_rows // 4 + 1), known) for sample in batch]
    for name, length in lengths.items():
        rows = [row for layout, row in samples if layout == name]
        assert len(rows) == pytest.approx(length, abs=8)
        assert len(set(rows)) == min(len(rows), length)


def test_one_source_is_the_plain_run(packed_run: Path) -> None:
    alone = TrainingData(config(validation_rows=3), output=packed_run)
    named = TrainingData(config(validation_rows=3, sources=[{"layout": "prepend", "weight": 2}]), output=packed_run)
    for step in (1, 7, 30):
        assert torch.equal(alone.batch(step).tokens, named.batch(step).tokens)


def test_a_run_tells_what_it_mixes(run_output: Path) -> None:
    told: list[str] = []
    train(
        mixed(steps=5, phases=[{"from_fraction": 0.4, "layout": "plain"}]),
        name="a",
        output=run_output,
        report=told.append,
    )
    assert re.fullmatch(r"from step 1: 75\.0% prepend \(58 rows\), 25\.0% append \(\d+ rows\)", told[1])
    assert re.fullmatch(r"from step 3: 100\.0% plain \(\d+ rows\)", told[2])
    assert TrainingData(config(), output=run_output).summary() == []


def test_a_phase_counts_from_its_own_first_step(packed_run: Path) -> None:
    early = TrainingData(mixed(), output=packed_run)
    late = TrainingData(mixed(steps=30, phases=[{"from_step": 21, "layout": "plain"}]), output=packed_run)
    for step in range(5, 9):
        assert torch.equal(early.batch(step).tokens, late.batch(step + 16).tokens)
    fraction = TrainingData(mixed(phases=[{"from_fraction": 0.5, "layout": "plain"}]), output=packed_run)
    for step in range(1, 9):
        assert torch.equal(early.batch(step).tokens, fraction.batch(step).tokens)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_join_to_the_same_mixed_batch(packed_run: Path, world_size: int) -> None:
    data = TrainingData(mixed(), output=packed_run)
    for step in (1, 3, 5, 8):
        whole = data.batch(step)
        parts = [data.batch(step, rank=rank, world_size=world_size) for rank in range(world_size)]
        for name in ("tokens", "roles", "segments", "loss_weights"):
            joined = torch.stack([getattr(part, name) for part in parts], dim=1).flatten(0, 1)
            assert torch.equal(joined, getattr(whole, name))


class _Numbers:
    """A source whose rows are told apart from all others'."""

    def __init__(self, number: int, weight: float) -> None:
        self.weight, self._number = weight, number

    def rows(self, samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self._number * 10**6 + samples


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    batch_size=st.integers(1, 30),
    world_size=st.integers(1, 8),
    first_step=st.integers(1, 50),
    steps=st.integers(1, 10),
)
def test_ranks_join_to_all_samples_of_all_sources(
    weights: list[float], batch_size: int, world_size: int, first_step: int, steps: int
) -> None:
    sources: list[Any] = [_Numbers(number, weight) for number, weight in enumerate(weights)]
    phase = Phase(sources, first_step=first_step, batch_size=batch_size)

    def rows(step: int, part: slice) -> list[int]:
        return [row for _, rows in phase.rows(step, part=part) for row in rows.tolist()]

    stream = []
    for step in range(first_step, first_step + steps):
        whole = rows(step, slice(None))
        for rank in range(world_size):
            assert rows(step, slice(rank, None, world_size)) == whole[rank::world_size]
        assert len(whole) == batch_size
        stream += whole
    seen = [sorted(row % 10**6 for row in stream if row // 10**6 == number) for number in range(len(weights))]
    assert seen == [list(range(len(samples))) for samples in seen]


def test_a_source_keeps_its_own_loss_weights(packed_run: Path) -> None:
    data = TrainingData(mixed(), output=packed_run)
    batch = data.batch(1)
    is_metadata = batch.label_roles == Role.METADATA
    assert set(batch.loss_weights[:6][is_metadata[:6]].tolist()) == {0.0}
    assert set(batch.loss_weights[6:][is_metadata[6:]].tolist()) == {0.5}
    # What append pays for is not masked because prepend does not.
    assert zero_weight_ids(data) == zero_weight_ids(PackedDataset.open(packed_run, "append"))
    assert zero_weight_ids(data) != zero_weight_ids(data.dataset)


def test_what_is_held_out_is_held_out_of_every_layout(packed_run: Path) -> None:
    data = TrainingData(mixed(validation_rows=5), output=packed_run)
    held = text_tokens(data.dataset)[data.validation_rows].any(axis=0)
    known = {layout: rows_of(packed_run, layout) for layout in ("prepend", "append", "plain")}
    samples = [sample for batch in seen(data, range(1, 9), known) for sample in batch]
    assert not {row for layout, row in samples if layout == "prepend"} & set(data.validation_rows.tolist())
    for layout in ("append", "plain"):
        dataset = PackedDataset.open(packed_run, layout)
        rows = [row for name, row in samples if name == layout]
        assert rows
        assert not text_tokens(dataset)[rows][:, held].any()
        without = (~text_tokens(dataset)[:, held].any(axis=1)).sum()
        (source,) = (
            TrainingData(
                mixed(validation_rows=5, sources=[{"layout": "prepend"}, {"layout": layout}]), output=packed_run
            )
            ._phases[0]
            .sources[1:]
        )
        assert len(source) == without


def test_sources_of_other_runs(packed_run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=5)
    sources = [{"layout": "prepend"}, {"layout": "prepend", "output": str(other)}]
    data = TrainingData(config(sources=sources, batch_size=60), output=packed_run)
    known = {"here": rows_of(packed_run, "prepend"), "there": rows_of(other, "prepend")}
    # Of the other run, all rows; of this one, all but the one held out.
    assert data.num_rows == len(known["here"]) - 1 + len(known["there"])
    assert {name for batch in seen(data, range(1, 3), known) for name, _ in batch} == {"here", "there"}


def test_validation_rows_of_another_run_are_not_trained_on(packed_run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=5)
    settings = {"sources": [{"layout": "prepend"}, {"layout": "append", "output": str(other)}]}
    data = TrainingData(config(**settings, validation_output=str(other), validation_rows=4), output=packed_run)
    held = text_tokens(data.validation_dataset)[data.validation_rows].any(axis=0)
    kept = ~text_tokens(PackedDataset.open(other, "append"))[:, held].any(axis=1)
    assert data.num_rows == len(data.dataset) + kept.sum()
    with pytest.raises(TrainerError, match="all with documents that are validated on: none is left to train on"):
        TrainingData(config(**settings, validation_output=str(other)), output=packed_run)


@pytest.mark.parametrize("column", ["table", "numbers"])
def test_rows_come_by_their_weights(run_output: Path, column: str) -> None:
    annotate(
        run_output, topic=["ab"[n % 2] for n in range(NUM_DOCUMENTS)], quality=[n % 2 for n in range(NUM_DOCUMENTS)]
    )
    weights: dict[str, Any] = {"column": "topic", "table": {"a": 0}} if column == "table" else {"column": "quality"}
    sources = [{"layout": "prepend", "row_weights": weights}]
    data = TrainingData(config(sources=sources, validation_rows=0, **ONE), output=run_output)
    tokens = text_tokens(data.dataset)
    expected = tokens[:, 1::2].sum(axis=1) / tokens.sum(axis=1)
    expected *= len(expected) / expected.sum()
    known = {"prepend": rows_of(run_output, "prepend")}
    assert len(known["prepend"]) == len(expected)  # no two rows are alike
    counts = np.bincount(
        [row for ((_, row),) in seen(data, range(1, 1 + len(expected)), known)], minlength=len(expected)
    )
    assert (counts >= np.floor(expected - 1e-6)).all()
    assert (counts <= np.ceil(expected + 1e-6)).all()


def test_a_curriculum_of_the_run_is_that_of_its_sources(run_output: Path) -> None:
    annotate(run_output, quality=list(range(NUM_DOCUMENTS)))
    curriculum = {"column": "quality", "order": "descending", "buckets": 10**6}
    data = TrainingData(config(curriculum=curriculum, **ONE), output=run_output)
    tokens = text_tokens(data.dataset)
    scores = (tokens * np.arange(NUM_DOCUMENTS)).sum(axis=1) / tokens.sum(axis=1)
    known = rows_of(run_output, "prepend")
    assert len(known) == len(data.dataset)  # no two rows are alike
    samples = seen(data, range(1, data.num_rows + 1), {"prepend": known})
    found = [scores[row] for ((_, row),) in samples]
    assert found == sorted(found, reverse=True)


def test_layouts_that_do_not_fit_are_named(run_output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mix(other: Path) -> None:
        sources = [{"layout": "prepend"}, {"layout": "plain", "output": str(other)}]
        TrainingData(config(sources=sources), output=run_output)

    short = write_run(tmp_path / "short", sequence_length=32)
    with pytest.raises(TrainerError) as raised:
        mix(short)
    assert str(raised.value) == (
        f"layouts 'prepend' of {run_output} and 'plain' of {short} cannot be trained on together: "
        "they differ in sequence_length, 48 and 32"
    )
    monkeypatch.setattr(runs, "TOKENIZER", runs.TOKENIZER.model_copy(update={"sha256": "1" * 64}))
    with pytest.raises(TrainerError, match=r"'prepend' of .* and 'plain' of .* they differ in tokenizer$"):
        mix(write_run(tmp_path / "retokenized"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"layout": "prepended"},
            "has no layout 'prepended'; available: append, masked, meta_tokens, plain, prepend",
        ),
        ({"layout": "plain", "output": "nowhere"}, "nowhere is not the output of a finished run"),
    ],
)
def test_sources_that_are_not_there(packed_run: Path, source: dict[str, Any], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        TrainingData(config(sources=[{"layout": "prepend"}, source]), output=packed_run)


def test_weights_that_leave_nothing(run_output: Path) -> None:
    annotate(run_output, quality=[0] * NUM_DOCUMENTS)
    sources = [{"layout": "prepend", "row_weights": {"column": "quality"}}]
    with pytest.raises(TrainerError, match=r"layout 'prepend': row_weights\.column 'quality': all rows weigh 0"):
        TrainingData(config(sources=sources), output=run_output)


TRAINED: dict[str, Any] = {
    **MIXED,
    "steps": 10,
    "phases": [{"from_step": 5, "layout": "plain"}, {"from_step": 8, "sources": MIXED["sources"]}],
    "checkpoint_every": 3,
    "log_every": 1,
    "learning_rate": 1e-2,
}


@pytest.mark.parametrize("killed", [4, 7, 10])
def test_a_mixed_run_killed_in_any_phase_goes_on_to_the_bit(run_output: Path, killed: int) -> None:
    settings = config(**TRAINED)
    train(settings, name="unbroken", output=run_output)
    with pytest.raises(Exception, match=r"^$"):
        train(settings, name="killed", output=run_output, report=kill_at(killed))
    told: list[str] = []
    train(settings, name="killed", output=run_output, resume=True, report=told.append)
    assert told[0].startswith(f"resumed after step {(killed - 1) // 3 * 3} from ")
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


def test_what_has_not_begun_may_change(run_output: Path) -> None:
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
