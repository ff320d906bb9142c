from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from colophon.trainer.data.goldfish import goldfish_drops
from colophon.trainer.data.training_data import TrainingData
from tests.trainer.runs import LAYOUTS, config

K, H = 4, 3


def drops_of(tokens: NDArray[Any], roles: NDArray[Any] | None = None, *, k: int = K, h: int = H) -> NDArray[Any]:
    """The drops of one row, one segment; all of it is text unless `roles` is given."""
    row = np.asarray(tokens, np.uint16)[None]
    roles = np.full(row.shape, Role.TEXT, np.uint8) if roles is None else roles[None]
    return goldfish_drops(row, roles, np.zeros(row.shape, np.int32), k=k, h=h)[0]


def test_one_label_in_k_is_dropped() -> None:
    tokens = np.random.default_rng(0).integers(0, 50_000, 200_001)
    assert drops_of(tokens, k=50, h=13).mean() == pytest.approx(1 / 50, rel=0.1)
    assert drops_of(tokens, k=3, h=1).mean() == pytest.approx(1 / 3, rel=0.1)


def test_the_same_text_is_dropped_in_the_same_places_anywhere() -> None:
    random = np.random.default_rng(1)
    passage = random.integers(0, 100, 60)
    first, second = (np.concatenate([random.integers(0, 100, n), passage, random.integers(0, 100, 5)]) for n in (7, 31))
    at_first, at_second = drops_of(first)[7 + H - 1 : 7 + 59], drops_of(second)[31 + H - 1 : 31 + 59]
    assert at_first.any()
    assert np.array_equal(at_first, at_second)


def test_the_dropped_label_itself_does_not_decide() -> None:
    tokens = np.random.default_rng(2).integers(0, 100, 200)
    at = int(np.flatnonzero(drops_of(tokens))[3])
    tokens[at + 1] += 1  # the label of input `at`
    assert drops_of(tokens)[at]


def test_id_0_does_not_collapse_the_hash() -> None:
    tokens = np.random.default_rng(3).integers(0, 2, 4000)  # every window of three has a zero seven times in eight
    dropped = {tuple(tokens[i - H + 1 : i + 1]) for i in np.flatnonzero(drops_of(tokens)) if i >= H - 1}
    assert 0 < len(dropped) < 2**H


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "masked"])
def test_only_text_after_h_text_tokens_of_its_own_segment_is_masked(packed_run: Path, layout: str) -> None:
    rows = PackedDataset.open(packed_run, layout).rows(range(20))
    drops = goldfish_drops(rows.input_ids, rows.roles, rows.segments, k=2, h=H)
    dropped = list(zip(*np.nonzero(drops), strict=True))
    assert len(dropped) > 20
    for row, i in dropped:
        window = slice(i + 1 - H, i + 2)
        assert (rows.roles[row, window] == Role.TEXT).all()
        assert len(set(rows.documents[row, window].tolist())) == 1
        assert len(set(rows.segments[row, window].tolist())) == 1


def test_dropped_labels_have_no_loss_weight(packed_run: Path) -> None:
    def weights(**settings: object) -> Any:
        data = TrainingData(config("append", **settings), output=packed_run)
        return data, data.batch(1)

    _, plain = weights()
    data, batch = weights(goldfish={"k": 2, "h": H})
    drops = goldfish_drops(batch.tokens.numpy(), batch.roles.numpy(), batch.segments.numpy(), k=2, h=H)
    assert drops.any()
    assert (batch.loss_weights[drops] == 0).all()
    assert (batch.loss_weights[~drops] == plain.loss_weights[~drops]).all()
    # In validation every text label has loss weight.
    (validated, *_) = data.validation_batches()
    assert (validated.loss_weights[validated.label_roles == Role.TEXT] == 1).all()
