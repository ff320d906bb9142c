"""The speed of a run: seconds per step, tokens per second, the share of the hardware that it uses."""

from __future__ import annotations

import re
import resource
from datetime import timedelta

import torch


class Pace:
    """Average time and tokens of the steps so far. The first step, which compiles, counts only until the second."""

    def __init__(self) -> None:
        self._steps, self._tokens, self._seconds = 0, 0, 0.0
        self._recent_seconds = 0.0
        self._line_tokens, self._line_seconds = 0, 0.0

    def add(self, seconds: float, *, tokens: int) -> None:
        """Count one step."""
        self._steps += 1
        self._line_tokens, self._line_seconds = self._line_tokens + tokens, self._line_seconds + seconds
        if self._steps <= 2:
            self._tokens, self._seconds, self._recent_seconds = tokens, seconds, seconds
        else:
            self._tokens, self._seconds = self._tokens + tokens, self._seconds + seconds
            self._recent_seconds = 0.95 * self._recent_seconds + 0.05 * seconds

    @property
    def tokens_per_second(self) -> float | None:
        """Over all counted steps; None before the first."""
        return self._tokens / self._seconds if self._seconds else None

    def since_line(self) -> float:
        """Tokens per second over the steps since the last call, at least one: the speed that a console line shows."""
        speed = self._line_tokens / self._line_seconds
        self._line_tokens, self._line_seconds = 0, 0.0
        return speed

    def left(self, steps: int) -> timedelta:
        """Time for `steps` more steps at the pace of the last twenty or so."""
        return timedelta(seconds=round(steps * self._recent_seconds))


_PEAK_FLOPS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10": 125e12,
    "4090": 165e12,
    "V100": 125e12,
}
"""Operations per second of bfloat16 (V100: float16) matrix products without sparsity, by whole words of the device's
name; from NVIDIA's data sheets. The first match counts."""


def peak_flops(device_name: str) -> float | None:
    """Operations per second of a GPU, from `_PEAK_FLOPS`; None for an unknown GPU."""
    matches = (peak for words, peak in _PEAK_FLOPS.items() if re.search(rf"\b{words}\b", device_name))
    return next(matches, None)


class Speed:
    """Use of the hardware by a run."""

    def __init__(self, flops_per_token: int, *, device: torch.device, world_size: int) -> None:
        """Describe the work and the hardware.

        Args:
            flops_per_token: operations of the model, forward and backward.
            device: of this process.
            world_size: number of devices.
        """
        self._flops_per_token, self._device = flops_per_token, device
        self._peak = None
        if device.type == "cuda":
            peak = peak_flops(torch.cuda.get_device_name(device))
            self._peak = None if peak is None else peak * world_size

    def record(self, tokens_per_second: float) -> dict[str, float | None]:
        """`mfu` and `memory_gb`."""
        mfu = None if self._peak is None else tokens_per_second * self._flops_per_token / self._peak
        if self._device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self._device)
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"mfu": mfu, "memory_gb": memory / 1e9}
