from __future__ import annotations

import numpy as np
import pytest
import torch

from colophon.trainer.inference.kv_cache import CachedDecoder
from tests.trainer.counting import random_model
from tests.trainer.runs import SPECIAL


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("parts", [[1] * 20, [7, *[1] * 13], [5, 6, 1, 8]])
def test_logits_do_not_depend_on_how_many_tokens_are_read_at_once(
    qk_norm: bool, num_kv_heads: int, parts: list[int]
) -> None:
    trained = random_model(masked_ids=(SPECIAL.pad,), qk_norm=qk_norm, num_kv_heads=num_kv_heads, init_std=0.1)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 60, (3, 20)))
    at_once = trained.logits(ids)
    decoder, end = CachedDecoder(trained, num_rows=3, capacity=20), 0
    for length in parts:
        found, end = decoder.read(ids[:, end : end + length]), end + length
        torch.testing.assert_close(found, at_once[:, end - 1], atol=1e-5, rtol=0)
