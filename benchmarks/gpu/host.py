"""Part: graphs that are compiled again, and operations for which the host waits for the device, by step of a run.

python -m benchmarks.gpu.host --output FILE
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu.arguments import part_parser
from benchmarks.gpu.hardware import device_of_this_machine
from benchmarks.gpu.plan import Size, configurations
from benchmarks.gpu.records import Write, appender
from benchmarks.trainer.job import TrainingJob, write_job
from colophon.trainer.loop import train

_STEPS: dict[Size, int] = {"full": 24, "tiny": 6}


class _ValuesRead(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the values of tensors that become Python numbers: on a device each is a wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@contextmanager
def counting_waits(device: torch.device) -> Iterator[Callable[[], int]]:
    """Count the operations that wait for the device: the function returns their number so far.

    On CUDA torch warns of each; on the CPU they are the values that are read.
    """
    if device.type != "cuda":
        with _ValuesRead() as read:
            yield lambda: read.number
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lambda: sum("synchroniz" in str(one.message) for one in caught)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def measure(size: Size, *, device: torch.device, write: Write) -> None:
    """Append a record for each step of a run of the first configuration."""
    one = configurations(size)[0]
    with tempfile.TemporaryDirectory(prefix="colophon-gpu-") as work:
        job = TrainingJob(
            preset=one.preset,
            num_ids=one.num_ids,
            sequence_length=one.sequence_length,
            batch_size=one.batch_size,
            micro_batch_size=one.micro_batch_size,
            steps=_STEPS[size],
            warmup_steps=0,
            device=device.type,
            dtype="bfloat16" if device.type == "cuda" else "float32",
            work=work,
        )
        write_job(job)
        with counting_waits(device) as num_waits:
            steps = _Steps(write, num_waits)
            train(job.config(document_masking=True, log_every=1), name="host", output=job.output, report=steps)


class _Steps:
    """Receives the lines of a run, one for each step, and appends a record for each."""

    def __init__(self, write: Write, num_waits: Callable[[], int]) -> None:
        self._write, self._num_waits, self._last = write, num_waits, (0, 0, time.perf_counter())

    def __call__(self, line: str) -> None:
        if "tokens/s" not in line:
            return
        now = (counters["stats"]["unique_graphs"], self._num_waits(), time.perf_counter())
        graphs, waits, seconds = (after - before for after, before in zip(now, self._last, strict=True))
        self._last = now
        step = int(line.removeprefix("step ").partition("/")[0])
        self._write(step=step, compiled_graphs=graphs, waits=waits, seconds=seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0."""
    options = part_parser(__doc__).parse_args(arguments)
    measure(options.size, device=device_of_this_machine(), write=appender(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
