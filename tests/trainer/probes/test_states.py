from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.config import ModelConfig
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.probes.states import document_states
from tests.trainer.runs import NUM_TEXT_IDS, SPECIAL, TINY_MODEL, TOKENIZER


def texts(*lengths: int) -> list[NumPyArray]:
    random = np.random.default_rng(0)
    return [random.integers(0, NUM_TEXT_IDS, length).astype(np.uint16) for length in lengths]


def small_model(**changes: Any) -> Decoder:
    model = Decoder(ModelConfig.model_validate({**TINY_MODEL, **changes}), tokenizer=TOKENIZER)
    model.initialise(seed=0)
    return model.eval()


def test_states_equal_those_of_each_document_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colophon.trainer.probes.states._TOKENS_AT_ONCE", 40)  # several batches
    model, documents = small_model(), texts(5, 1, 17, 9, 16, 2)
    prefix = [SPECIAL.bos, SPECIAL.boc, SPECIAL.eoc]
    found = document_states(model, prefix, documents, layers=[0, 2])
    assert found.shape == (2, 2, len(documents), TINY_MODEL["hidden_size"])
    for number, text in enumerate(documents):
        ids = torch.tensor([[*prefix, *text.tolist()]])
        seen: list[torch.Tensor] = []
        with torch.no_grad():
            model.hidden_states(ids, torch.arange(ids.shape[1])[None].int(), None, visit=seen.append)
        for layer, states in zip((0, 1), (seen[0], seen[2]), strict=True):
            torch.testing.assert_close(found[layer, 0, number], states[0, -1], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(found[layer, 1, number], states[0, len(prefix) :].mean(0), rtol=1e-4, atol=1e-6)
