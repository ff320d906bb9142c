"""torch.compile: a machine without a compiler, and models of many sizes in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from colophon.trainer.config import CompileScope, ModelConfig, TrainConfig
from colophon.trainer.device.compilation import compile_scope, keep_graphs
from colophon.trainer.loop import train
from colophon.trainer.model.decoder import Layer, rotation_at
from colophon.trainer.model.loss import _compiled_losses_and_errors
from colophon.trainer.parallel import World
from tests.trainer.compiling import compile_with
from tests.trainer.courses import metrics_of
from tests.trainer.runs import TINY_MODEL, config

# Warnings of torch's compiler itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script_method:DeprecationWarning", "ignore:The .grad attribute"
)

ROOT = Path(__file__).parents[3]
TRAIN = """
import sys
from pathlib import Path
from colophon.trainer.loop import train
from tests.trainer.runs import config
train(config("plain", steps=2, compile=True), name=sys.argv[2], output=Path(sys.argv[1]), report=print)
"""


def test_without_a_compiler_a_line_says_so_and_the_run_is_not_compiled(packed_run: Path, tmp_path: Path) -> None:
    nowhere = {"PATH": "/nonexistent", "CXX": "/nonexistent/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(packed_run), "without-compiler"],
        cwd=ROOT,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "not compiled" in line]
    assert line.startswith("not compiled: torch.compile does not work on this machine: No working C++ compiler found")
    assert line.endswith("compile = false skips this line")
    assert "Traceback" not in done.stderr
    metrics = (packed_run / "training/without-compiler/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [1, 2, 2]


def loss_of(record: dict[str, Any]) -> float:
    """The loss of a record of an update or a validation."""
    return float(record["loss"] if "loss" in record else record["validation_text_loss"])


@pytest.mark.parametrize("scope", ["layers", "cuda_graphs"])
def test_updates_of_other_numbers_of_rows_are_compiled_once_and_have_the_losses_of_a_run_that_is_not(
    scope: CompileScope, packed_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(compiled: CompileScope | bool) -> TrainConfig:
        rows = {"order": "documents", "batch_size": 4, "validation_rows": 5, "validation_every": 3}
        return config("prepend", steps=6, compile=compiled, **rows)

    train(settings(False), name=f"not-{scope}", output=packed_run)
    counter = CompileCounter()
    _compiled_losses_and_errors.cache_clear()
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", compile_with(counter))
    train(settings(scope), name=scope, output=packed_run)
    _compiled_losses_and_errors.cache_clear()
    torch._dynamo.reset()
    # The trial; a layer or all of them, and the loss, in training and in validation, whose last micro-batch is smaller.
    assert counter.frame_count == 5
    expected, found = ([loss_of(line) for line in metrics_of(packed_run, name)] for name in (f"not-{scope}", scope))
    assert found == pytest.approx(expected, rel=1e-5)


def test_models_of_many_sizes_stay_compiled_in_one_process() -> None:
    torch._dynamo.reset()
    counter, sizes = CompileCounter(), range(32, 32 + 16 * 12, 16)
    with torch._dynamo.config.patch(recompile_limit=8, accumulated_recompile_limit=8):
        keep_graphs()
        for hidden_size in sizes:
            layer = Layer(ModelConfig.model_validate({**TINY_MODEL, "hidden_size": hidden_size}))
            layer.compile(dynamic=False, backend=counter, fullgraph=True)
            states = torch.zeros(1, 4, hidden_size)
            rotation = rotation_at(torch.zeros(1, 4, dtype=torch.int32), head_size=hidden_size // 4, base=1e4)
            with torch.no_grad():
                layer(states, rotation, None)
                layer(states, rotation, None)
    torch._dynamo.reset()
    assert counter.frame_count == len(sizes)


def test_several_processes_compile_layers_and_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colophon.trainer.device.compilation.why_not_compiled", lambda device: None)

    class TwoProcesses(World):
        """A world of two processes, of which the other has the same values."""

        def highest(self, value: int) -> int:
            return value

    lines: list[str] = []
    alone, two = World(device=torch.device("cpu")), TwoProcesses(device=torch.device("cpu"), size=2)
    assert compile_scope(config(compile="model"), world=alone, report=lines.append) == "model"
    assert compile_scope(config(compile=True), world=alone, report=lines.append) == "layers"
    assert compile_scope(config(compile=None), world=alone, report=lines.append) is None
    assert not lines
    assert compile_scope(config(compile="cuda_graphs"), world=two, report=lines.append) == "layers"
    assert lines == ["compile = 'cuda_graphs' is for one process: layers are compiled, as with compile = true"]
