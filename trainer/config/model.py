"""The sizes of a model, and presets of them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from colophon.shards.common.errors import did_you_mean
from colophon.trainer.config.base import Settings

MODEL_PRESETS: dict[str, dict[str, Any]] = {
    "1m": {"num_layers": 4, "hidden_size": 128, "ffn_size": 384, "num_heads": 4, "num_kv_heads": 2},
    "10m": {"num_layers": 6, "hidden_size": 384, "ffn_size": 1024, "num_heads": 6, "num_kv_heads": 2},
    "124m": {"num_layers": 12, "hidden_size": 768, "ffn_size": 2048, "num_heads": 12, "num_kv_heads": 12},
    "350m": {"num_layers": 24, "hidden_size": 1024, "ffn_size": 2816, "num_heads": 16, "num_kv_heads": 16},
    "1.5b": {
        "num_layers": 16,
        "hidden_size": 2048,
        "ffn_size": 8192,
        "num_heads": 32,
        "num_kv_heads": 8,
        "init_std": 0.008944,
        "tie_embeddings": False,
    },
}
"""Sizes by name. `1m` and `10m` count parameters without embeddings, `124m` and `350m` with GPT-2's vocabulary, `1.5b`
(the paper's model) with Mistral-Nemo's."""


class ModelConfig(Settings):
    """A Llama decoder: the name of a preset, or a table. The key `preset` names one whose keys the others override;
    without it the first five keys are required.

    Example:

        [train.tiny]
        model = { preset = "1m", qk_norm = true }
    """

    num_layers: int = Field(ge=1)
    """Layers of the decoder."""
    hidden_size: int = Field(ge=1)
    """Width of the embedding and of the residual stream."""
    ffn_size: int = Field(ge=1)
    """Width inside of a feed-forward layer."""
    num_heads: int = Field(ge=1)
    """Heads of queries; `hidden_size` is a multiple of it, and a head has an even width."""
    num_kv_heads: int = Field(ge=1)
    """Heads of keys and values; `num_heads` is a multiple of it."""
    rope_base: float = Field(500_000.0, gt=1)
    """Base of the rotary position embedding."""
    norm_eps: float = Field(1e-5, gt=0)
    """Epsilon of RMSNorm."""
    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the initial weights, divided by sqrt(2 layers) for matrices that write into the residual
    stream."""
    tie_embeddings: bool = True
    """Whether the output layer is the embedding."""
    qk_norm: bool = False
    """Whether the queries and keys of each head are normalised before the rotation."""
    vocabulary_multiple: int = Field(64, ge=1)
    """The embedding's rows are padded to a multiple of this; ids beyond the tokenizer's get no probability."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, value: Any) -> Any:
        table = {"preset": value} if isinstance(value, str) else value
        if not isinstance(table, dict) or "preset" not in table:
            return table
        preset = table["preset"]
        if preset not in MODEL_PRESETS:
            guess, available = did_you_mean(str(preset), MODEL_PRESETS), ", ".join(MODEL_PRESETS)
            raise ValueError(f"unknown model preset {preset!r}; available: {available}{guess}")
        return {**MODEL_PRESETS[preset], **{key: entry for key, entry in table.items() if key != "preset"}}

    @model_validator(mode="after")
    def _check_heads(self) -> ModelConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.head_size % 2:
            raise ValueError(f"hidden_size / num_heads is {self.head_size}; RoPE rotates pairs, so it must be even")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads
