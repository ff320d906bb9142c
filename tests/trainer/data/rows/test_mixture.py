from __future__ import annotations

from itertools import pairwise
from math import ceil, floor, log2
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from colophon.trainer.config import CurriculumConfig
from colophon.trainer.data.rows.mixture import (
    RowOrder,
    Shares,
    count_below,
    epoch_order,
    reversed_bits,
    systematic_sample,
)

GOLDEN_ORDER = [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]
SEEDS = st.integers(0, 5)
WEIGHTS = st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e3)), min_size=1, max_size=30).filter(any)


def test_the_order_is_the_one_that_checkpoints_were_made_with() -> None:
    # A change here breaks the resume of every existing run: it requires a new format of checkpoints.
    assert epoch_order(10, seed=0, epoch=0).tolist() == GOLDEN_ORDER
    order = RowOrder(10, seed=0)
    assert order.rows(np.arange(8, 12)).tolist() == [*GOLDEN_ORDER[8:], *epoch_order(10, seed=0, epoch=1)[:2].tolist()]


@given(num_rows=st.integers(1, 40), seed=SEEDS, stream=st.integers(0, 3), epochs=st.integers(1, 4))
def test_every_row_is_drawn_once_an_epoch(num_rows: int, seed: int, stream: int, epochs: int) -> None:
    order = RowOrder(num_rows, seed=seed, stream=stream)
    rows = order.rows(np.arange(num_rows * epochs)).reshape(epochs, num_rows)
    assert (np.sort(rows, axis=1) == np.arange(num_rows)).all()


def test_epochs_seeds_and_sources_differ() -> None:
    orders = [
        epoch_order(100, seed=0, epoch=0),
        epoch_order(100, seed=0, epoch=1),
        epoch_order(100, seed=1, epoch=0),
        epoch_order(100, seed=0, epoch=0, stream=1),
    ]
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)


@given(num_rows=st.integers(1, 20), samples=st.lists(st.integers(0, 100), max_size=30), weighted=st.booleans())
def test_any_samples_in_any_sequence_are_those_of_the_stream(num_rows: int, samples: list[int], weighted: bool) -> None:
    weights = np.arange(1.0, num_rows + 1) if weighted else None
    stream = np.concatenate([RowOrder(num_rows, seed=3, weights=weights).epoch(epoch) for epoch in range(101)])
    order = RowOrder(num_rows, seed=3, weights=weights)
    assert order.rows(np.array(samples, np.int64)).tolist() == [stream[sample] for sample in samples]


def counts_of_epochs(order: RowOrder, num_rows: int, *, epochs: int) -> np.ndarray[Any, Any]:
    return np.stack([np.bincount(order.epoch(epoch), minlength=num_rows) for epoch in range(epochs)])


@given(weights=WEIGHTS, seed=SEEDS)
@example(weights=[1.0] * 7, seed=0)
@example(weights=[3.0, 0.0, 1.0, 0.0], seed=1)
@example(weights=[1e308, 1e308, 1e308], seed=1)
@example(weights=[5e-324, 0.0], seed=1)
def test_a_weighted_row_is_drawn_its_weight_rounded_up_or_down(weights: list[float], seed: int) -> None:
    relative = np.array(weights) / max(weights)
    expected = relative * len(weights) / relative.sum()
    order = RowOrder(len(weights), seed=seed, weights=np.array(weights))
    counts = counts_of_epochs(order, len(weights), epochs=8)
    assert (counts.sum(axis=1) == len(weights)).all()
    # Weights are rounded to 2^-30 of their mean.
    for epochs in (1, 2, 4, 8):
        together = counts[:epochs].sum(axis=0)
        assert (together >= np.floor(epochs * expected - 1e-6)).all()
        assert (together <= np.ceil(epochs * expected + 1e-6)).all()


def test_equal_weights_are_no_weights_and_none_is_drawn_at_weight_0() -> None:
    for value in (0.1, 1.0, 7.3):
        order = RowOrder(1000, seed=0, weights=np.full(1000, value))
        assert (counts_of_epochs(order, 1000, epochs=3) == 1).all()
        assert order.epoch(1).tolist() == RowOrder(1000, seed=0).epoch(1).tolist()
    half = RowOrder(1000, seed=0, weights=np.arange(1000) % 2 + 0.0)
    assert (counts_of_epochs(half, 1000, epochs=3) == np.arange(1000) % 2 * 2).all()


