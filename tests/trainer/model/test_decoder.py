from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from colophon.shards.reader import PackedDataset
from colophon.shards.schema import SpecialIds, TokenizerInfo
from colophon.trainer.config import ModelConfig
from colophon.trainer.data.batch import read_batch
from colophon.trainer.model.attention import dense_mask
from colophon.trainer.model.decoder import (
    Decoder,
    Linear,
    initialise_meta_tokens,
    joined_products,
    rotate,
    rotation_at,
)
from tests.trainer.runs import SPECIAL, TINY_MODEL, TOKENIZER


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


def test_meta_tokens_start_near_the_mean_of_other_tokens() -> None:
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


def test_a_token_does_not_attend_to_later_tokens() -> None:
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


def test_qk_norm_bounds_the_scores() -> None:
    def scores(*, qk_norm: bool) -> torch.Tensor:
        model = Decoder(ModelConfig.model_validate({**TINY_MODEL, "qk_norm": qk_norm}), tokenizer=TOKENIZER)
        model.initialise(seed=0)
        attention = model.layers[0].self_attn
        states = 1000 * torch.randn(1, 30, 64, generator=torch.Generator().manual_seed(0))
        query, key, _ = attention.project(states, rotation_at(torch.arange(30)[None], head_size=16, base=1e4))
        return query @ key.repeat_interleave(2, dim=1).transpose(2, 3)

    assert scores(qk_norm=True).abs().max() <= 16 * (1 + 1e-4)  # both have length sqrt(head_size)
    assert scores(qk_norm=False).abs().max() > 1000


# Warnings of torch's compiler itself.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning", "ignore:The .grad attribute")
def test_activation_checkpointing_and_compilation_change_no_loss_and_no_gradient(packed_run: Path) -> None:
    batch = read_batch(PackedDataset.open(packed_run, "prepend"), range(4))

    def run(**options: bool) -> tuple[float, list[torch.Tensor]]:
        model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER, **options)
        model.initialise(seed=0)
        mask = dense_mask(batch.input_segments)
        loss = model(batch.input_ids, batch.positions, mask, batch.labels, batch.loss_weights).weighted
        loss.backward()
        return loss.item(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    expected, gradients = run()
    for options in ({"activation_checkpointing": True}, {"compiled": True}):
        loss, found = run(**options)
        assert loss == pytest.approx(expected, rel=1e-5)
        for gradient, reference in zip(found, gradients, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-4)


def test_activation_checkpointing_computes_layers_again(packed_run: Path) -> None:
    batch = read_batch(PackedDataset.open(packed_run, "plain"), range(2))
    model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER, activation_checkpointing=True)
    model.initialise(seed=0)
    calls: list[int] = []
    model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    loss = model(batch.input_ids, batch.positions, None, batch.labels, batch.loss_weights).weighted
    assert len(calls) == 1
    loss.backward()
    assert len(calls) == 2


def test_operations_of_the_papers_model_a_token() -> None:
    with torch.device("meta"):
        model = Decoder(ModelConfig.model_validate("1.5b"), tokenizer=tokenizer_of(131_074))
    # 6 N without the embedding's lookup, and 6 x 16 x 2048 x 4096 for attention.
    weights = model.num_parameters - 131_136 * 2048 - 2048
    assert model.flops_per_token(4096) == 6 * weights + 6 * 16 * 2048 * 4096


class _Products(TorchDispatchMode):
    """Counts the products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func is torch.ops.aten.mm.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2)])
def test_layers_of_one_input_are_one_product_in_training(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [
        Linear(32, width).to(torch.float64 if dtype == torch.float64 else torch.float32) for width in (32, 16, 16)
    ]
    for layer in layers:
        layer.weight.data.normal_(generator=generator)
    states = torch.randn(2, 5, 32, generator=generator).to(dtype).requires_grad_()
    upstream = [torch.randn(2, 5, layer.out_features, generator=generator).to(dtype) for layer in layers]
    with _Products() as products:
        joined = joined_products(states, layers)
    assert products.number == 1
    separate = [layer(states) for layer in layers]
    weights = [layer.weight for layer in layers]
    found = torch.autograd.grad(joined, [states, *weights], upstream)
    expected = torch.autograd.grad(separate, [states, *weights], upstream)
    for one, other in zip([*joined, *found], [*separate, *expected], strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max()))
    with torch.no_grad(), _Products() as products:
        joined_products(states, layers)
    assert products.number == 3
