"""Matrix products of layers in float8, by torchao: half the bytes of bfloat16, and on recent GPUs twice the speed.

Weights, gradients of weights and the optimizer stay float32. torchao scales each operand of a product by its largest
number, in the forward and in the backward pass, and multiplies with e4m3 (gradients of outputs: e5m2) and sums in
higher precision. The output layer and attention are computed in bfloat16, as without it.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn

from colophon.shards.common.errors import missing_library
from colophon.trainer.errors import TrainerError
from colophon.trainer.model.decoder import Decoder

_MULTIPLE = 16
_FEWEST_OUTPUTS, _FEWEST_INPUTS = 1024, 4096


def why_not_float8(device: torch.device) -> str | None:
    """The reason why a run on a device cannot use float8; None where it can."""
    if device.type != "cuda":
        return "it runs on CUDA only"
    if torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device)
        return f"it needs a GPU of compute capability 8.9 or more, such as an L40S, H100 or H200, not {name}"
    return missing_library("it", "torchao", extra="fp8") if find_spec("torchao") is None else None


def convert_layers(model: Decoder, *, emulate: bool = False) -> list[str]:
    """Let the layers of a model that are large enough compute in float8; parameters stay the same objects and names.

    Args:
        model: before its layers are compiled, which its first forward pass does, and before they are sharded.
        emulate: compute in float32 with numbers rounded to float8, on any device.

    Returns:
        The names of the layers, `layers.0.mlp.gate_proj`.

    Raises:
        TrainerError: no layer is large enough.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    found = [f"layers.{name}" for name, module in model.layers.named_modules() if is_large_enough(module)]
    if not found:
        raise TrainerError(
            "dtype 'float8': no matrix of this model is large enough to gain from it: more than "
            f"{_FEWEST_OUTPUTS} outputs, or more than {_FEWEST_INPUTS} inputs. Use bfloat16"
        )
    convert_to_float8_training(
        model.layers,
        config=Float8LinearConfig(emulate=emulate),
        module_filter_fn=lambda module, name: is_large_enough(module),
    )
    return found


def is_large_enough(module: nn.Module) -> bool:
    """Whether a module is a matrix whose product is faster in float8, by torchao's measurements on an H100: with both
    sides multiples of 16, as the kernels need, and one of them large, so that scaling is cheap beside the product."""
    if not isinstance(module, nn.Linear):
        return False
    if module.in_features % _MULTIPLE or module.out_features % _MULTIPLE:
        return False
    return module.out_features > _FEWEST_OUTPUTS or module.in_features > _FEWEST_INPUTS
