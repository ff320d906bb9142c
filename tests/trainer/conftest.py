from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.runs import write_run

torch.set_num_threads(1)  # models this small lose more to waiting for threads than they gain


@pytest.fixture(scope="session")
def packed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a small packed run with all layouts. Nothing is trained in it: copy it, or give `train` a name."""
    return write_run(tmp_path_factory.mktemp("packed"))


@pytest.fixture
def run_output(tmp_path: Path) -> Path:
    """The same for one test to train in."""
    return write_run(tmp_path / "run")
