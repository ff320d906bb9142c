from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from colophon.trainer.config import MODEL_PRESETS, ModelConfig, TrainConfig, WsdSchedule
from tests.trainer.runs import TINY_MODEL, config


@pytest.mark.parametrize("preset", MODEL_PRESETS)
def test_a_preset_may_stand_alone_or_be_changed(preset: str) -> None:
    alone = TrainConfig.model_validate({"layout": "a", "steps": 10, "model": preset}).model
    changed = ModelConfig.model_validate({"preset": preset, "num_layers": 3})
    assert changed == alone.model_copy(update={"num_layers": 3})


def test_the_papers_model() -> None:
    model = ModelConfig.model_validate("1.5b")
    sizes = (model.num_layers, model.hidden_size, model.ffn_size, model.num_heads, model.num_kv_heads)
    assert sizes == (16, 2048, 8192, 32, 8)
    assert (model.rope_base, model.init_std, model.tie_embeddings) == (500_000, 0.008944, False)


def test_a_config_reads_back_from_json() -> None:
    wsd = config(schedule={"type": "wsd", "warmup_steps": 1, "decay": "linear"}, steps=10)
    assert isinstance(wsd.schedule, WsdSchedule)
    assert TrainConfig.model_validate_json(wsd.model_dump_json()) == wsd


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "2b"}, "unknown model preset '2b'; available: 1m, 10m, 124m, 350m, 1.5b"),
        ({"model": {**TINY_MODEL, "hidden_size": 65}}, "hidden_size 65 is not a multiple of num_heads 4"),
        ({"model": {**TINY_MODEL, "hidden_size": 4}}, "hidden_size / num_heads is 1"),
        ({"model": {**TINY_MODEL, "num_kv_heads": 3}}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"model": {"num_layers": 2}}, "Field required"),
        ({"batch_size": 10, "micro_batch_size": 4}, "batch_size 10 is not a multiple of micro_batch_size 4"),
        ({"schedule": {"warmup_steps": 9}}, "schedule.warmup_steps 9 is more than the run's 8 steps"),
        (
            {"schedule": {"type": "wsd", "warmup_steps": 5, "decay_fraction": 0.5}},
            "warm-up of 5 and decay of 4 steps are more than the run's 8",
        ),
        ({"schedule": {"type": "linear"}}, "'cosine', 'wsd'"),
        ({"schedule": {"type": "cosine", "decay_fraction": 0.1}}, "Extra inputs are not permitted"),
        ({"stepz": 10}, "Extra inputs are not permitted"),
        ({"steps": 0}, "greater than or equal to 1"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        config(**settings)
    (error, *_) = raised.value.errors()
    assert message in error["msg"]


@pytest.mark.parametrize(("batch_size", "rows_at_once"), [(504, 8), (6, 6), (9, 3), (13, 1), (16, 8), (1, 1)])
def test_the_default_micro_batch_divides_the_batch(batch_size: int, rows_at_once: int) -> None:
    assert config(batch_size=batch_size, micro_batch_size=None).rows_at_once == rows_at_once


def test_reading_a_config_does_not_load_torch() -> None:
    script = "import sys, colophon.trainer.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_name_means_a_table_of_defaults() -> None:
    assert config(optimizer="muon", schedule="wsd") == config(optimizer={"type": "muon"}, schedule={"type": "wsd"})
    with pytest.raises(ValueError, match=r"adamw.*ademamix.*muon"):
        config(optimizer="sgd")


def test_clipping_is_turned_off_in_toml() -> None:
    settings = config(optimizer={"max_grad_norm": math.inf})
    assert settings.optimizer.max_grad_norm is None
    written = settings.model_dump(mode="json")
    assert written["optimizer"]["max_grad_norm"] == "inf"
    assert type(settings).model_validate(written) == settings


@pytest.mark.parametrize("optimizer", ["adamw", "ademamix", "muon"])
def test_independent_weight_decay_requires_weight_decay(optimizer: str) -> None:
    settings = {"type": optimizer, "independent_weight_decay": True}
    with pytest.raises(ValueError, match="independent_weight_decay subtracts weight_decay x weight at every step"):
        config(optimizer=settings)
    assert config(optimizer={**settings, "weight_decay": 3e-5}).optimizer.weight_decay == 3e-5


def test_an_infinite_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        config(learning_rate=math.inf)
