"""A pipeline of grain over the rows of a layout, as numpy arrays: for JAX, or any loop that shuffles by itself.

python examples/trainers/with_grain.py out/web prepend-url
"""

import sys

import grain

from colophon.torch import PackedDataset


def batches(run: str, layout: str, *, batch_size: int = 4, seed: int = 0) -> grain.IterDataset:
    """Endless shuffled epochs; `get_state()` and `set_state()` of its iterator continue it."""
    rows = grain.MapDataset.source(PackedDataset(run, layout))
    arrays = rows.shuffle(seed=seed).repeat().map(lambda row: {name: value.numpy() for name, value in row.items()})
    return arrays.to_iter_dataset().batch(batch_size)


if __name__ == "__main__":
    batch = next(iter(batches(*sys.argv[1:])))
    print({name: (values.shape, values.dtype.name) for name, values in batch.items()})
