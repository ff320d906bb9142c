from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.inference.padding import padded_batches
from tests.trainer.runs import NUM_TEXT_IDS


def texts(*lengths: int) -> list[NumPyArray]:
    random = np.random.default_rng(0)
    return [random.integers(0, NUM_TEXT_IDS, length).astype(np.uint16) for length in lengths]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 80), st.sampled_from([1, 2]))
@settings(deadline=None)
def test_batches_contain_every_row_once_and_respect_their_size(lengths: list[int], max_size: int, cost: int) -> None:
    rows = texts(*lengths)
    seen = []
    for batch, input_ids, of_length in padded_batches(rows, max_size=max_size, cost=cost):
        assert len(batch) == 1 or len(batch) * input_ids.shape[1] ** cost <= max_size
        assert input_ids.shape == (len(batch), max(of_length))
        for number, ids, length in zip(batch, input_ids, of_length, strict=True):
            seen.append(int(number))
            np.testing.assert_array_equal(ids[:length], rows[number])
            assert not ids[length:].any()
    assert sorted(seen) == list(range(len(rows)))
