from __future__ import annotations

import numpy as np
import pytest
import torch

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.classifiers.bags import Bags
from colophon.trainer.classifiers.fitting import Targets, fit
from colophon.trainer.classifiers.network import PooledNetwork
from colophon.trainer.classifiers.settings import PooledSettings
from colophon.trainer.errors import DivergedError

SMALL = PooledSettings(min_steps=60, epochs=1, hidden=8, crop=6, head_lr=0.03)
NUM_ROWS = 40


def texts_of(labels: NumPyArray, *, seed: int = 0) -> Bags:
    """Texts of 3 to 9 tokens, of which some depend on the label."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 10, len(labels))
    firsts = np.concatenate([[0], np.cumsum(lengths)])
    words = np.where(rng.random(firsts[-1]) < 0.5, np.repeat(labels, lengths), rng.integers(5, 20, firsts[-1]))
    rows = np.stack([words, words + 20], axis=1).astype(np.int32)
    rows[firsts[:-1], 1] = -1
    return Bags(rows=rows, firsts=firsts, num_rows=NUM_ROWS)


LABELS = np.random.default_rng(1).integers(0, 3, 200)
BAGS = texts_of(LABELS)
KNOWN = np.ones(len(LABELS), bool)
ONE = Targets(num_labels=3, labels=LABELS, is_known=KNOWN)


def logits_of(arrays: dict[str, NumPyArray], bags: Bags, head: int = 0) -> NumPyArray:
    """The logits that a model's file would give, without quantization."""
    found = []
    for text in range(len(bags)):
        rows = bags.rows[bags.firsts[text] : bags.firsts[text + 1]]
        mean = arrays["rows"][rows[rows >= 0]].mean(axis=0)
        x = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-5)
        first, bias, second, skip, last = (
            arrays[f"heads.{head}.{name}"] for name in ("first", "first_bias", "second", "skip", "bias")
        )
        found.append(skip @ x + second @ np.maximum(first @ x + bias, 0) + last)
    return np.stack(found)


def silent(line: str) -> None:
    pass


def test_labels_are_learnt_and_seeds_give_the_same_weights() -> None:
    lines: list[str] = []
    first, second = (fit(BAGS, [ONE], SMALL, report=lines.append) for _ in range(2))
    other = fit(BAGS, [ONE], SMALL.model_copy(update={"seed": 1}), report=silent)
    assert all((first[name] == second[name]).all() for name in first)
    assert not (first["rows"] == other["rows"]).all()
    unseen = np.random.default_rng(2).integers(0, 3, 100)
    assert (logits_of(first, texts_of(unseen, seed=3)).argmax(axis=1) == unseen).mean() > 0.9
    assert lines[4].startswith("step 63 of 63: loss ")


def test_each_head_learns_from_the_texts_that_have_its_labels() -> None:
    """A second head of several labels a text, known for half of the texts; their other labels are wrong."""
    several = np.stack([LABELS == 0, LABELS <= 1, LABELS == 2], axis=1)
    is_known = np.arange(len(LABELS)) % 2 == 0
    several[~is_known] = True
    heads = [ONE, Targets(num_labels=3, labels=several, is_known=is_known)]
    arrays = fit(BAGS, heads, SMALL, report=silent)
    assert (logits_of(arrays, BAGS).argmax(axis=1) == LABELS).mean() > 0.9
    right = (logits_of(arrays, BAGS, head=1) > 0)[is_known] == several[is_known]
    assert right.mean() > 0.9


def test_the_weights_of_the_norm_are_part_of_the_heads() -> None:
    torch.manual_seed(0)
    network = PooledNetwork(NUM_ROWS, [3], SMALL).eval()
    with torch.no_grad():
        network.norm.weight.uniform_(0.5, 2)
        network.norm.bias.uniform_(-1, 1)
        rows, firsts = BAGS.batch(np.arange(20), crop=100, word_dropout=0, random=np.random.default_rng(0))
        (logits,) = network(rows, firsts)
    some = Bags(rows=BAGS.rows, firsts=BAGS.firsts[:21], num_rows=NUM_ROWS)
    np.testing.assert_allclose(logits_of(network.arrays(), some), logits.numpy(), rtol=1e-4, atol=1e-4)


def test_a_batch_is_a_crop_of_each_text_without_what_dropout_leaves_out() -> None:
    random = np.random.default_rng(0)
    rows, firsts = BAGS.batch(np.array([5, 0, 5]), crop=4, word_dropout=0, random=random)
    assert len(firsts) == 4
    for place, text in enumerate((5, 0, 5)):
        whole = BAGS.rows[BAGS.firsts[text] : BAGS.firsts[text + 1]]
        crops = [whole[start : start + 4].ravel() for start in range(max(len(whole) - 3, 1))]
        found = rows[firsts[place] : firsts[place + 1]].numpy()
        assert any((crop[crop >= 0] == found).all() for crop in crops if (crop >= 0).sum() == len(found))
    kept = len(BAGS.batch(np.arange(200), crop=4, word_dropout=0.5, random=random)[0])
    assert 0.4 < kept / len(BAGS.batch(np.arange(200), crop=4, word_dropout=0, random=random)[0]) < 0.6


def test_a_text_without_a_row_is_trained_on() -> None:
    bags = Bags(rows=BAGS.rows, firsts=np.concatenate([[0], BAGS.firsts]), num_rows=NUM_ROWS)
    targets = Targets(num_labels=3, labels=np.concatenate([[0], LABELS]), is_known=np.ones(len(LABELS) + 1, bool))
    assert np.isfinite(fit(bags, [targets], SMALL, report=silent)["rows"]).all()


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    with pytest.raises(DivergedError, match="try a lower lr"):
        fit(BAGS, [ONE], SMALL.model_copy(update={"head_lr": 1e30}), report=silent)
