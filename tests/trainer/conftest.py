from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer import varlen_on_cpu
from tests.trainer.runs import write_run

torch.set_num_threads(1)  # for models this small, threads cost more time than they save


@pytest.fixture(scope="session")
def packed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a small packed run with all layouts, shared by all tests: each training in it needs its own name."""
    return write_run(tmp_path_factory.mktemp("packed"))


@pytest.fixture
def run_output(tmp_path: Path) -> Path:
    """The same, for one test alone."""
    return write_run(tmp_path / "run")


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """No compiled graphs of other tests, and attention with variable lengths on the CPU."""
    varlen_on_cpu.register()
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
