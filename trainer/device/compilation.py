"""Compilation of layers and loss by torch.compile: whether it works on a machine, and how many graphs are kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from colophon.shards.common.errors import one_line
from colophon.trainer.config import CompileScope, TrainConfig
from colophon.trainer.parallel import World

KEPT_GRAPHS = 256
"""Versions of one function that stay compiled; torch keeps 8 and runs further ones uncompiled. Each size of a model,
each shape of a batch, and training and validation have one."""


def compile_scope(config: TrainConfig, *, world: World, report: Callable[[str], None]) -> CompileScope | None:
    """The parts to compile, None: nothing. As the settings want it, if a small function compiles on the device.

    Costs the compilation of that function, seconds the first time on a machine. All processes of the run must call
    this, and get the same result.

    Args:
        config: the settings of the run.
        world: its processes.
        report: receives one line if compilation is wanted and does not work, or not of the whole model.
    """
    wanted = world.device.type == "cuda" if config.compile is None else config.compile
    if not wanted:
        return None
    keep_graphs()
    reason = why_not_compiled(world.device)
    if world.highest(int(reason is not None)):
        where = reason or "on another process of the run"
        report(
            f"not compiled: torch.compile does not work on this machine: {where}. The run is slower, with the same "
            "losses. A C++ compiler, such as g++, is needed; compile = false skips this line"
        )
        return None
    if isinstance(wanted, bool):
        return "layers"
    if world.size > 1 and wanted != "layers":
        report(f"compile = {wanted!r} is for one process: layers are compiled, as with compile = true")
        return "layers"
    return wanted


def keep_graphs() -> None:
    """Raise torch's limits for compiled versions of a function, for models of several sizes in one process."""
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, KEPT_GRAPHS)
    settings.accumulated_recompile_limit = max(settings.accumulated_recompile_limit, 16 * KEPT_GRAPHS)


def why_not_compiled(device: torch.device) -> str | None:
    """The reason why torch.compile fails on a device, one line; None where it works."""
    try:
        torch.compile(_trial, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # a compiler can be missing, lack headers, or be killed, each with an error of its own
        return one_line(getattr(error, "inner_exception", None) or error)
    return None


def _trial(values: Tensor) -> Tensor:
    return values.cos() + values.sin()
