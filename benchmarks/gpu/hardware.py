"""The device, driver and libraries of a run."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.machine import machine
from colophon.trainer.monitoring.speed import peak_flops


def device_of_this_machine() -> torch.device:
    """Return the GPU, if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hardware() -> dict[str, Any]:
    """Return the machine, the GPU with its memory and peak in bfloat16, and the versions of torch and CUDA."""
    found: dict[str, Any] = {"machine": machine(), "torch": str(torch.__version__), "cuda": torch.version.cuda}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "name": properties.name,
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "peak_tflops": None if (peak := peak_flops(properties.name)) is None else peak / 1e12,
        }
    return found
