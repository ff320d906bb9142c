"""The table of presets in docs/recipes.md has their sizes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from colophon.shards.schema import SpecialIds, TokenizerInfo
from colophon.trainer.config import (
    MODEL_PRESETS,
    ModelConfig,
)
from colophon.trainer.model.decoder import Decoder

DOCUMENT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
SPECIAL = SpecialIds(bos=0, eos=1, pad=2, boc=3, eoc=4, meta=(5, 6, 7, 8, 9))
GPT2 = TokenizerInfo(name="gpt2", sha256="0" * 64, num_base_ids=50257, num_ids=50266, special=SPECIAL)
TEKKEN = TokenizerInfo(name="tekken", sha256="0" * 64, num_base_ids=131072, num_ids=131072, special=SPECIAL)


def rows() -> list[dict[str, str]]:
    """The rows of the table, by heading, without backticks and commas."""
    (table,) = re.findall(r"^\| `preset` .*\n(?:\|.*\|\n)+", DOCUMENT, re.MULTILINE)
    cells = [
        [cell.strip().strip("`").replace(",", "") for cell in line[1:-1].split("|")] for line in table.splitlines()
    ]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


@pytest.mark.parametrize("preset", MODEL_PRESETS)
def test_the_presets_are_as_documented(preset: str) -> None:
    row = next(row for row in rows() if row["preset"] == preset)
    config = ModelConfig.model_validate(preset)
    sizes = ("num_layers", "hidden_size", "ffn_size", "num_heads", "num_kv_heads")
    assert [int(row[key]) for key in sizes] == [getattr(config, key) for key in sizes]
    assert int(row["head"]) == config.head_size
    for tokenizer, heading in ((GPT2, "with 50k ids"), (TEKKEN, "with 131k ids")):
        with torch.device("meta"):
            decoder = Decoder(config, tokenizer=tokenizer, masked_ids=())
        parameters = sum(parameter.numel() for parameter in decoder.parameters())
        embeddings = decoder.embed_tokens.weight.numel() * (1 if config.tie_embeddings else 2)
        assert int(row[heading]) == parameters
        assert int(row["parameters without embeddings"]) == parameters - embeddings
