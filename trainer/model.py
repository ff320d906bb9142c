"""A Llama decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention.

Parameters are named, and rotary pairs are laid out (first half with second half), as in Hugging Face's Llama, so that
an export is a prefix away. The loss is part of the forward pass: a wrapper that gathers sharded parameters around
`forward` then covers the output layer too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from shards.schema import TokenizerInfo
from trainer.attention import Mask, attend
from trainer.config import ModelConfig
from trainer.loss import chunked_cross_entropy

VOCABULARY_MULTIPLE = 64


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        kv_size = config.num_kv_heads * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, states: Tensor, rotation: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
        """[b, L, hidden_size] to the same shape."""
        query, key, value = (self._heads(proj(states)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        attended = attend(rotate(query, rotation), rotate(key, rotation), value, mask=mask)
        out: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return out

    def _heads(self, states: Tensor) -> Tensor:
        """[b, L, heads * head_size] to [b, heads, L, head_size]."""
        return states.view(*states.shape[:2], -1, self.head_size).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.ffn_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.ffn_size, bias=False)
        self.down_proj = nn.Linear(config.ffn_size, config.hidden_size, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """[b, L, hidden_size] to the same shape."""
        out: Tensor = self.down_proj(silu(self.gate_proj(states)) * self.up_proj(states))
        return out


class Layer(nn.Module):
    """Attention, then feed-forward, each normalised before and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, states: Tensor, rotation: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
        """[b, L, hidden_size] to the same shape."""
        states = states + self.self_attn(self.input_layernorm(states), rotation, mask)
        out: Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return out


class Decoder(nn.Module):
    """The whole model."""

    def __init__(self, config: ModelConfig, *, tokenizer: TokenizerInfo) -> None:
        """Uninitialised weights; `initialise` draws them."""
        super().__init__()
        self.config = config
        self.num_ids = tokenizer.num_ids
        self.meta_token_ids = list(tokenizer.special.meta)
        vocabulary_size = -(-self.num_ids // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        self.embed_tokens = nn.Embedding(vocabulary_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.lm_head: nn.Linear | None = None
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, vocabulary_size, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """[vocabulary_size, hidden_size]: the output layer, which may be the embedding."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    @property
    def num_parameters(self) -> int:
        """All weights, the embedding once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def initialise(self, *, seed: int) -> None:
        """Draw all weights from `seed`: normal with `init_std`, smaller by sqrt(2 layers) where a layer writes into
        the residual stream (GPT-2's rule), norms at 1, meta tokens like an average token."""
        generator = torch.Generator().manual_seed(seed)
        residual_std = self.config.init_std / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            std = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else self.config.init_std
            parameter.normal_(0.0, std, generator=generator)
        initialise_meta_tokens(self.embed_tokens.weight, self.meta_token_ids, num_ids=self.num_ids, generator=generator)

    def hidden_states(self, input_ids: Tensor, positions: Tensor, mask: Mask) -> Tensor:
        """Last states, normalised: [b, L, hidden_size] for `input_ids` int64 and `positions` int32, both [b, L]."""
        states: Tensor = self.embed_tokens(input_ids)
        rotation = rotation_at(positions, head_size=self.config.head_size, base=self.config.rope_base)
        for layer in self.layers:
            states = layer(states, rotation, mask)
        normalised: Tensor = self.norm(states)
        return normalised

    def forward(
        self, input_ids: Tensor, positions: Tensor, mask: Mask, labels: Tensor, loss_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum of weight x loss over the labels [b, L], a scalar, and the unweighted losses [b * L] for reporting."""
        states = self.hidden_states(input_ids, positions, mask)
        return chunked_cross_entropy(
            states.flatten(0, 1),
            self.output_weight,
            labels.flatten(),
            loss_weights.flatten(),
            num_ids=self.num_ids,
        )


@torch.no_grad()
def initialise_meta_tokens(weight: Tensor, ids: Sequence[int], *, num_ids: int, generator: torch.Generator) -> None:
    """Put the rows `ids` of an embedding [vocabulary_size, hidden_size] at the mean of the other ids' rows, with their
    spread, dimension by dimension."""
    if not ids:
        return
    others = torch.ones(num_ids, dtype=torch.bool)
    others[list(ids)] = False
    rows = weight[:num_ids][others]
    noise = torch.randn((len(ids), weight.shape[1]), generator=generator, dtype=weight.dtype)
    weight[list(ids)] = rows.mean(dim=0) + rows.std(dim=0) * noise


def rotation_at(positions: Tensor, *, head_size: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines float32 [b, 1, L, head_size / 2] of the angles position x base^(-2i / head_size)."""
    exponents = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32) / head_size
    angles = positions[:, None, :, None].float() * base**-exponents
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (i, i + head_size / 2) of `heads` [b, heads, L, head_size] by their positions' angles."""
    cos, sin = rotation
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(heads.dtype)
