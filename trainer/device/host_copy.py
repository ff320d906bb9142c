"""Values that a device has computed, on their way to the host."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A copy of a few values to the host: queued after the operations that compute them, and read later.

    A value that is read at once makes the host wait for everything that is queued before it, and the device then waits
    for the host to queue more.
    """

    def __init__(self, values: Tensor) -> None:
        """Queue the copy of `values`, of any shape and device."""
        self._copied: torch.cuda.Event | None = None
        if not values.is_cuda:
            self._values = values.clone()
            return
        self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._values.copy_(values, non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()

    def read(self) -> list[float]:
        """The values, flattened; waits until they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        values: list[float] = self._values.flatten().tolist()
        return values
