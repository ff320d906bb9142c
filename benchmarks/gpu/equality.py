"""Part: losses and gradients on the device beside those of float64 on the CPU, for each kind of attention.

    python -m benchmarks.gpu.equality --output FILE

A difference in bfloat16 says little alone, so the CPU's own difference in the same type is beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.arguments import part_parser
from benchmarks.gpu.hardware import device_of_this_machine
from benchmarks.gpu.plan import Size
from benchmarks.gpu.records import Write, appender
from benchmarks.trainer.job import tokenizer_of
from colophon.trainer.config import ModelConfig
from colophon.trainer.model.attention import AttentionKind, document_mask, why_not
from colophon.trainer.model.decoder import Decoder

_SIZES: dict[Size, dict[str, Any]] = {
    "full": {"num_layers": 6, "hidden_size": 768, "ffn_size": 2048, "num_heads": 12, "num_kv_heads": 4},
    "tiny": {"num_layers": 2, "hidden_size": 64, "ffn_size": 96, "num_heads": 4, "num_kv_heads": 2},
}
_KINDS: tuple[AttentionKind, ...] = ("varlen", "flex", "sdpa")


@dataclass(frozen=True, kw_only=True)
class Computed:
    """A loss and its gradients by parameter, in float64 on the host."""

    loss: float
    gradients: dict[str, Tensor]

    def differences(self, expected: Computed) -> dict[str, float]:
        """Return the relative difference of the loss, and the largest of a gradient's, in its norm."""
        norms = {
            name: float((self.gradients[name] - gradient).norm() / gradient.norm())
            for name, gradient in expected.gradients.items()
        }
        return {"loss": abs(self.loss / expected.loss - 1), "gradient": max(norms.values())}


def measure(size: Size, *, device: torch.device, write: Write) -> None:
    """Append one record for each kind of attention and type, masked by documents and not."""
    rows, length = (2, 48) if size == "tiny" else (2, 768)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 500, (rows, length + 1), generator=generator)
    segments = (torch.rand(rows, length, generator=generator) < 0.02).int().cumsum(1).int()
    model = Decoder(ModelConfig.model_validate(_SIZES[size]), tokenizer=tokenizer_of(512 if size == "tiny" else 8192))
    model.initialise(seed=0)
    for masked in (True, False):
        known = segments if masked else None
        expected = _compute(model, ids, known, kind="sdpa", device=torch.device("cpu"), dtype=torch.float64)
        for kind, dtype in _cases(device, head_size=model.config.head_size):
            if not masked and kind != "sdpa":
                continue  # without documents there is no mask, and one kind of attention
            found = _compute(model, ids, known, kind=kind, device=device, dtype=dtype).differences(expected)
            cpu = _compute(model, ids, known, kind="sdpa", device=torch.device("cpu"), dtype=dtype)
            differences = {"device": found, "cpu": cpu.differences(expected)}
            write(documents_masked=masked, kind=kind, dtype=str(dtype).removeprefix("torch."), **differences)


def _cases(device: torch.device, *, head_size: int) -> Iterator[tuple[AttentionKind, torch.dtype]]:
    for dtype in (torch.float32, torch.bfloat16):
        yield from ((kind, dtype) for kind in _KINDS if why_not(kind, device, dtype, head_size=head_size) is None)


def _compute(
    model: Decoder,
    ids: Tensor,
    segments: Tensor | None,
    *,
    kind: AttentionKind,
    device: torch.device,
    dtype: torch.dtype,
) -> Computed:
    model.double() if dtype == torch.float64 else model.float()
    model.to(device).zero_grad()
    rows, length = ids.shape[0], ids.shape[1] - 1
    positions = torch.arange(length, dtype=torch.int32).expand(rows, length)
    mask = None
    if segments is not None:
        mask = document_mask(segments, kind=kind, device=device)
        starts = torch.ones_like(segments, dtype=torch.bool)
        starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
        positions = positions - (positions * starts).cummax(1).values
    inputs, labels = ids[:, :-1].to(device), ids[:, 1:].to(device)
    weights = torch.ones(rows, length, device=device)
    found = model(inputs, positions.to(device), mask, labels, weights, dtype=dtype).weighted / labels.numel()
    found.backward()
    gradients = {name: p.grad.double().cpu() for name, p in model.named_parameters() if p.grad is not None}
    return Computed(loss=found.item(), gradients=gradients)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0."""
    options = part_parser(__doc__).parse_args(arguments)
    measure(options.size, device=device_of_this_machine(), write=appender(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
