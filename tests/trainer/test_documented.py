"""The tables of docs/recipes.md have the defaults of models, optimizers and schedules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from colophon.shards.schema import SpecialIds, TokenizerInfo
from colophon.trainer.config import (
    MODEL_PRESETS,
    AdamWConfig,
    AdEMAMixConfig,
    CosineSchedule,
    ModelConfig,
    MuonConfig,
    TrainConfig,
    WsdSchedule,
)
from colophon.trainer.model import Decoder

DOCUMENT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
SPECIAL = SpecialIds(bos=0, eos=1, pad=2, boc=3, eoc=4, meta=(5, 6, 7, 8, 9))
GPT2 = TokenizerInfo(name="gpt2", sha256="0" * 64, num_base_ids=50257, num_ids=50266, special=SPECIAL)
TEKKEN = TokenizerInfo(name="tekken", sha256="0" * 64, num_base_ids=131072, num_ids=131072, special=SPECIAL)
CELLS: dict[str, Any] = {"derived": None, "all steps": None, "true": True, "false": False, "": None}


def tables(section: str) -> list[list[dict[str, str]]]:
    """The rows of each table of a section, by heading, without backticks and thousands' commas."""
    text = DOCUMENT.partition(f"### {section}\n")[2].partition("\n### ")[0]
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip().strip("`") for cell in line[1:-1].split("|")] for line in block.splitlines()]
        found.append([dict(zip(rows[0], row, strict=True)) for row in rows[2:]])
    return found


def number(cell: str) -> Any:
    return CELLS[cell] if cell in CELLS else float(cell.replace(",", ""))


@pytest.mark.parametrize("preset", MODEL_PRESETS)
def test_the_presets_are_as_documented(preset: str) -> None:
    row = next(row for row in tables("Models")[0] if row["preset"] == preset)
    config = ModelConfig.model_validate(preset)
    sizes = ("num_layers", "hidden_size", "ffn_size", "num_heads", "num_kv_heads")
    assert [number(row[key]) for key in sizes] == [getattr(config, key) for key in sizes]
    assert number(row["head"]) == config.head_size
    for tokenizer, heading in ((GPT2, "with 50k ids"), (TEKKEN, "with 131k ids")):
        with torch.device("meta"):
            decoder = Decoder(config, tokenizer=tokenizer, masked_ids=())
        parameters = sum(parameter.numel() for parameter in decoder.parameters())
        embeddings = decoder.embed_tokens.weight.numel() * (1 if config.tie_embeddings else 2)
        assert number(row[heading]) == parameters
        assert number(row["parameters without embeddings"]) == parameters - embeddings


def test_the_defaults_of_models_are_as_documented() -> None:
    for row in tables("Models")[1]:
        default, _, large = row["default"].partition("; `1.5b` ")
        assert number(default) == ModelConfig.model_fields[row["key"]].default
        if large:
            assert number(large) == MODEL_PRESETS["1.5b"][row["key"]]


@pytest.mark.parametrize("config", [AdamWConfig, AdEMAMixConfig, MuonConfig])
def test_the_defaults_of_optimizers_are_as_documented(config: type[AdamWConfig]) -> None:
    name = str(config.model_fields["type"].annotation).split("'")[1]
    (rows,) = tables("Optimizers")
    documented = {row["key"]: number(row[name]) for row in rows if row[name]}
    assert documented == {key: field.default for key, field in config.model_fields.items() if key != "type"}


@pytest.mark.parametrize("config", [CosineSchedule, WsdSchedule])
def test_the_defaults_of_schedules_are_as_documented(config: type[CosineSchedule]) -> None:
    name = str(config.model_fields["type"].annotation).split("'")[1]
    (rows,) = tables("Schedules")
    documented = {row["key"]: row[name].strip('"') for row in rows if row[name]}
    assert documented.keys() == config.model_fields.keys() - {"type"}
    for key, cell in documented.items():
        default = config.model_fields[key].default
        assert (cell if isinstance(default, str) else number(cell)) == default


def test_the_defaults_of_a_run_are_as_documented() -> None:
    text = DOCUMENT.partition("## `[train.NAME]`\n")[2].partition("\n### ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE))
    numbers = ("batch_size", "learning_rate", "seed", "validation_every", "checkpoint_every", "log_every")
    for key in (*numbers, "keep_checkpoints"):
        assert float(rows[key]) == TrainConfig.model_fields[key].default
