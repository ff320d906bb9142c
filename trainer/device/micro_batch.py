"""The number of sequences that a device computes at once: as many as its memory holds, up to a number of tokens.

A GPU needs tens of thousands of tokens at once to be busy; the paper's model has room for fewer than a small one. So a
run tries the largest size first, and half of it for as long as the memory ends: the first size that fits is the one
that the run uses, and compiles. The loss does not depend on the size, but for rounding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from colophon.shards.common.durable import replace_text
from colophon.shards.common.state_files import read_state
from colophon.trainer.config import TrainConfig
from colophon.trainer.device.out_of_memory import is_out_of_memory
from colophon.trainer.parallel import World

TOKENS_ON_CUDA = 65_536
TOKENS_ON_SEVERAL = 32_768
"""Where several processes share a run there is no search: if one of them had too little memory, the others would wait
for it."""


def sizes_to_try(num_rows: int, *, sequence_length: int, tokens: int) -> Iterator[int]:
    """Yield divisors of `num_rows`, the largest with at most `tokens` tokens (or 1) first, each at most half of the one
    before.

    504 rows of 4096 tokens, 65,536 tokens: 14, 7, 3, 1.
    """
    limit = max(1, tokens // sequence_length)
    while True:
        size = next(size for size in range(min(limit, num_rows), 0, -1) if num_rows % size == 0)
        yield size
        if size == 1:
            return
        limit = size // 2


def planned_rows_at_once(config: TrainConfig, *, world: World, sequence_length: int) -> tuple[int, bool]:
    """The sequences of a micro-batch, and whether they are only the first size that a search tries."""
    tokens = _most_tokens(config, world)
    if tokens is None:
        return config.rows_at_once, False
    sizes = sizes_to_try(config.batch_size // world.size, sequence_length=sequence_length, tokens=tokens)
    return next(sizes), world.size == 1


def _most_tokens(config: TrainConfig, world: World) -> int | None:
    """The most tokens of a micro-batch; None where the settings have the sequences."""
    if config.micro_batch_size is not None:
        return None
    if config.micro_batch_tokens is None and world.device.type != "cuda":
        return None
    return config.micro_batch_tokens or (TOKENS_ON_CUDA if world.size == 1 else TOKENS_ON_SEVERAL)


def rows_at_once(
    config: TrainConfig,
    *,
    world: World,
    sequence_length: int,
    file: Path,
    attempt: Callable[[int], None],
    report: Callable[[str], None],
) -> int:
    """The sequences of a micro-batch: `micro_batch_size`, or on a GPU as many as fit, else `TrainConfig.rows_at_once`.

    Args:
        config: of the run.
        world: its processes.
        sequence_length: inputs of a row.
        file: remembers the size for a resume on the same device with the same settings.
        attempt: computes the gradient of so many rows, and raises the device's error if its memory ends.
        report: receives one line if a size was searched.
    """
    tokens = _most_tokens(config, world)
    planned, is_searched = planned_rows_at_once(config, world=world, sequence_length=sequence_length)
    if tokens is None or not is_searched:
        return planned
    num_rows = config.batch_size
    situation = {"device": world.device_name, "tokens": tokens, "sequence_length": sequence_length, **_memory(config)}
    known = _remembered(file, situation)
    if known is not None and num_rows % known == 0:
        return known
    found = _search(sizes_to_try(num_rows, sequence_length=sequence_length, tokens=tokens), attempt)
    replace_text(file, json.dumps({"rows": found, **situation}, indent=1) + "\n")
    report(f"{found} sequences at once, {found * sequence_length:,} tokens: the most that fit, up to {tokens:,} tokens")
    return found


def _search(sizes: Iterator[int], attempt: Callable[[int], None]) -> int:
    """The first size that fits; the last one is not tried, since there is no smaller one."""
    for size in sizes:
        if size == 1 or _fits(size, attempt):
            return size
    raise AssertionError("the last size is 1")


def _fits(size: int, attempt: Callable[[int], None]) -> bool:
    try:
        attempt(size)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _memory(config: TrainConfig) -> dict[str, Any]:
    """The settings on which the memory of a micro-batch depends."""
    names = {"model", "dtype", "attention", "compile", "activation_checkpointing"}
    return {**config.model_dump(mode="json", include=names), "optimizer": config.optimizer.type}


def _remembered(file: Path, situation: Mapping[str, Any]) -> int | None:
    """The size that was found in the same situation."""
    before = read_state(file, remedy="Delete it; --resume searches again")
    if before is None or {key: value for key, value in before.items() if key != "rows"} != situation:
        return None
    rows = before.get("rows")
    return rows if isinstance(rows, int) and rows > 0 else None
