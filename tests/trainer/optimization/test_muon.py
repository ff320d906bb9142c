"""Muon's matrices divided among processes, as copies and as shards of uneven numbers of rows."""

from __future__ import annotations

from tests.trainer.ranks import run_on_ranks

_SHARED = """
from functools import partial
import torch
import torch.distributed as dist
from colophon.trainer.optimization.muon import _of_copies, _of_shards
from colophon.trainer.optimization.muon import orthogonal as iterated

orthogonal = partial(iterated, steps=5)

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, generator = dist.get_rank(), torch.Generator().manual_seed(0)
for number, rows, columns in [(3, 5, 4), (4, 6, 3), (1, 1, 7)]:
    matrices = torch.randn(number, rows, columns, generator=generator)
    alone = orthogonal(matrices).float()
    assert torch.equal(_of_copies(list(matrices), orthogonal=orthogonal), alone)
    padded = -(-rows // 2)
    own = slice(rank * padded, (rank + 1) * padded)
    parts = list(matrices[:, own].unbind())
    assert torch.equal(_of_shards(parts, num_rows=rows, group=dist.group.WORLD, orthogonal=orthogonal), alone[:, own])
print("equal")
dist.destroy_process_group()
"""


def test_matrices_divided_among_processes_get_the_updates_of_one_process() -> None:
    assert run_on_ranks(_SHARED, num_ranks=2) == ["equal\n"] * 2
