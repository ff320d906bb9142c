from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.schema import TokenizerInfo
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.attention_maps.masses import (
    attention_masses,
    attention_weights,
    meta_token_attention,
    watch_attention,
)
from colophon.trainer.attention_maps.parts import labelled_rows, required_columns
from colophon.trainer.checkpoints.checkpoint import TrainingState
from colophon.trainer.config import TrainConfig
from colophon.trainer.inference.trained_model import TrainedModel
from colophon.trainer.model.attention import attend
from colophon.trainer.model.decoder import Decoder, rotation_at
from tests.trainer.attention_maps.rows import URLS, layout_with, url_columns
from tests.trainer.runs import TINY_MODEL


def trained_model(tokenizer: Tokenizer, **changes: Any) -> TrainedModel:
    """A model whose weights are drawn so wide that its attention is far from even."""
    config = TrainConfig.model_validate(
        {"layout": "x", "model": {**TINY_MODEL, "init_std": 0.3, **changes}, "steps": 1, "device": "cpu"}
    )
    names = ("name", "sha256", "num_base_ids", "num_ids", "special")
    info = TokenizerInfo(**{name: getattr(tokenizer, name) for name in names})
    decoder = Decoder(config.model, tokenizer=info)
    decoder.initialise(seed=1)
    return TrainedModel(
        name="drawn",
        model=decoder.requires_grad_(False).eval(),
        config=config,
        tokenizer=info,
        state=TrainingState(step=1),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_weights_sum_to_1_and_equal_those_of_the_model(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 7, 6, generator=generator, dtype=torch.float64)
    key, value = (torch.randn(2, kv_heads, 7, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = attention_weights(query, key)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7))
    for b, h, i, j in np.ndindex(2, 4, 7, 7):
        shared = h // (4 // kv_heads)
        scores = [float(query[b, h, i] @ key[b, shared, k]) / math.sqrt(6) for k in range(i + 1)]
        total = sum(map(math.exp, scores))
        expected = math.exp(scores[j]) / total if j <= i else 0.0
        assert float(weights[b, h, i, j]) == pytest.approx(expected, abs=1e-6)
    of_heads = value.repeat_interleave(4 // kv_heads, dim=1)
    torch.testing.assert_close(weights.double() @ of_heads, attend(query, key, value, mask=None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"num_kv_heads": 4}])
def test_watching_changes_no_states_and_sees_every_layer(tokenizer: Tokenizer, changes: dict[str, Any]) -> None:
    trained = trained_model(tokenizer, **changes)
    input_ids = torch.arange(24).view(2, 12)
    seen: dict[int, torch.Tensor] = {}
    states = watch_attention(trained.model, input_ids, seen.__setitem__)
    torch.testing.assert_close(states, trained.hidden_states(input_ids))
    assert sorted(seen) == [0, 1]
    inputs: list[torch.Tensor] = []
    positions = torch.arange(12, dtype=torch.int32).expand(2, 12)
    trained.model.hidden_states(input_ids, positions, None, visit=inputs.append)
    first: Any = trained.model.layers[0]
    rotation = rotation_at(positions, head_size=16, base=trained.config.model.rope_base)
    normalised = first.input_layernorm(inputs[0])
    _, _, value = first.self_attn.project(normalised, rotation)
    value = value.repeat_interleave(4 // value.shape[1], dim=1)
    by_weights = first.self_attn.o_proj((seen[0] @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(by_weights, first.self_attn(normalised, rotation, None), rtol=1e-4, atol=1e-5)


def brute_masses(
    trained: TrainedModel, prefix: NumPyArray, parts: NumPyArray, text: NumPyArray, *, num_parts: int
) -> tuple[NumPyArray, NumPyArray]:
    """Masses [layers, heads, parts] and even shares [parts] of one document alone."""
    whole = torch.from_numpy(np.concatenate([prefix, text]))[None]
    of = [*parts.tolist(), *[num_parts - 1] * len(text)]
    mass = np.zeros((2, 4, num_parts))
    even = np.zeros(num_parts)

    def see(layer: int, weights: torch.Tensor) -> None:
        for head in range(4):
            for query in range(len(prefix), len(of)):
                for key in range(query + 1):
                    mass[layer, head, of[key]] += float(weights[0, head, query, key]) / len(text)

    watch_attention(trained.model, whole, see)
    for query in range(len(prefix), len(of)):
        for key in range(query + 1):
            even[of[key]] += 1 / (query + 1) / len(text)
    return mass, even


def test_masses_equal_those_of_each_document_alone(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "colophon.trainer.attention_maps.masses._PAIRS_AT_ONCE", 3 * 90**2
    )  # several batches of several rows
    trained = trained_model(tokenizer)
    layout = layout_with(tokenizer, position="prepend", template="{url}", max_metadata_tokens=60)
    rows = labelled_rows(layout, url_columns(list(URLS[:6])), num_documents=6, tokenizer=tokenizer)
    random = np.random.default_rng(0)
    texts = [random.integers(0, 256, length).astype(np.uint16) for length in (3, 20, 1, 9, 14, 5)]
    found = attention_masses(trained, rows, texts)
    np.testing.assert_allclose(found.mass.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.uniform.sum(-1), 1, rtol=1e-5)
    for number, (prefix, parts, text) in enumerate(zip(rows.prefixes, rows.parts, texts, strict=True)):
        mass, even = brute_masses(trained, prefix, parts, text, num_parts=len(rows.part_names))
        np.testing.assert_allclose(found.mass[number], mass, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found.uniform[number], even, rtol=1e-4, atol=1e-6)
        counts = np.bincount(parts, minlength=len(rows.part_names))
        counts[-1] += len(text)
        assert found.tokens[number].tolist() == counts.tolist()
    assert np.abs(found.mass - found.uniform[:, None, None]).max() > 0.05  # this model's attention is not even


def test_meta_token_vectors_equal_those_of_each_document_alone(tokenizer: Tokenizer) -> None:
    trained = trained_model(tokenizer)
    layout = layout_with(tokenizer, position="meta_tokens", num_meta_tokens=3)
    assert required_columns(layout) == []
    rows = labelled_rows(layout, {}, num_documents=4, tokenizer=tokenizer)
    assert rows.part_names == ["bos", "wrapper", "meta_token_1", "meta_token_2", "meta_token_3", "text"]
    special = tokenizer.special
    assert rows.prefixes[0].tolist() == [special.bos, special.boc, *special.meta[:3], special.eoc]
    random = np.random.default_rng(0)
    texts = [random.integers(0, 256, length).astype(np.uint16) for length in (9, 5, 6, 20)]
    found = meta_token_attention(trained, rows, texts, num_tokens=6)
    assert found[1] is None
    for number in (0, 2, 3):
        seen: dict[int, torch.Tensor] = {}
        whole = torch.from_numpy(np.concatenate([rows.prefixes[number], texts[number]]))[None]
        watch_attention(trained.model, whole, seen.__setitem__)
        expected = seen[1][0].mean(0)[6:12, 2:5].flatten().numpy()  # six text tokens after six of the prefix
        vector = found[number]
        assert vector is not None
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-6)
