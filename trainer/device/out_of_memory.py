"""Advice where the memory of the device ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from colophon.shards.common.errors import one_line
from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import OutOfMemoryError

_MESSAGES = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
"""Parts of the errors of CUDA, its libraries and torch on CPU. Only CUDA's allocator raises a type of its own."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error is that the memory of a device has ended."""
    return any(message in str(error) for message in _MESSAGES)


@contextmanager
def out_of_memory_advice(config: TrainConfig) -> Iterator[None]:
    """Replace an error of too little memory by one line with advice.

    Raises:
        OutOfMemoryError: the block ran out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        advice = [f"micro_batch_size below {config.rows_at_once}"] if config.rows_at_once > 1 else []
        advice += [] if config.activation_checkpointing else ["activation_checkpointing = true"]
        advice += ["more processes with parallel = 'fsdp'", "a smaller model or sequence_length"]
        raise OutOfMemoryError(f"{one_line(error)} Try {', '.join(advice)}") from None
