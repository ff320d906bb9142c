from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from colophon.trainer.inference.text_loss import text_losses
from colophon.trainer.inference.trained_model import TrainedModel
from tests.trainer.counting import random_model, wrapped
from tests.trainer.runs import SPECIAL


def by_hand(trained: TrainedModel, prefix: list[int], text: list[int]) -> float:
    """The loss in float64, one row, token by token."""
    ids = torch.tensor([[*prefix, *text]])
    positions = torch.arange(ids.shape[1], dtype=torch.int32)[None]
    states = trained.model.hidden_states(ids, positions, None, dtype=torch.float64)[0]
    logits = states @ trained.model.output_weight.double().T
    logits[:, trained.model.impossible_ids] = -math.inf
    total = 0.0
    for i, token in enumerate(text):
        row = logits[len(prefix) - 1 + i]
        total += float(row.logsumexp(0) - row[token])
    return total


@pytest.mark.parametrize("tokens_at_once", [1, 64, 100_000])
@pytest.mark.parametrize("settings", [{}, {"qk_norm": True, "tie_embeddings": False, "init_std": 0.2}])
def test_the_loss_of_a_text_does_not_depend_on_its_batch(tokens_at_once: int, settings: dict[str, Any]) -> None:
    trained = random_model(masked_ids=(SPECIAL.pad, SPECIAL.boc), **settings)
    random = np.random.default_rng(0)
    texts = [random.integers(0, 60, n).astype(np.uint16) for n in (5, 1, 17, 40, 17, 2, 30)]
    prefixes = [
        [SPECIAL.bos],
        wrapped(None),
        wrapped(3),
        [SPECIAL.bos],
        wrapped(5),
        [SPECIAL.bos],
        wrapped(2),
    ]
    found = text_losses(trained, prefixes, texts, tokens_at_once=tokens_at_once)
    expected = [by_hand(trained, prefix, text.tolist()) for prefix, text in zip(prefixes, texts, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=2e-6)