@given(weights=st.lists(st.integers(0, 2**34), min_size=1, max_size=12).filter(any), offset=st.integers(0, 2**32 - 1))
def test_a_systematic_sample_by_hand(weights: list[int], offset: int) -> None:
    n, total = len(weights), sum(weights)
    ends = np.cumsum(weights).tolist()
    points = [(k * total + (offset * total >> 32)) // n for k in range(n)]
    expected = [next(row for row, end in enumerate(ends) if point < end) for point in points]
    assert systematic_sample(np.array(ends), offset=offset).tolist() == expected


@given(
    scores=st.lists(st.one_of(st.just(float("nan")), st.integers(0, 9).map(float)), min_size=1, max_size=40),
    buckets=st.integers(1, 12),
    order=st.sampled_from(["ascending", "descending"]),
    weighted=st.booleans(),
)
def test_a_curriculum_goes_through_its_buckets_in_order(
    scores: list[float], buckets: int, order: str, weighted: bool
) -> None:
    curriculum = CurriculumConfig.model_validate({"column": "q", "order": order, "buckets": buckets, "epochs": 2})
    values, num_rows = np.array(scores), len(scores)
    settings: dict[str, Any] = {"seed": 0, "weights": np.arange(1.0, num_rows + 1) if weighted else None}
    ordered = RowOrder(num_rows, scores=values, curriculum=curriculum, **settings)
    shuffled = RowOrder(num_rows, **settings)
    keys = np.nan_to_num(values if order == "ascending" else -values, nan=100.0)
    for epoch in (0, 1):
        rows = ordered.epoch(epoch)
        assert sorted(rows) == sorted(shuffled.epoch(epoch))
        filled = [keys[part] for part in np.array_split(rows, buckets) if len(part)]
        assert all(before.max() <= after.min() for before, after in pairwise(filled))
    assert ordered.epoch(2).tolist() == shuffled.epoch(2).tolist()


def test_buckets_are_shuffled_anew_each_epoch() -> None:
    curriculum = CurriculumConfig(column="q", buckets=2, epochs=2)
    order = RowOrder(200, seed=0, scores=np.arange(200.0), curriculum=curriculum)
    first, second = order.epoch(0), order.epoch(1)
    assert first.tolist() != second.tolist()
    assert first[:100].tolist() != list(range(100))
    assert set(first[:100]) == set(second[:100]) == set(range(100))


@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    batch_size=st.integers(1, 40),
    steps=st.integers(1, 60),
)
def test_every_batch_has_its_shares_and_rounding_evens_out(weights: list[float], batch_size: int, steps: int) -> None:
    shares = Shares(weights, batch_size=batch_size)
    exact = np.array(weights) / sum(weights) * batch_size
    seen = np.zeros(len(weights), np.int64)
    for step in range(1, steps + 1):
        assert shares.before(step).tolist() == seen.tolist()
        spans = shares.samples(step)
        assert [start for start, _ in spans] == seen.tolist()
        counts = np.array([stop - start for start, stop in spans])
        assert counts.sum() == batch_size
        # Shares are rounded to 2^-32 of a sample.
        assert (counts >= np.floor(exact - 1e-6)).all()
        assert (counts <= np.ceil(exact + 1e-6)).all()
        seen += counts
        assert (abs(seen - step * exact) <= log2(step) + 2 + 1e-6).all()


@given(step=st.integers(1, 2**31), batch_size=st.integers(1, 1000))
def test_a_late_batch_follows_on_the_one_before(step: int, batch_size: int) -> None:
    shares = Shares([1, 5, 2], batch_size=batch_size)
    assert [stop for _, stop in shares.samples(step)] == [start for start, _ in shares.samples(step + 1)]
    exact = np.array([1, 5, 2]) / 8 * batch_size
    assert (abs(shares.before(step + 1) - step * exact) <= log2(step) + 3).all()


def test_halves_alternate() -> None:
    spans = [Shares([2, 2], batch_size=1).samples(step) for step in range(1, 7)]
    assert [[stop - start for start, stop in span] for span in spans] == [[1, 0], [0, 1]] * 3


@given(number=st.integers(0, 2**40))
def test_bits_in_reverse(number: int) -> None:
    bits = [number >> bit & 1 for bit in range(32)]
    assert reversed_bits(number) == sum(bit << (31 - place) for place, bit in enumerate(bits))


@given(bounds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5), count=st.integers(0, 300))
def test_counting_what_is_below_by_counting(bounds: list[int], count: int) -> None:
    sequence = [reversed_bits(number) for number in range(count)]
    expected = [sum(value < bound for value in sequence) for bound in bounds]
    assert count_below(np.array(bounds), count=count).tolist() == expected
    for bound, below in zip(bounds, expected, strict=True):
        assert floor(count * bound / 2**32 - 6) <= below <= ceil(count * bound / 2**32 + 6)
