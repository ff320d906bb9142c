from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from colophon.trainer.checkpoint import (
    OPTIMIZER_NAME,
    STATE_NAME,
    Checkpoint,
    TrainingState,
    latest_checkpoint,
    load_checkpoint,
    read_trained,
    save_checkpoint,
)
from colophon.trainer.data.description import DataDescription
from colophon.trainer.errors import NotWrittenError, TrainerError
from tests.trainer.runs import TOKENIZER

DATA = DataDescription(tokenizer=TOKENIZER, layouts=[], held_out=[])
SHARED = {"seed": 0, "shards": "a" * 64, "model": {"num_layers": 2}}


def made(step: int, *, seed: int = 0) -> Checkpoint:
    generator = torch.Generator().manual_seed(seed)
    weights = {"weight": torch.randn(2, 3, generator=generator), "bias": torch.randn(2, generator=generator)}
    moments = {f"{name}.exp_avg": torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    return Checkpoint(state=TrainingState(step=step, tokens=7 * step), weights=weights, optimizer=moments)


def save(directory: Path, step: int, *, seed: int = 0, keep: int = 2) -> Path:
    return save_checkpoint(directory, made(step, seed=seed), data=DATA, shared=SHARED, keep=keep)


def load(path: Path, *, shared: dict[str, Any] = SHARED) -> Checkpoint:
    return load_checkpoint(path, shared=shared)


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    path = save(tmp_path, 12, seed=5)
    saved, rng = made(12, seed=5), torch.get_rng_state()
    torch.rand(10)
    found = load(path)
    assert found.state == TrainingState(step=12, tokens=84)
    for expected, tensors in ((saved.weights, found.weights), (saved.optimizer, found.optimizer)):
        assert expected.keys() == tensors.keys()
        assert all(torch.equal(expected[name], tensors[name]) for name in expected)
    assert torch.equal(torch.get_rng_state(), rng)
    assert path.name == "step-00000012"
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1, "safetensors would let only the owner read"


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 9, 10, 100):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000100"


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "missing") is None


def test_a_save_that_is_killed_leaves_nothing_under_a_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def kill(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("colophon.shards.common.durable.sync", kill)
        save(tmp_path, 2)
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000001"
    (tmp_path / ".step-00000002.0123456789ab.tmp").mkdir()  # as left by a kill that Python cannot catch
    save(tmp_path, 2)
    assert load(tmp_path / "step-00000002").state.step == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_a_save_without_room_is_one_line_and_takes_none(tmp_path: Path) -> None:
    save(tmp_path, 1)
    largest = max(path.stat().st_size for path in (tmp_path / "step-00000001").iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, before[1]))  # as a full disk: writing fails in the middle
    try:
        with pytest.raises(
            NotWrittenError, match=r"step-00000002: not written: .*File too large.*; --resume continues"
        ):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("name", ["model.safetensors", OPTIMIZER_NAME, STATE_NAME])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, damage: str) -> None:
    file = save(tmp_path, 1) / name
    content = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainerError, match="step-00000001: damaged checkpoint: ") as raised:
        load(tmp_path / "step-00000001")
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    other = {"seed": 0, "shards": "b" * 64, "model": {"num_layers": 4}}
    with pytest.raises(TrainerError) as raised:
        load(path, shared=other)
    assert str(raised.value).endswith(f"shards: '{'a' * 56}... -> '{'b' * 56}...; model.num_layers: 2 -> 4")


def test_a_checkpoint_with_the_old_name_of_a_setting_is_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, made(1), data=DATA, shared={"mask_unpaid_ids": False}, keep=1)
    assert load(path, shared={"mask_zero_weight_ids": False}).state.step == 1
    with pytest.raises(TrainerError, match=r"mask_zero_weight_ids: False -> True$"):
        load(path, shared={"mask_zero_weight_ids": True})


def test_a_checkpoint_of_an_earlier_version_without_its_layout_is_refused_in_one_line(tmp_path: Path) -> None:
    state = save(tmp_path, 1) / STATE_NAME
    saved = json.loads(state.read_text())
    del saved["data"]
    state.write_text(json.dumps(saved))
    for read in (load, read_trained):
        with pytest.raises(
            TrainerError, match=r"step-00000001: an earlier version wrote this checkpoint, .*"
        ) as raised:
            read(tmp_path / "step-00000001")
        assert "\n" not in str(raised.value)
