"""The accelerator that trainings on this machine use, and whether it computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_SIZE = 256
_TOLERANCE = 1e-2


@dataclass(frozen=True, kw_only=True)
class Device:
    """The GPUs that torch finds on this machine."""

    torch_version: str
    built_for_cuda: str | None
    """The version of CUDA that torch was built for; None: torch was built without it."""
    names: tuple[str, ...] = ()
    """One for each GPU; empty: trainings use the CPU."""
    memory_bytes: tuple[int, ...] = ()
    free_bytes: tuple[int, ...] = ()
    has_bfloat16: bool = False
    failure: str | None = None
    """Why a product of matrices on a GPU could not be computed, or differs from the CPU's."""


def find_device() -> Device:
    """Find the GPUs, and multiply two matrices on each."""
    version, cuda = torch.__version__, torch.version.cuda
    if not torch.cuda.is_available():
        return Device(torch_version=version, built_for_cuda=cuda)
    numbers = range(torch.cuda.device_count())
    failures = [failure for number in numbers if (failure := _failure(number)) is not None]
    free = [torch.cuda.mem_get_info(number)[0] for number in numbers] if not failures else []
    return Device(
        torch_version=version,
        built_for_cuda=cuda,
        names=tuple(torch.cuda.get_device_name(number) for number in numbers),
        memory_bytes=tuple(torch.cuda.get_device_properties(number).total_memory for number in numbers),
        free_bytes=tuple(free),
        has_bfloat16=torch.cuda.is_bf16_supported(),
        failure=next(iter(failures), None),
    )


def _failure(number: int) -> str | None:
    matrix = torch.linspace(-1, 1, _SIZE * _SIZE).reshape(_SIZE, _SIZE)
    try:
        moved = matrix.to(f"cuda:{number}")
        product = (moved @ moved).cpu()
    except RuntimeError as error:  # a driver that does not fit, memory that is taken
        return f"GPU {number}: {str(error).splitlines()[0]}"
    difference = float((product - matrix @ matrix).abs().max())
    return None if difference < _TOLERANCE else f"GPU {number}: a product of matrices differs by {difference:.3g}"
