from __future__ import annotations

import pytest
import torch

from shards.schema import SpecialIds, TokenizerInfo
from tests.trainer.runs import SPECIAL, TINY_MODEL, TOKENIZER
from trainer.config import ModelConfig
from trainer.model import Decoder, initialise_meta_tokens, rotate, rotation_at


def tokenizer_of(num_ids: int) -> TokenizerInfo:
    special = SpecialIds(bos=1, eos=2, pad=3, boc=61, eoc=62)
    return TokenizerInfo(name="t", sha256="0" * 64, num_base_ids=num_ids, num_ids=num_ids, special=special)


def size_of(preset: str, num_ids: int) -> int:
    with torch.device("meta"):
        return Decoder(ModelConfig.model_validate(preset), tokenizer=tokenizer_of(num_ids)).num_parameters


def test_the_papers_model_has_its_parameters() -> None:
    hidden, ffn, kv = 2048, 8192, 2048 // 32 * 8
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * ffn + 2 * hidden
    # Mistral-Nemo's 131,072 ids and two more, padded to a multiple of 64; embedding and output layer.
    assert size_of("1.5b", 131_074) == 16 * layer + hidden + 2 * 131_136 * hidden
    assert size_of("1.5b", 131_074) == pytest.approx(1.5e9, rel=0.02)


@pytest.mark.parametrize(("preset", "expected"), [("124m", 124e6), ("350m", 350e6)])
def test_presets_have_about_the_parameters_of_their_name(preset: str, expected: float) -> None:
    assert size_of(preset, 50_262) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("preset", "expected"), [("1m", 1e6), ("10m", 10e6)])
def test_small_presets_are_named_without_their_embedding(preset: str, expected: float) -> None:
    assert size_of(preset, 64) == pytest.approx(expected, rel=0.25)


def test_the_vocabulary_is_padded() -> None:
    assert [
        Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=tokenizer_of(n)).output_weight.shape[0]
        for n in (64, 65)
    ] == [64, 128]


def test_initial_weights_follow_the_seed_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER)
        model.initialise(seed=seed)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_initial_spread() -> None:
    model = Decoder(
        ModelConfig.model_validate({**TINY_MODEL, "init_std": 0.1, "tie_embeddings": False}), tokenizer=TOKENIZER
    )
    model.initialise(seed=0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == 1).all()
        else:
            into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            assert parameter.std().item() == pytest.approx(0.05 if into_residual else 0.1, rel=0.1)


def test_meta_tokens_start_like_an_average_token() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = 3 + 0.5 * torch.randn(1088, 400, generator=generator)
    weight[1000:] = 100  # padding beyond the ids that exist
    meta = [5, 500, 999]
    weight[meta] = 50
    before = weight.clone()
    initialise_meta_tokens(weight, meta, num_ids=1000, generator=generator)
    assert weight[meta].mean().item() == pytest.approx(3, abs=0.05)
    assert weight[meta].std().item() == pytest.approx(0.5, rel=0.1)
    assert len(weight[meta].unique(dim=0)) == 3
    others = [i for i in range(1088) if i not in meta]
    assert torch.equal(weight[others], before[others])


def test_the_model_knows_its_meta_tokens() -> None:
    assert Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER).meta_token_ids == list(SPECIAL.meta)


def test_a_token_does_not_see_the_future() -> None:
    model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER)
    model.initialise(seed=0)
    ids = torch.arange(20)[None]
    changed = ids.clone()
    changed[0, 12:] += 7
    positions = torch.arange(20, dtype=torch.int32)[None]
    with torch.no_grad():
        before, after = (model.hidden_states(i, positions, None)[0] for i in (ids, changed))
    torch.testing.assert_close(before[:12], after[:12])
    assert (before[12:] - after[12:]).abs().max() > 1e-2


def test_rotary_scores_depend_on_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator)

    def score(query_at: int, key_at: int) -> float:
        turned = [
            rotate(heads, rotation_at(torch.tensor([[at]]), head_size=16, base=10_000.0))
            for heads, at in ((query, query_at), (key, key_at))
        ]
        return (turned[0] * turned[1]).sum().item()

    assert score(9, 4) == pytest.approx(score(105, 100), rel=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), rel=1e-2)


def test_rotation_golden() -> None:
    # Position 2, pairs (0, 2) and (1, 3) turned by 2 and by 2 / 10000^(1/2) radians.
    turned = rotate(torch.tensor([[[[1.0, 0.0, 0.0, 1.0]]]]), rotation_at(torch.tensor([[2]]), head_size=4, base=1e4))
    assert turned.flatten().tolist() == pytest.approx([-0.4161468, -0.0199987, 0.9092974, 0.9998000], abs=1e-6)
