"""A Llama decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention, optional QK-norm.

Parameter names, and the layout of rotary pairs (first half with second half), are those of Hugging Face's Llama, so
that an export only adds a prefix. Weights are float32; activations and matrix products have the dtype that `forward`
gets, so each layer casts its weight. The loss is part of the forward pass: a wrapper that gathers sharded parameters
around `forward` then covers the output layer too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu
from torch.utils.checkpoint import checkpoint

from colophon.shards.schema import TokenizerInfo
from colophon.trainer.config import CompileScope, ModelConfig
from colophon.trainer.errors import TrainerError
from colophon.trainer.model.attention import Mask, attend
from colophon.trainer.model.loss import TokenLosses, chunked_cross_entropy

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From queries, keys and values, [b, heads, L, head_size] each, to the same shape as the queries."""

Shard = Callable[[Tensor, Tensor], Tensor]
"""From a complete tensor and this process's shard of a parameter to the corresponding shard of the tensor."""


class Linear(nn.Linear):
    """A matrix without bias, cast to the dtype of its input."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Does nothing: `Decoder.initialise` draws the weights; drawing a billion here as well would take half a
        minute."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return linear(input, self.weight.to(input.dtype))


class Embedding(nn.Embedding):
    """A table of vectors by id."""

    def reset_parameters(self) -> None:
        """Does nothing, as in `Linear`."""


class Norm(nn.RMSNorm):
    """RMSNorm in the dtype of its input; torch sums the squares in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def joined_products(states: Tensor, layers: Sequence[nn.Linear]) -> Sequence[Tensor]:
    """The outputs of several layers for the same input, [..., out_features] each.

    In training they are one product, which is faster than several narrower ones: the weights are joined while they are
    cast. Without gradients, as when one token is generated, copying the weights would cost more than the product.
    Layers that `trainer.device.float8` has converted multiply themselves.
    """
    if not torch.is_grad_enabled() or not all(isinstance(layer, Linear) for layer in layers):
        return [layer(states) for layer in layers]
    weight = torch.cat([layer.weight.to(states.dtype) for layer in layers])
    return torch.split(linear(states, weight), [layer.out_features for layer in layers], dim=-1)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        kv_size = config.num_kv_heads * config.head_size
        self.q_proj = Linear(config.hidden_size, config.hidden_size)
        self.k_proj = Linear(config.hidden_size, kv_size)
        self.v_proj = Linear(config.hidden_size, kv_size)
        self.o_proj = Linear(config.hidden_size, config.hidden_size)
        self.q_norm = Norm(config.head_size, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = Norm(config.head_size, eps=config.norm_eps) if config.qk_norm else None

    def forward(self, states: Tensor, rotation: tuple[Tensor, Tensor], mask: Mask | Attend) -> Tensor:
        """[b, L, hidden_size] to the same shape. `mask` may also be a function that attends, such as a cache."""
        query, key, value = self.project(states, rotation)
        attended = mask(query, key, value) if callable(mask) else attend(query, key, value, mask=mask)
        out: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return out

    def project(self, states: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [b, heads, L, head_size], keys and values [b, kv_heads, L, head_size] of `states`, rotated."""
        query, key, value = map(self._heads, joined_products(states, (self.q_proj, self.k_proj, self.v_proj)))
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        return rotate(query, rotation), rotate(key, rotation), value

    def _heads(self, states: Tensor) -> Tensor:
        """[b, L, heads * head_size] to [b, heads, L, head_size]."""
        return states.view(*states.shape[:2], -1, self.head_size).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.ffn_size)
        self.up_proj = Linear(config.hidden_size, config.ffn_size)
        self.down_proj = Linear(config.ffn_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """[b, L, hidden_size] to the same shape."""
        gate, up = joined_products(states, (self.gate_proj, self.up_proj))
        out: Tensor = self.down_proj(silu(gate) * up)
        return out


class Layer(nn.Module):
    """Attention, then feed-forward, each normalised before and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.hidden_size, eps=config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(config.hidden_size, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, states: Tensor, rotation: tuple[Tensor, Tensor], mask: Mask | Attend) -> Tensor:
        """[b, L, hidden_size] to the same shape."""
        states = states + self.self_attn(self.input_layernorm(states), rotation, mask)
        out: Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return out


class Decoder(nn.Module):
    """The complete model: embedding, layers, norm, output layer."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        tokenizer: TokenizerInfo,
        masked_ids: Sequence[int] = (),
        activation_checkpointing: bool = False,
        compiled: CompileScope | None = None,
    ) -> None:
        """Allocate the weights; `initialise` draws them.

        Args:
            config: sizes.
            tokenizer: of the shards.
            masked_ids: ids that get no probability.
            activation_checkpointing: whether the backward pass recomputes the layers.
            compiled: what is compiled, beside the loss. `layers`: each separately, one compilation serves all of them.
                `model`, `cuda_graphs`: all of them as one graph of fixed shapes; masks must then be `padded`.
        """
        super().__init__()
        self.config = config
        self.num_ids = tokenizer.num_ids
        self.meta_token_ids = list(tokenizer.special.meta)
        self.activation_checkpointing = activation_checkpointing
        self.compiled = compiled
        vocabulary_size = num_rows(config, tokenizer)
        self.embed_tokens = Embedding(vocabulary_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self._compiled_states: Callable[..., Tensor] | None = None
        if compiled == "layers":
            for layer in self.layers:
                layer.compile(dynamic=False)
        elif compiled is not None:
            mode = "reduce-overhead" if compiled == "cuda_graphs" else None
            self._compiled_states = torch.compile(self.hidden_states, dynamic=False, fullgraph=True, mode=mode)
        self.norm = Norm(config.hidden_size, eps=config.norm_eps)
        self.lm_head = None if config.tie_embeddings else Linear(config.hidden_size, vocabulary_size)
        impossible = torch.tensor([*masked_ids, *range(self.num_ids, vocabulary_size)], dtype=torch.int64)
        self.register_buffer("impossible_ids", impossible, persistent=False)
        self.impossible_ids: Tensor

    @property
    def is_one_graph(self) -> bool:
        """Whether all layers are compiled as one graph."""
        return self.compiled in {"model", "cuda_graphs"}

    @property
    def output_weight(self) -> Tensor:
        """[vocabulary_size, hidden_size]: the output layer, which may be the embedding."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor], *, shard: Shard = lambda complete, like: complete) -> None:
        """Set all weights from complete ones, by parameter name; `shard` cuts this process's shard of each.

        Raises:
            TrainerError: names or shapes are not those of the model.
        """
        own = dict(self.named_parameters())
        if own.keys() != weights.keys() or not all(_fits(own[name], weights[name]) for name in own):
            raise TrainerError("the checkpoint's weights are not those of this model")
        for name, parameter in own.items():
            parameter.copy_(shard(weights[name], parameter))

    @property
    def num_parameters(self) -> int:
        """The number of weights; an embedding that is also the output layer counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, sequence_length: int) -> int:
        """Operations per token and update: 6 per weight of a matrix product, and 6 x layers x hidden_size x
        sequence_length for causal attention over whole rows (arXiv 2204.02311, appendix B, halved for causality)."""
        config = self.config
        weights = sum(parameter.numel() for parameter in self.layers.parameters()) + self.output_weight.numel()
        return 6 * weights + 6 * config.num_layers * config.hidden_size * sequence_length

    @torch.no_grad()
    def initialise(self, *, seed: int) -> None:
        """Draw all weights from `seed`: normal with `init_std`, divided by sqrt(2 layers) where a layer writes into
        the residual stream (GPT-2's rule); norms at 1; meta tokens near the mean of the other tokens."""
        generator = torch.Generator().manual_seed(seed)
        residual_std = self.config.init_std / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            std = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else self.config.init_std
            parameter.normal_(0.0, std, generator=generator)
        initialise_meta_tokens(self.embed_tokens.weight, self.meta_token_ids, num_ids=self.num_ids, generator=generator)

    def hidden_states(
        self,
        input_ids: Tensor,
        positions: Tensor,
        masks: Mask | Sequence[Attend],
        *,
        dtype: torch.dtype | None = None,
        visit: Callable[[Tensor], None] = lambda states: None,
    ) -> Tensor:
        """Normalised states after the last layer: [b, L, hidden_size].

        Args:
            input_ids: int64 [b, L].
            positions: int32 [b, L], of each token in its segment.
            masks: a mask of `trainer.model.attention`, or one function per layer that attends.
            dtype: of the activations; None: that of the weights.
            visit: called with the states before the first layer and after each, [b, L, hidden_size].
        """
        states: Tensor = self.embed_tokens(input_ids)
        states = states if dtype is None else states.to(dtype)
        rotation = rotation_at(positions, head_size=self.config.head_size, base=self.config.rope_base)
        visit(states)
        for i, layer in enumerate(self.layers):
            mask = masks[i] if isinstance(masks, Sequence) else masks
            if self.activation_checkpointing and torch.is_grad_enabled():
                states = checkpoint(layer, states, rotation, mask, use_reentrant=False, preserve_rng_state=False)
            else:
                states = layer(states, rotation, mask)
            visit(states)
        normalised: Tensor = self.norm(states)
        return normalised

    def logits(self, states: Tensor) -> Tensor:
        """float32 [..., vocabulary_size] of last states [..., hidden_size]; -inf where an id is impossible."""
        logits = linear(states, self.output_weight.to(states.dtype)).float()
        return logits.index_fill(-1, self.impossible_ids, float("-inf"))

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        mask: Mask,
        labels: Tensor,
        loss_weights: Tensor,
        *,
        dtype: torch.dtype | None = None,
        with_hits: bool = False,
    ) -> TokenLosses:
        """Losses of the labels int64 [b, L], n = b * L of them; arguments as of `hidden_states` and
        `chunked_cross_entropy`."""
        if self.compiled == "cuda_graphs":
            # From here on the states of the micro-batch before may be overwritten.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        hidden_states = self._compiled_states or self.hidden_states
        states = hidden_states(input_ids, positions, mask, dtype=dtype)
        return chunked_cross_entropy(
            states.flatten(0, 1),
            self.output_weight,
            labels.flatten(),
            loss_weights.flatten(),
            impossible_ids=self.impossible_ids,
            compiled=self.compiled is not None,
            with_hits=with_hits,
        )


@torch.no_grad()
def initialise_meta_tokens(weight: Tensor, ids: Sequence[int], *, num_ids: int, generator: torch.Generator) -> None:
    """Draw the rows `ids` of an embedding [vocabulary_size, hidden_size] with the mean and standard deviation of the
    other ids' rows, dimension by dimension."""
    if not ids:
        return
    others = torch.ones(num_ids, dtype=torch.bool)
    others[list(ids)] = False
    rows = weight[:num_ids][others]
    noise = torch.randn((len(ids), weight.shape[1]), generator=generator, dtype=weight.dtype)
    weight[list(ids)] = rows.mean(dim=0) + rows.std(dim=0) * noise


def row_positions(input_ids: Tensor) -> Tensor:
    """int32 [b, L]: positions in rows [b, L] of one segment each."""
    return torch.arange(input_ids.shape[1], dtype=torch.int32, device=input_ids.device).expand_as(input_ids)


def rotation_at(positions: Tensor, *, head_size: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines float32 [b, 1, L, head_size / 2] of the angles position x base^(-2i / head_size)."""
    exponents = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32) / head_size
    angles = positions[:, None, :, None].float() * base**-exponents
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the pairs (i, i + head_size / 2) of `heads` [b, heads, L, head_size] by their positions' angles."""
    cos, sin = rotation
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(heads.dtype)


def num_rows(config: ModelConfig, tokenizer: TokenizerInfo) -> int:
    """The rows of the embedding: the tokenizer's ids, padded to the multiple in the settings."""
    return -(-tokenizer.num_ids // config.vocabulary_multiple) * config.vocabulary_multiple


def _fits(parameter: Tensor, weight: Tensor) -> bool:
    """Whether a weight of a file can be that of a parameter."""
    return parameter.shape == weight.shape and weight.is_floating_point()
