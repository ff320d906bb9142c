"""A batch of tensors, and memory that is filled with one batch after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedDataset, PackedRows
from colophon.trainer.config import GoldfishConfig
from colophon.trainer.data.documents.assembly import Assembly
from colophon.trainer.data.goldfish import goldfish_drops
from colophon.trainer.data.groups import TokenGroups


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`b` rows of `L` inputs. What follows from the four tensors is computed on access, on their device."""

    tokens: Tensor
    """uint16 or uint32 [b, L + 1], as in the shards: the inputs, and the labels shifted by one."""
    roles: Tensor
    """uint8 [b, L + 1]: the `Role` of each token."""
    segments: Tensor
    """int32 [b, L + 1]: the segment of each token in its row."""
    loss_weights: Tensor
    """float32 [b, L]: the weight of each label."""
    groups: Tensor | None = None
    """int16 or int64 [b, num_columns, L + 1]: the group of each token by each column; None without `group_by`."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def input_ids(self) -> Tensor:
        """int64 [b, L]."""
        return self.tokens[:, :-1].long()

    @property
    def labels(self) -> Tensor:
        """int64 [b, L]: the inputs shifted by one."""
        return self.tokens[:, 1:].long()

    @property
    def label_roles(self) -> Tensor:
        """int64 [b, L]: the `Role` of each label."""
        return self.roles[:, 1:].long()

    @property
    def label_groups(self) -> Tensor | None:
        """int64 [num_columns, b * L]: the group of each label by each column; None without any."""
        return None if self.groups is None else self.groups[:, :, 1:].long().transpose(0, 1).flatten(1)

    @property
    def input_segments(self) -> Tensor:
        """int32 [b, L]: the segment of each input."""
        return self.segments[:, :-1]

    @property
    def positions(self) -> Tensor:
        """int32 [b, L]: the position of each input in its segment."""
        segments = self.input_segments
        index = torch.arange(segments.shape[1], dtype=torch.int32, device=segments.device)
        # segments [0, 0, 1, 1] -> starts [0, 0, 2, 0] -> running maximum [0, 0, 2, 2] -> positions [0, 1, 0, 1]
        starts = index.expand_as(segments).clone()
        starts[:, 1:] *= segments[:, 1:] != segments[:, :-1]
        return index - starts.cummax(dim=1).values

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; a batch in page-locked memory is copied without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def split(self, size: int) -> Iterator[Batch]:
        """The batch in parts of `size` rows; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self._map(lambda tensor, part=slice(start, start + size): tensor[part])

    def padded(self, num_rows: int) -> Batch:
        """The batch with rows of padding, which have no loss weight, up to `num_rows` rows."""
        missing = num_rows - len(self)
        if missing <= 0:
            return self
        return self._map(lambda tensor: torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))]))

    def _map(self, function: Any) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if value is not None})


class BatchBuffer:
    """Memory for one batch, reused for later batches. Its arrays and tensors share the memory."""

    def __init__(
        self,
        n: int,
        *,
        width: int,
        dtype: np.dtype[Any],
        pin: bool = False,
        groups: TokenGroups | None = None,
        row_multiple: int = 1,
    ) -> None:
        """Allocate `n` rows of `width` ids of type `dtype`.

        Args:
            n: rows.
            width: ids of a row.
            dtype: of the ids.
            pin: whether in page-locked memory, for copies to a GPU.
            groups: of the tokens; None: batches have none.
            row_multiple: rows of padding are added to an assembly, up to a multiple of this number of rows.
        """
        self._width, self._dtype, self._pin, self._text_groups = width, dtype, pin, groups
        self._row_multiple = row_multiple
        self._allocate(n)

    def _allocate(self, n: int) -> None:
        width = self._width

        def empty(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.empty((n, *shape), dtype=dtype, pin_memory=self._pin)

        groups = self._text_groups
        columns = 0 if groups is None else groups.num_columns
        groups_type = torch.int16 if groups is None else torch.from_numpy(np.empty(0, groups.dtype)).dtype
        self.batch = Batch(
            tokens=empty(width, dtype=torch.from_numpy(np.empty(0, self._dtype)).dtype),
            roles=empty(width, dtype=torch.uint8),
            segments=empty(width, dtype=torch.int32),
            loss_weights=empty(width - 1, dtype=torch.float32),
            groups=empty(columns, width, dtype=groups_type) if columns else None,
        )
        self._rows = PackedRows(
            input_ids=self.batch.tokens.numpy(),
            roles=self.batch.roles.numpy(),
            segments=self.batch.segments.numpy(),
            documents=np.empty((n, width), np.uint32),
        )
        self._loss_weights: NumPyArray = self.batch.loss_weights.numpy()
        self._groups: NumPyArray | None = None if self.batch.groups is None else self.batch.groups.numpy()

    def fill(self, start: int, dataset: PackedDataset, rows: NumPyArray, *, goldfish: GoldfishConfig | None) -> int:
        """Copy `rows` of a data set into the buffer from row `start` on; returns the first row after them."""
        part = slice(start, start + len(rows))
        packed = dataset.rows(rows, into=self._part(part))
        self._weigh(packed, part, dataset=dataset, goldfish=goldfish)
        if self._text_groups is not None and self._groups is not None:
            numbers = self._text_groups.numbers.of(dataset, rows, packed.documents)
            self._groups[part] = self._text_groups.of(numbers)
        return part.stop

    def assemble(self, assembly: Assembly, dataset: PackedDataset, *, goldfish: GoldfishConfig | None) -> Batch:
        """Build the rows of an assembly from a data set's segments; the batch has as many rows, and the buffer grows
        where it is too small."""
        assembly = assembly.padded(self._row_multiple)
        if assembly.num_rows > len(self.batch):
            self._allocate(assembly.num_rows)
        part = slice(0, assembly.num_rows)
        packed = self._part(part)
        assembly.read(dataset, packed)
        if self._text_groups is not None and self._groups is not None:
            numbers = assembly.document_numbers(self._text_groups.numbers, dataset, packed)
            self._groups[part] = self._text_groups.of(numbers)
        weights = self._weigh(packed, part, dataset=dataset, goldfish=goldfish)
        assembly.mask(packed.roles, weights)
        return next(self.batch.split(assembly.num_rows))

    def _part(self, part: slice) -> PackedRows:
        return PackedRows(**{field.name: getattr(self._rows, field.name)[part] for field in fields(PackedRows)})

    def _weigh(
        self, packed: PackedRows, part: slice, *, dataset: PackedDataset, goldfish: GoldfishConfig | None
    ) -> NumPyArray:
        """The loss weights of these rows, written to the buffer's."""
        weights = packed.loss_weights(dataset.role_weights, out=self._loss_weights[part])
        if goldfish is not None:
            drops = goldfish_drops(packed.input_ids, packed.roles, packed.segments, k=goldfish.k, h=goldfish.h)
            weights[drops] = 0.0
        return weights


def read_batch(
    dataset: PackedDataset,
    rows: NumPyArray,
    *,
    goldfish: GoldfishConfig | None = None,
    groups: TokenGroups | None = None,
) -> Batch:
    """`rows` of a data set as tensors in ordinary memory; `goldfish` sets the weights of some labels to 0."""
    buffer = BatchBuffer(len(rows), width=dataset.sequence_length + 1, dtype=dataset.id_dtype, groups=groups)
    buffer.fill(0, dataset, rows, goldfish=goldfish)
    return buffer.batch
