"""One run on several processes (torchrun): the processes, and the part of the model that each of them holds.

The arithmetic stays the same: every process works on its rows of the global batch, and the sums over all processes are
divided by the weights of all. So a run has the losses of a single process, up to the order of sums.
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
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from colophon.shards.common.errors import one_line
from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import TrainerError
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.model.loss import TokenLosses

_TORCHRUN = (
    "Start all processes with torchrun, which sets WORLD_SIZE, RANK and MASTER_ADDR; unset these for one process"
)
_BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments in float32."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, and the rank of this one."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports lines."""
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """The name of the GPU, or `cpu`."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def highest(self, value: int) -> int:
        """The highest value of all processes; every process gets the same."""
        if self.size == 1:
            return value
        values = torch.tensor(value)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)  # on hosts: no process waits for a device
        return int(values.item())

    def total(self, value: float) -> float:
        """The sum of the values of all processes; every process gets the same."""
        if self.size == 1:
            return value
        values = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(values)
        return float(values.item())

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block without exchanges between processes: where it fails on one of them, all raise.

        Raises:
            TrainerError: it failed on a different process.
        """
        try:
            yield
        except Exception:
            self.highest(1)
            raise
        if self.highest(0):
            raise TrainerError("a different process of the run has failed; its message has the reason")

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world(config: TrainConfig) -> Iterator[World]:
    """The processes that torchrun's environment describes, connected until the context ends; else one process.

    Raises:
        TrainerError: `device` is cuda and there is none, the batch does not divide evenly among the processes, or the
            environment is not that of torchrun.
    """
    device = device_of(config)
    size = world_size()
    if size == 1:
        yield World(device=device)
        return
    if config.batch_size % size:
        raise TrainerError(f"batch_size {config.batch_size} is not a multiple of {size} processes")
    if device.type == "cuda":
        device = torch.device("cuda", _number("LOCAL_RANK", default=0))
        torch.cuda.set_device(device)
    _connect(device)
    try:
        world = World(device=device, rank=dist.get_rank(), size=size)
        yield world
        # DDP has reference cycles. Freed later, it would close the last connections while it holds the interpreter's
        # lock, and wait for a thread that waits for the lock.
        gc.collect()
        world.wait()  # a process that leaves early would break the connections that others still close
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """The number of processes of this run, from torchrun's environment.

    Raises:
        TrainerError: it is no number.
    """
    return _number("WORLD_SIZE", default=1)


def _number(variable: str, *, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal():
        raise TrainerError(f"{variable} is {text!r}, expected a number. {_TORCHRUN}")
    return int(text)


def _connect(device: torch.device) -> None:
    """Connect the processes of the run."""
    if (rank := _number("RANK", default=0)) >= world_size():
        raise TrainerError(f"RANK is {rank}, WORLD_SIZE {world_size()}: ranks begin at 0. {_TORCHRUN}")
    try:
        if device.type == "cuda":
            dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
    except (ValueError, RuntimeError) as error:  # a variable is missing or wrong, or nobody answers
        raise TrainerError(f"the processes of the run cannot be connected: {one_line(error)}. {_TORCHRUN}") from error


def device_of(config: TrainConfig) -> torch.device:
    """The kind of device that a run trains on.

    Raises:
        TrainerError: `device` is cuda and there is none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise TrainerError("device is cuda, but torch finds no CUDA device; available: cpu")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


class SharedModel:
    """A decoder on this process: alone, one of several complete copies (DDP), or a shard of the weights (FSDP2)."""

    def __init__(self, decoder: Decoder, *, world: World, dtype: torch.dtype, parallel: str) -> None:
        """Move `decoder` to the world's device, and share it by `parallel`, see `TrainConfig`."""
        self.decoder = decoder.to(world.device)
        self.world = world
        self._forward: Any = self.decoder
        if world.size == 1:
            return
        if parallel == "fsdp" or (parallel == "auto" and _is_large(decoder, world.device)):
            # Gradients are summed in float32, in whatever type they were computed.
            policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
            for layer in self.decoder.layers:
                fully_shard(layer, mp_policy=policy)
            fully_shard(self.decoder, mp_policy=policy)
        else:
            self._forward = DistributedDataParallel(
                self.decoder, forward_sync_buffers=False, gradient_as_bucket_view=True
            )

    def forward(self, *arguments: Any, **options: Any) -> TokenLosses:
        """`Decoder.forward`, through the wrapper."""
        return TokenLosses(*self._forward(*arguments, **options))

    def accumulating(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Context of a micro-batch's backward pass: gradients are summed over the processes after the last one only."""
        if isinstance(self.decoder, FSDPModule):
            self.decoder.set_requires_gradient_sync(is_last)
        elif isinstance(self._forward, DistributedDataParallel) and not is_last:
            return self._forward.no_sync()
        return nullcontext()

    def release(self) -> None:
        """Free the other processes' shards after forward passes without a backward pass, which would free them."""
        if isinstance(self.decoder, FSDPModule):
            self.decoder.reshard()

    def weights(self, *, keep: bool = True) -> dict[str, Tensor]:
        """Complete weights by parameter name, on the host. All processes must call this; those without `keep` get an
        empty dict, and need no memory for it."""
        return gathered_tensors(
            ((name, parameter.detach()) for name, parameter in self.decoder.named_parameters()), keep=keep
        )

    def own_part(self, name: str, weight: Tensor) -> Tensor:
        """The part of the complete weight of a parameter that this process has; a view of it."""
        return shard_of(weight, self.decoder.get_parameter(name))

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Set all weights from complete ones, by parameter name. Of weights that are mapped from a file, each process
        reads its own part.

        Raises:
            TrainerError: names or shapes are not those of the model.
        """
        self.decoder.load_weights(weights, shard=sharded_like)


def own_part(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, or the tensor where each process has all of it; they share memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The complete tensor of which each process may hold a shard; all processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered_tensors(tensors: Iterable[tuple[str, Tensor]], *, keep: bool) -> dict[str, Tensor]:
    """Copies of complete tensors by name, on the host; without `keep` the process contributes its shards and gets an
    empty dict."""
    found = {}
    for name, tensor in tensors:
        complete = full_tensor(tensor)
        if keep:
            found[name] = complete.to("cpu", copy=True)
    return found


def shard_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The rows of a complete tensor that correspond to this process's shard `like`; all of it where `like` is complete.

    A view: of a tensor that is mapped from a file, no other rows are read. 5 rows on 2 processes: rows 0-2 and 3-4.
    """
    if not isinstance(like, DTensor):
        return tensor
    mesh, rows = like.device_mesh, -(-len(tensor) // like.device_mesh.size())
    return tensor[mesh.get_local_rank() * rows : (mesh.get_local_rank() + 1) * rows]


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A copy of the shard of a complete tensor that corresponds to the shard `like`, on its device. Every process cuts
    its own; none waits for another."""
    own = shard_of(tensor, like).to(like.device, copy=True)
    if not isinstance(like, DTensor):
        return own
    mesh, placements = like.device_mesh, like.placements
    return DTensor.from_local(own, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride())


def _is_large(decoder: Decoder, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return decoder.num_parameters * _BYTES_PER_PARAMETER > memory / 4
