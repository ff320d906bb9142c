"""One run on several processes (torchrun): who they are, and what of the model each of them holds.

Nothing here changes the arithmetic: every process works on its rows of the global batch, and what is summed over them
is divided by the weights of all. So a run has the losses of one process, up to the order of sums.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import TrainerError
from colophon.trainer.loss import TokenLosses
from colophon.trainer.model import Decoder

_BYTES_A_PARAMETER = 16
"""Weight, gradient and two moments in float32."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, and this one's place."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and lines."""
        return self.rank == 0

    def highest(self, value: int) -> int:
        """The highest value of all processes: the same answer on all."""
        if self.size == 1:
            return value
        values = torch.tensor(value, device=self.device)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return int(values.item())

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(config: TrainConfig) -> Iterator[World]:
    """The world that torchrun's environment describes, for as long as the context lasts; without it one process.

    Raises:
        TrainerError: CUDA is asked for and not there, or the batch cannot be shared evenly.
    """
    device = _device(config)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=device)
        return
    if config.batch_size % size:
        raise TrainerError(f"batch_size {config.batch_size} is not a multiple of {size} processes")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        world = World(device=device, rank=dist.get_rank(), size=size)
        yield world
        # DDP has reference cycles. Freed later, it would close the last connections with the interpreter's lock held,
        # and wait for a thread that waits for the lock.
        gc.collect()
        world.wait()  # who leaves first would break the connections that others still close
    finally:
        dist.destroy_process_group()


def _device(config: TrainConfig) -> torch.device:
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise TrainerError("device is cuda, but torch finds no CUDA device; available: cpu")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


class SharedModel:
    """A decoder as this process computes it: alone, with all weights (DDP), or with a share of them (FSDP2)."""

    def __init__(self, decoder: Decoder, *, world: World, dtype: torch.dtype, parallel: str) -> None:
        """Put `decoder` on the world's device and share it as `parallel` says, see `TrainConfig`."""
        self.decoder = decoder.to(world.device)
        self.world = world
        self._forward: Any = self.decoder
        if world.size == 1:
            return
        if parallel == "fsdp" or (parallel == "auto" and _is_large(decoder, world.device)):
            # Gradients are summed in float32, whatever the dtype that they were made with.
            policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
            for layer in self.decoder.layers:
                fully_shard(layer, mp_policy=policy)
            fully_shard(self.decoder, mp_policy=policy)
        else:
            self._forward = DistributedDataParallel(
                self.decoder, forward_sync_buffers=False, gradient_as_bucket_view=True
            )

    def forward(self, *arguments: Any, **options: Any) -> TokenLosses:
        """`Decoder.forward`."""
        return TokenLosses(*self._forward(*arguments, **options))

    def accumulating(self, *, is_last: bool) -> AbstractContextManager[object]:
        """For the backward pass of one micro-batch: gradients are summed over the processes after the last alone."""
        if isinstance(self.decoder, FSDPModule):
            self.decoder.set_requires_gradient_sync(is_last)
        elif isinstance(self._forward, DistributedDataParallel) and not is_last:
            return self._forward.no_sync()
        return nullcontext()

    def release(self) -> None:
        """After forward passes without a backward pass, which ends with this: give back others' shares of weights."""
        if isinstance(self.decoder, FSDPModule):
            self.decoder.reshard()

    def weights(self, *, keep: bool = True) -> dict[str, Tensor]:
        """By parameter name, whole, on the host. All processes must ask for them; those that do not `keep` them get
        nothing, and take no memory for it."""
        return gathered(((name, parameter.detach()) for name, parameter in self.decoder.named_parameters()), keep=keep)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Undo `weights`.

        Raises:
            TrainerError: they are of another model.
        """
        self.decoder.load_weights(weights, share=shared_like)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a share, whole; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Iterable[tuple[str, Tensor]], *, keep: bool) -> dict[str, Tensor]:
    """Named tensors, whole and on the host; nothing where a process gives its shares and does not `keep` the rest."""
    found = {}
    for name, tensor in tensors:
        complete = whole(tensor)
        if keep:
            found[name] = complete.cpu()
    return found


def shared_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same on all processes, held as `like` is."""
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor.to(like.device)


def _is_large(decoder: Decoder, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return decoder.num_parameters * _BYTES_A_PARAMETER > memory / 4
