"""Training on several processes on this machine, as torchrun starts them; gloo on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from colophon.trainer.config import TrainConfig
from tests.ports import free_ports

_RANK = """
import json, sys
from pathlib import Path
import torch
from colophon.trainer.config import TrainConfig
from colophon.trainer.loop import train

torch.set_num_threads(1)
settings, name, output, resume, first = json.loads(sys.argv[1])
exec(first)
result = train(TrainConfig.model_validate(settings), name=name, output=Path(output), resume=resume, report=print)
if result.stopped_by:
    print("stopped by", result.stopped_by, "after", result.state.step)
"""
LIMIT_SECONDS = 240


def train_on_ranks(
    settings: TrainConfig, *, num_ranks: int, name: str, output: Path, resume: bool = False, first: str = ""
) -> list[str]:
    """Train, and return the output of each process; every process must end by itself with code 0. `first` is Python
    code that each of them runs before."""
    arguments = json.dumps([settings.model_dump(mode="json"), name, str(output), resume, first])
    return run_on_ranks(_RANK, arguments, num_ranks=num_ranks)


def run_on_ranks(code: str, *arguments: str, num_ranks: int) -> list[str]:
    """Run Python code in connected processes, and return the output of each; every one must end with code 0."""
    [port] = free_ports(1)
    common = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        with ThreadPoolExecutor(num_ranks) as pool:  # if one fails, the others wait for it
            ends = [pool.submit(process.communicate, timeout=LIMIT_SECONDS) for process in processes]
            for end in as_completed(ends):
                if processes[ends.index(end)].returncode:
                    for process in processes:
                        process.kill()
        outputs = [end.result()[0] for end in ends]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * num_ranks, "\n".join(outputs)
    return outputs
