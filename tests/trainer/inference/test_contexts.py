from __future__ import annotations

import numpy as np
import pytest

from colophon.trainer.inference.contexts import derangement
from tests.trainer.counting import counting_layout, wrapped
from tests.trainer.runs import SPECIAL


def test_a_derangement_moves_every_element() -> None:
    for size in (2, 3, 10, 501):
        moved = derangement(size, seed=size)
        assert sorted(moved) == list(range(size))
        assert not (moved == np.arange(size)).any()
    assert derangement(50, seed=0).tolist() == derangement(50, seed=0).tolist() != derangement(50, seed=1).tolist()
    with pytest.raises(ValueError, match="a derangement needs at least 2 elements, got 1"):
        derangement(1, seed=0)


def test_prefixes_under_each_condition() -> None:
    metadata = [np.array([51]), np.array([52]), np.array([], np.int64), None]
    prepend, meta = counting_layout("prepend"), counting_layout("meta_tokens")
    bos, empty = [SPECIAL.bos], wrapped(None)
    true = [wrapped(1), wrapped(2), empty, bos]
    assert prepend.prefixes("true", metadata, seed=0) == true
    assert prepend.prefixes("empty", metadata, seed=0) == [empty] * 4
    assert prepend.prefixes("none", metadata, seed=0) == [bos] * 4
    shuffled = prepend.prefixes("shuffled", metadata, seed=0)
    assert sorted(shuffled) == sorted(true)
    assert all(one != other for one, other in zip(shuffled, true, strict=True))
    assert meta.prefixes("meta_tokens", [None], seed=0) == [[SPECIAL.bos, SPECIAL.boc, 65, 66, 67, SPECIAL.eoc]]
    assert counting_layout("append").prefixes("true", metadata, seed=0) == [bos] * 4
    assert prepend.conditions == ("true", "empty", "none", "shuffled"), "the layout's own first"
    assert counting_layout("plain").conditions == ("none",)


@pytest.mark.parametrize(("name", "beside"), [("plain", 1), ("prepend", 7), ("append", 7), ("meta_tokens", 6)])
def test_max_text_tokens_is_a_row_minus_the_longest_context(name: str, beside: int) -> None:
    assert counting_layout(name).max_text_tokens == 49 - beside
