"""float8: the matrices that are converted, and the refusal where it cannot run; a CPU emulates its rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from colophon.trainer.config import ModelConfig
from colophon.trainer.device import float8
from colophon.trainer.device.float8 import convert_layers, why_not_float8
from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train
from colophon.trainer.model.decoder import Decoder, Linear
from tests.trainer.runs import TINY_MODEL, TOKENIZER, config

CUDA = torch.device("cuda")
WIDE = {**TINY_MODEL, "ffn_size": 1040}
"""Only both inputs of SwiGLU have more than 1,024 outputs, 65 x 16."""
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def decoder_of(sizes: dict[str, Any]) -> Decoder:
    decoder = Decoder(ModelConfig.model_validate(sizes), tokenizer=TOKENIZER)
    decoder.initialise(seed=0)
    return decoder


def loss_and_gradients(decoder: Decoder) -> list[torch.Tensor]:
    ids = torch.randint(0, 60, (2, 33), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(32, dtype=torch.int32).expand(2, 32)
    found = decoder(ids[:, :-1], positions, None, ids[:, 1:], torch.ones(2, 32), dtype=torch.bfloat16)
    found.weighted.backward()
    return [found.weighted.detach(), *(p.grad for p in decoder.parameters() if p.grad is not None)]


def test_large_matrices_of_layers_are_converted_and_keep_names_and_weights() -> None:
    pytest.importorskip("torchao")
    decoder = decoder_of({**WIDE, "tie_embeddings": False})
    before = dict(decoder.named_parameters())
    names = convert_layers(decoder, emulate=True)
    assert names == [f"layers.{n}.mlp.{name}_proj" for n in (0, 1) for name in ("gate", "up")]
    after = dict(decoder.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is parameter for name, parameter in before.items())
    converted = {name for name, module in decoder.named_modules() if type(module).__name__ == "Float8Linear"}
    assert converted == set(names)
    assert isinstance(decoder.lm_head, Linear)


def test_losses_and_gradients_are_those_of_bfloat16_but_for_rounding() -> None:
    pytest.importorskip("torchao")
    expected, decoder = loss_and_gradients(decoder_of(WIDE)), decoder_of(WIDE)
    convert_layers(decoder, emulate=True)
    found = loss_and_gradients(decoder)
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-3)
    differences = [float((a - b).norm() / b.norm()) for a, b in zip(found[1:], expected[1:], strict=True)]
    assert 0 < max(differences) < 0.2  # e4m3 has 3 bits
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in decoder.parameters())


def test_a_model_without_a_large_matrix_is_refused() -> None:
    pytest.importorskip("torchao")
    with pytest.raises(TrainerError, match=r"^dtype 'float8': no matrix of this model is large enough to gain from it"):
        convert_layers(decoder_of(TINY_MODEL))


def test_matrices_whose_sides_the_kernels_do_not_support_stay() -> None:
    assert float8.is_large_enough(Linear(16, 1040))
    assert float8.is_large_enough(Linear(4112, 16))
    for inputs, outputs in ((16, 1024), (4096, 16), (24, 1040), (16, 1032)):
        assert not float8.is_large_enough(Linear(inputs, outputs))
    assert not float8.is_large_enough(torch.nn.Embedding(16, 2048))


def test_without_torchao_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(float8, "find_spec", lambda name: None)
    assert why_not_float8(CUDA) == "it needs the package torchao: pip install 'colophon[fp8]'"
    monkeypatch.setattr(float8, "find_spec", lambda name: object())
    assert why_not_float8(CUDA) is None


def test_a_device_without_float8_is_refused_before_anything_is_written(
    run_output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainerError, match=r"^dtype 'float8': it runs on CUDA only; auto selects a dtype"):
        train(config(dtype="float8", model=WIDE), name="a", output=run_output)
    assert not (run_output / "training").exists()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert why_not_float8(CUDA) == (
        "it needs a GPU of compute capability 8.9 or more, such as an L40S, H100 or H200, not NVIDIA A100"
    )
