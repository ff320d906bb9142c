"""Tests with the marker `cuda`: skipped without a GPU; `make gpu` runs them first.

COLOPHON_CUDA_TESTS_ON=cpu runs those that a CPU can run too, to try the tests themselves.
"""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = torch.device(os.environ.get("COLOPHON_CUDA_TESTS_ON", "cuda"))


@pytest.fixture
def device() -> torch.device:
    """The GPU."""
    if DEVICE.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return DEVICE


@pytest.fixture
def gpu(device: torch.device) -> torch.device:
    """The GPU, for tests that a CPU cannot run."""
    if device.type != "cuda":
        pytest.skip("no GPU")
    return device
