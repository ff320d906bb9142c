"""Contestant: the same model and loop, as short as possible in plain torch, in the style of nanoGPT.

Whole logits, causal attention across documents, autocast, fused AdamW; batches are in memory beforehand.

    python -m benchmarks.trainer.plain_loop JOB
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

from benchmarks.trainer.job import TrainingJob, read_job, report
from colophon.trainer.config import ModelConfig


class Block(nn.Module):
    """Attention and SwiGLU, each after an RMSNorm."""

    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = c.num_heads, c.num_kv_heads, c.head_size
        self.norm1, self.norm2 = (nn.RMSNorm(c.hidden_size, eps=c.norm_eps) for _ in range(2))
        self.q = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.k = nn.Linear(c.hidden_size, c.num_kv_heads * c.head_size, bias=False)
        self.v = nn.Linear(c.hidden_size, c.num_kv_heads * c.head_size, bias=False)
        self.o = nn.Linear(c.hidden_size, c.hidden_size, bias=False)
        self.gate = nn.Linear(c.hidden_size, c.ffn_size, bias=False)
        self.up = nn.Linear(c.hidden_size, c.ffn_size, bias=False)
        self.down = nn.Linear(c.ffn_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return hidden states of the same shape, [b, L, hidden_size]."""
        b, length, width = x.shape
        h = self.norm1(x)
        q, k, v = (
            proj(h).view(b, length, heads, self.size).transpose(1, 2)
            for proj, heads in ((self.q, self.heads), (self.k, self.kv_heads), (self.v, self.kv_heads))
        )
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, length, width))
        h = self.norm2(x)
        out: Tensor = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return out


class Llama(nn.Module):
    """The decoder."""

    def __init__(self, c: ModelConfig, *, vocabulary_size: int, num_ids: int) -> None:
        super().__init__()
        self.config, self.num_ids = c, num_ids
        self.embed = nn.Embedding(vocabulary_size, c.hidden_size)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.num_layers))
        self.norm = nn.RMSNorm(c.hidden_size, eps=c.norm_eps)
        self.head = nn.Linear(c.hidden_size, vocabulary_size, bias=False)
        if c.tie_embeddings:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of `labels` [b, L] after `ids` [b, L]."""
        c = self.config
        frequencies = c.rope_base ** -(torch.arange(0, c.head_size, 2, device=ids.device) / c.head_size)
        angles = torch.arange(ids.shape[1], device=ids.device)[:, None] * frequencies
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin())
        logits = self.head(self.norm(x))[..., : self.num_ids].float()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


_NAMES = {
    "input_layernorm": "norm1",
    "post_attention_layernorm": "norm2",
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
    "layers.": "blocks.",
    "embed_tokens": "embed",
    "lm_head": "head",
}


def _renamed(name: str) -> str:
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name


def labels_of(job: TrainingJob, rows: Any) -> Tensor:
    """Return the inputs shifted by one, int64; -1 where labels have no loss weight: bos and padding."""
    labels = torch.from_numpy(rows[..., 1:].copy())
    base = job.num_ids - 5
    labels[(labels == base) | (labels == base + 2)] = -1
    return labels


def main(path: str) -> None:
    """Train the job at `path`."""
    job = read_job(path)
    config = job.config(document_masking=False).model
    weights = {_renamed(name): tensor for name, tensor in job.initial_weights().items()}
    size = weights["embed.weight"].shape[0]
    model: Any = Llama(config, vocabulary_size=size, num_ids=job.num_ids)
    model.load_state_dict(weights, strict=not config.tie_embeddings)
    model.to(job.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True
    )
    if job.device == "cuda":
        model = torch.compile(model)
    rows = job.rows()
    inputs, labels = torch.from_numpy(rows[..., :-1].copy()), labels_of(job, rows)
    half = job.dtype == "bfloat16"
    losses, seconds = [], []
    for step in range(job.steps):
        started = time.perf_counter()
        total, num_labels = 0.0, int((labels[step] >= 0).sum())
        for start in range(0, job.batch_size, job.micro_batch_size):
            part = slice(start, start + job.micro_batch_size)
            ids, targets = (each[step, part].to(job.device, non_blocking=True) for each in (inputs, labels))
            with torch.autocast(job.device, dtype=torch.bfloat16, enabled=half):
                loss = model(ids, targets) * ((targets >= 0).sum() / num_labels)
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if job.device == "cuda":
            torch.cuda.synchronize()
        losses.append(total)
        seconds.append(time.perf_counter() - started)
    report(losses=losses, seconds=seconds, job=job)


if __name__ == "__main__":
    main(sys.argv[1])
