from __future__ import annotations

import json
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from colophon.trainer.checkpoints.checkpoint import (
    MODEL_NAME,
    OPTIMIZER_NAME,
    STATE_NAME,
    Checkpoint,
    TrainingState,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    read_trained,
    save_checkpoint,
)
from colophon.trainer.checkpoints.tensor_checks import check_weights
from colophon.trainer.config import ModelConfig, TrainConfig
from colophon.trainer.data.description import DataDescription
from colophon.trainer.errors import NotWrittenError, TrainerError
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.optimization.optimizer import ModelOptimizer
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


STATE_EDITS: dict[str, Callable[[Any], object]] = {
    "random state not base64": lambda value: value.update(torch_rng="!!!"),
    "random state with other characters": lambda value: value.update(torch_rng=f"~{value['torch_rng']}"),
    "random state empty": lambda value: value.update(torch_rng=""),
    "random state short": lambda value: value.update(torch_rng="MDEyMzQ1Njc4OQ=="),
    "another step": lambda value: value["training"].update(step=2),
    "a huge step": lambda value: value["training"].update(step=10**400),
    "negative tokens": lambda value: value["training"].update(tokens=-1),
    "a text as step": lambda value: value["training"].update(step="x"),
    "an unknown key": lambda value: value.update(more=1),
    "shared is a list": lambda value: value.update(shared=[1]),
    "data is a text": lambda value: value.update(data="x"),
}


@pytest.mark.parametrize("name", STATE_EDITS)
def test_an_edited_state_is_one_line(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1)
    value = json.loads((path / STATE_NAME).read_text())
    STATE_EDITS[name](value)
    (path / STATE_NAME).write_text(json.dumps(value))
    with pytest.raises(TrainerError, match="step-00000001: damaged checkpoint: ") as raised:
        load(path)
    assert "Remove it to resume from the checkpoint before it" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_a_state_in_which_a_key_occurs_twice_is_one_line(tmp_path: Path) -> None:
    path = save(tmp_path, 1) / STATE_NAME
    path.write_text(path.read_text().replace('"step": 1', '"step": 1, "step": 1'))
    with pytest.raises(TrainerError, match="the key 'step' occurs twice"):
        read_trained(tmp_path / "step-00000001")


def test_directories_of_other_names_are_no_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 100_000_000, keep=9)
    save(tmp_path, 99_999_999, keep=9)
    for name in ("step-7", "step-0000000٣", "step-000000007", "step-zzz", "step-" + "9" * 200, "step-00000200 (copy)"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-99999999", "step-100000000"]


CONFIG = ModelConfig(num_layers=1, hidden_size=8, ffn_size=12, num_heads=2, num_kv_heads=1)
WEIGHT_EDITS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (lambda w: w.pop("norm.weight"), "without norm.weight"),
    "no embedding": (lambda w: w.pop("embed_tokens.weight"), "no embed_tokens.weight"),
    "more": (lambda w: w.update(extra=torch.zeros(3)), "with unknown extra"),
    "renamed": (lambda w: w.update(odd=w.pop("norm.weight")), "without norm.weight"),
    "reshaped": (lambda w: w.update({"norm.weight": torch.zeros(2, 2)}), r"norm.weight is \[2, 2\], the settings"),
    "int8": (lambda w: w.update({"norm.weight": torch.zeros(8, dtype=torch.int8)}), "norm.weight is int8, not float32"),
    "float64": (lambda w: w.update({"norm.weight": w["norm.weight"].double()}), "norm.weight is float64, not float32"),
    "NaN": (lambda w: w["norm.weight"].fill_(float("nan")), "norm.weight has numbers that are not finite"),
    "infinite": (lambda w: w["embed_tokens.weight"][0].fill_(float("inf")), "embed_tokens.weight has numbers that"),
    "a name of 10,000 characters": (lambda w: w.update({"x" * 10_000: torch.zeros(1)}), f"unknown {'x' * 80}$"),
}


def weights() -> dict[str, torch.Tensor]:
    decoder = Decoder(CONFIG, tokenizer=TOKENIZER)
    decoder.initialise(seed=0)
    return {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}


@pytest.mark.parametrize("name", WEIGHT_EDITS)
def test_weights_that_are_not_those_of_the_model_are_refused(name: str) -> None:
    edit, message = WEIGHT_EDITS[name]
    found = weights()
    check_weights(found, CONFIG, TOKENIZER, where="w")
    edit(found)
    with pytest.raises(TrainerError, match=f"^w: not the tensors of this model: .*{message}") as raised:
        check_weights(found, CONFIG, TOKENIZER, where="w")
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_layers": 10**9},
        {"hidden_size": 1 << 40},
        {"ffn_size": 1 << 40},
        {"vocabulary_multiple": 1 << 40},
        {"num_layers": 2},
        {"tie_embeddings": False},
        {"qk_norm": True},
    ],
)
def test_no_model_of_other_sizes_is_allocated(sizes: dict[str, Any]) -> None:
    config = ModelConfig.model_validate({**CONFIG.model_dump(), **sizes})
    with pytest.raises(TrainerError, match=r"^w: not the tensors of this model: "):
        check_weights(weights(), config, TOKENIZER, where="w")


@pytest.mark.parametrize("name", ["missing", "more", "reshaped", "int8", "NaN", "step"])
@pytest.mark.parametrize("kind", ["adamw", "ademamix", "muon"])
def test_an_optimizer_state_that_is_not_that_of_the_model_is_refused(name: str, kind: str) -> None:
    settings = {"layout": "l", "model": CONFIG.model_dump(), "steps": 2, "batch_size": 1, "optimizer": {"type": kind}}
    decoder = Decoder(CONFIG, tokenizer=TOKENIZER)
    decoder.initialise(seed=0)
    optimizer = ModelOptimizer(decoder, TrainConfig.model_validate(settings))
    for parameter in decoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(1e-3)
    state = {key: value.clone() for key, value in optimizer.tensors().items()}
    optimizer.load_tensors(state)
    key = next(key for key in state if key.endswith(("exp_avg", "momentum_buffer")))
    step = next(key for key in state if key.endswith(".step"))
    edits: dict[str, Callable[[], object]] = {
        "missing": lambda: state.pop(key),
        "more": lambda: state.update({f"{key}_more": torch.zeros(1)}),
        "reshaped": lambda: state.update({key: torch.zeros(1)}),
        "int8": lambda: state.update({key: state[key].to(torch.int8)}),
        "NaN": lambda: state[key].fill_(float("nan")),
        "step": lambda: state.update({step: torch.zeros(2)}),
    }
    edits[name]()
    with pytest.raises(TrainerError, match=r"^w: not the tensors of this model: "):
        optimizer.load_tensors(state, where="w")


def test_a_header_of_another_size_or_depth_is_one_line(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    huge = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}).encode()
    headers = (
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 20_000) + b"[" * 10_000 + b"]" * 10_000,
        struct.pack("<Q", len(huge)) + huge + b"1234",
        b"",
    )
    for content in headers:
        (path / MODEL_NAME).write_bytes(content)
        with pytest.raises(TrainerError, match="step-00000001: damaged checkpoint: ") as raised:
            load(path)
        assert "\n" not in str(raised.value)
