"""Packed layouts in other training loops: plain torch, transformers, accelerate, Lightning, grain.

    from colophon.torch import PackedIterableDataset

    data = PackedIterableDataset("out/web", {"layout": "prepend-url", "batch_size": 64, "steps": 1000})
    for step, batch in enumerate(DataLoader(data, batch_size=data.rows_at_once), start=data.step + 1):
        ...                              # the rows of update `step` of `colophon train`
        state = data.state_dict(step)    # data.load_state_dict(state) continues there

`PackedDataset` has the rows of one layout as stored, `TrainingDataset` the samples of a training by number.
"""

from __future__ import annotations

from colophon.trainer.loading.collators import collate_for_transformers, collate_varlen
from colophon.trainer.loading.datasets import PackedDataset, TrainingDataset
from colophon.trainer.loading.samples import IGNORED_LABEL, Sample
from colophon.trainer.loading.stream import PackedIterableDataset

__all__ = [
    "IGNORED_LABEL",
    "PackedDataset",
    "PackedIterableDataset",
    "Sample",
    "TrainingDataset",
    "collate_for_transformers",
    "collate_varlen",
]
