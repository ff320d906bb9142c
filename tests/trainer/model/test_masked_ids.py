from __future__ import annotations

from pathlib import Path

import pytest

from colophon.shards.reader import PackedDataset
from colophon.trainer.config import ModelConfig
from colophon.trainer.data.batch import read_batch
from colophon.trainer.model.attention import dense_mask
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.model.masked_ids import zero_weight_ids
from tests.trainer.runs import SPECIAL, TINY_MODEL, TOKENIZER


def test_masked_ids_get_no_probability_and_no_loss_where_their_weight_is_0(packed_run: Path) -> None:
    dataset = PackedDataset.open(packed_run, "prepend")
    batch = read_batch(dataset, range(6))
    masked = zero_weight_ids(dataset)
    assert set(masked) == {SPECIAL.bos, SPECIAL.pad, SPECIAL.boc, SPECIAL.eoc, *SPECIAL.meta}
    model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER, masked_ids=masked)
    model.initialise(seed=0)
    states = model.hidden_states(batch.input_ids, batch.positions, dense_mask(batch.input_segments))
    probabilities = model.logits(states).softmax(-1)
    assert (probabilities[..., masked] == 0).all()
    assert (probabilities[..., : SPECIAL.bos] > 0).all()
    mask = dense_mask(batch.input_segments)
    loss, losses, _ = model(batch.input_ids, batch.positions, mask, batch.labels, batch.loss_weights)
    assert losses.isfinite().all()
    expected = -probabilities.log().gather(-1, batch.labels[..., None])[..., 0]
    has_weight = batch.loss_weights > 0
    assert loss.item() == pytest.approx((expected * batch.loss_weights)[has_weight].sum().item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_ids_with_loss_weight_in_append_are_not_masked(packed_run: Path) -> None:
    masked = zero_weight_ids(PackedDataset.open(packed_run, "append"))
    assert not {SPECIAL.boc, SPECIAL.eoc, SPECIAL.eos} & set(masked)
    assert {SPECIAL.bos, SPECIAL.pad} < set(masked)
