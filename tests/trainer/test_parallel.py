"""Real processes with gloo: the results of a run do not depend on the number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train
from colophon.trainer.parallel import joined_world
from tests.trainer.courses import metrics_of, weights_of
from tests.trainer.ranks import run_on_ranks, train_on_ranks
from tests.trainer.runs import config


def assert_same_course(output: Path, first: str, second: str, *, tolerance: float = 1e-5) -> None:
    expected, found = metrics_of(output, first), metrics_of(output, second)
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == (pytest.approx(value, abs=tolerance, rel=1e-5) if isinstance(value, float) else value)


@pytest.mark.parametrize(("optimizer", "parallel"), [("adamw", "ddp"), ("muon", "fsdp")])
def test_two_processes_give_the_losses_of_one(run_output: Path, parallel: str, optimizer: str) -> None:
    settings: dict[str, Any] = {
        "layout": "append",
        "micro_batch_size": 2,
        "learning_rate": 1e-2,
        "optimizer": {"type": optimizer},
        "validation_rows": 7,
        "validation_every": 3,
    }
    train(config(**settings), name="one", output=run_output)
    outputs = train_on_ranks(config(**settings, parallel=parallel), num_ranks=2, name="two", output=run_output)
    assert "cpu x 2" in outputs[0]
    assert outputs[1] == ""
    # Muon uses bfloat16 internally.
    assert_same_course(run_output, "one", "two", tolerance=1e-5 if optimizer == "adamw" else 2e-2)
    expected, found = weights_of(run_output, "one"), weights_of(run_output, "two")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        if optimizer == "adamw":
            torch.testing.assert_close(found[name], tensor, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_a_run_resumes_with_a_different_number_of_processes(run_output: Path) -> None:
    constant = {"type": "wsd", "warmup_steps": 0, "decay_fraction": 0.0}
    settings = config("prepend", learning_rate=1e-2, schedule=constant, validation_rows=0)
    train(settings, name="unbroken", output=run_output)
    for steps, num_ranks, parallel in ((3, 2, "fsdp"), (6, 4, "ddp")):
        part = settings.model_copy(update={"steps": steps, "parallel": parallel})
        train_on_ranks(part, num_ranks=num_ranks, name="moved", output=run_output, resume=True)
    train(settings, name="moved", output=run_output, resume=True)
    assert_same_course(run_output, "unbroken", "moved")


_READ_IN_PARTS = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
from colophon.trainer.errors import TrainerError
from colophon.trainer.parallel import World, shard_of, sharded_like
from colophon.trainer.checkpoints.tensor_checks import check_tensors

torch.set_num_threads(1)
dist.init_process_group("gloo")
world = World(device=torch.device("cpu"), rank=dist.get_rank(), size=2)
mesh = init_device_mesh("cpu", (2,))
tensors = load_file(sys.argv[1])
likes = {name: distribute_tensor(torch.zeros(t.shape), mesh, [Shard(0)]) for name, t in tensors.items()}
for name, tensor in tensors.items():
    expected = distribute_tensor(tensor.clone(), mesh, [Shard(0)])
    found = sharded_like(tensor, likes[name])
    assert found.placements == expected.placements and found.shape == expected.shape
    assert torch.equal(found.to_local(), expected.to_local())
    assert found.to_local().data_ptr() != tensor.data_ptr()
tensors["odd"][4] = float("nan")  # of rows 0-2 and 3-4
shapes, part = {name: t.shape for name, t in tensors.items()}, lambda name, tensor: shard_of(tensor, likes[name])
try:
    with world.together():
        check_tensors(tensors, shapes, where="file", part=part)
except TrainerError as error:
    print(error)
dist.destroy_process_group()
"""


def test_each_process_reads_its_own_rows_and_all_end_where_one_fails(tmp_path: Path) -> None:
    tensors = {"odd": torch.randn(5, 3), "even": torch.randn(4), "one": torch.randn(1, 2)}
    save_file(tensors, tmp_path / "file")
    outputs = run_on_ranks(_READ_IN_PARTS, str(tmp_path / "file"), num_ranks=2)
    assert outputs == [
        "a different process of the run has failed; its message has the reason\n",
        "file: not the tensors of this model: odd has numbers that are not finite\n",
    ]


def test_a_signal_to_one_process_stops_all(run_output: Path) -> None:
    raise_in_the_second = """
import os, signal, colophon.trainer.updates
accumulate = colophon.trainer.updates.accumulate_gradients
def counted(*arguments, steps=[], **options):
    steps.append(1)
    if os.environ["RANK"] == "1" and len(steps) == 3:
        signal.raise_signal(signal.SIGUSR1)
    return accumulate(*arguments, **options)
colophon.trainer.updates.accumulate_gradients = counted
"""
    outputs = train_on_ranks(config(), num_ranks=2, name="a", output=run_output, first=raise_in_the_second)
    assert [lines.splitlines()[-1] for lines in outputs] == ["stopped by SIGUSR1 after 3"] * 2
    assert (run_output / "training/a/checkpoints/step-00000003/state.json").exists()


def test_a_batch_that_does_not_divide_among_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(TrainerError, match="batch_size 8 is not a multiple of 3 processes"), joined_world(config()):
        pytest.fail("joined")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', expected a number. Start all processes with torchrun"),
        (
            {"WORLD_SIZE": "2"},
            "the processes of the run cannot be connected: .*RANK.*. Start all processes with torchrun",
        ),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, WORLD_SIZE 2: ranks begin at 0. Start all"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "cannot be connected: .*MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999"}, "cannot be connected: "),
    ],
)
def test_an_environment_that_is_not_torchruns_is_one_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainerError, match=message), joined_world(config()):
        pytest.fail("joined")
