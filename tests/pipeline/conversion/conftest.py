from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.runs import LAYOUTS, write_run


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a small packed run with all layouts; tests only read it."""
    return write_run(tmp_path_factory.mktemp("conversion") / "run")


@pytest.fixture(scope="session")
def packed_in_32_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with uint32 ids."""
    layouts = {"prepend": LAYOUTS["prepend"]}
    return write_run(tmp_path_factory.mktemp("conversion") / "run", layouts=layouts, id_dtype=np.uint32)
