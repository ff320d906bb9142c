"""Part: the time of attention alone, forward and backward, by kind of mask and by length of documents.

python -m benchmarks.gpu.masking --output FILE
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from benchmarks.gpu.arguments import part_parser
from benchmarks.gpu.hardware import device_of_this_machine
from benchmarks.gpu.plan import Size
from benchmarks.gpu.records import Write, appender
from benchmarks.summary import interleaved
from colophon.trainer.config import ModelConfig
from colophon.trainer.model.attention import AttentionKind, Mask, attend, document_mask, why_not

_ROUNDS = 5
_TOKENS: dict[Size, int] = {"full": 32_768, "tiny": 256}
_PRESETS: dict[Size, tuple[str, ...]] = {"full": ("124m", "350m", "1.5b"), "tiny": ("1m",)}
_MEAN_DOCUMENTS: dict[Size, tuple[int, ...]] = {"full": (300, 600, 2400), "tiny": (16,)}
_LENGTHS: dict[Size, tuple[int, ...]] = {"full": (4096, 2048), "tiny": (64,)}


def measure(size: Size, *, device: torch.device, write: Write) -> None:
    """Append a record for each preset, row length and mean length of documents: milliseconds by kind, interleaved."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for length in _LENGTHS[size]:
        for preset in _PRESETS[size]:
            config = ModelConfig.model_validate(preset)
            states = _states(config, rows=_TOKENS[size] // length, length=length, device=device, dtype=dtype)
            for mean in _MEAN_DOCUMENTS[size]:
                segments = _segments(len(states[0]), length, mean=mean)
                masks = _masks(segments, device=device, dtype=dtype, head_size=config.head_size)
                found = _milliseconds({name: _pass_of(states, mask) for name, mask in masks.items()}, device)
                write(preset=preset, sequence_length=length, mean_document=mean, milliseconds=found)


def _masks(segments: Tensor, *, device: torch.device, dtype: torch.dtype, head_size: int) -> dict[str, Mask]:
    kinds: tuple[AttentionKind, ...] = ("varlen", "flex") if device.type == "cuda" else ("sdpa",)
    usable = [kind for kind in kinds if why_not(kind, device, dtype, head_size=head_size) is None]
    return {"no documents": None, **{kind: document_mask(segments, kind=kind, device=device) for kind in usable}}


def _segments(rows: int, length: int, *, mean: int) -> Tensor:
    begins = torch.rand(rows, length, generator=torch.Generator().manual_seed(0)) < 1 / mean
    return begins.int().cumsum(1).int()


def _states(
    config: ModelConfig, *, rows: int, length: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    def drawn(heads: int) -> Tensor:
        shape = (rows, heads, length, config.head_size)
        return torch.randn(shape, device=device, dtype=dtype, requires_grad=True)

    return drawn(config.num_heads), drawn(config.num_kv_heads), drawn(config.num_kv_heads)


def _pass_of(states: tuple[Tensor, Tensor, Tensor], mask: Mask) -> Callable[[], None]:
    query, key, value = states

    def run() -> None:
        torch.autograd.grad(attend(query, key, value, mask=mask).sum(), states)

    return run


def _milliseconds(passes: dict[str, Callable[[], None]], device: torch.device) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in passes}
    for run in passes.values():
        run()  # compilation, first touches
    for _, name in interleaved(list(passes), rounds=_ROUNDS):
        _wait(device)
        started = time.perf_counter()
        passes[name]()
        _wait(device)
        found[name].append(1e3 * (time.perf_counter() - started))
    return {name: median(times) for name, times in found.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0."""
    options = part_parser(__doc__).parse_args(arguments)
    measure(options.size, device=device_of_this_machine(), write=appender(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
