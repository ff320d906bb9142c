"""Tensors of a file against the parameters that they become, before a model of their sizes is allocated.

A checkpoint or an export may come from elsewhere. Missing and additional names, other shapes and types, and numbers
that are not finite are refused: loaded, they would be cut, cast, ignored or spread without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from colophon.shards.common.errors import listed
from colophon.shards.schema import TokenizerInfo
from colophon.trainer.config import ModelConfig
from colophon.trainer.errors import TrainerError
from colophon.trainer.model.decoder import Decoder, num_rows

_EMBEDDING = "embed_tokens.weight"
_SHOWN_NAMES = 3
_LONGEST_NAME = 80
Part = Callable[[str, Tensor], Tensor]
"""From the name of a tensor and the tensor to a part of it."""
WEIGHT_TYPES = (torch.float32,)
"""The type of a checkpoint's tensors."""


def check_weights(
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer: TokenizerInfo,
    *,
    where: object,
    types: Collection[torch.dtype] = WEIGHT_TYPES,
    part: Part = lambda name, tensor: tensor,
) -> None:
    """Check that a file's weights are those of a model of these sizes. Cost: one pass over the weights.

    Args:
        weights: by parameter name.
        config: the sizes, which may come from the same stranger.
        tokenizer: of the training.
        where: the file, in errors.
        types: the types that weights may have.
        part: of a tensor whose numbers are checked, by its name; other parts of a mapped file are not read.

    Raises:
        TrainerError: names, shapes or types differ, or a number is not finite.
    """
    shape = (num_rows(config, tokenizer), config.hidden_size)
    embedding = weights.get(_EMBEDDING)
    if embedding is not None and tuple(embedding.shape) != shape:
        raise TrainerError(_problem(where, f"{_EMBEDDING} is {_shape(embedding)}, the settings give {_spell(shape)}"))
    if embedding is None or config.num_layers > len(weights):
        layers = f"{len(weights)} tensors are not those of {config.num_layers} layers"
        raise TrainerError(_problem(where, f"no {_EMBEDDING}" if embedding is None else layers))
    with torch.device("meta"):
        parameters = dict(Decoder(config, tokenizer=tokenizer).named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    check_tensors(weights, shapes, where=where, types=types, part=part)


def check_tensors(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, Sequence[int]],
    *,
    where: object,
    types: Collection[torch.dtype] = WEIGHT_TYPES,
    part: Part = lambda name, tensor: tensor,
) -> None:
    """Check that tensors have exactly these names and shapes, one of these types, and finite numbers in `part`.

    Raises:
        TrainerError: the first difference.
    """
    for kind, names in (("without", shapes.keys() - tensors.keys()), ("with unknown", tensors.keys() - shapes.keys())):
        if names:
            shown = listed([name[:_LONGEST_NAME] for name in sorted(names)], most=_SHOWN_NAMES)
            raise TrainerError(_problem(where, f"{kind} {shown}"))
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(shapes[name]):
            raise TrainerError(_problem(where, f"{name} is {_shape(tensor)}, the settings give {_spell(shapes[name])}"))
        if tensor.dtype not in types:
            raise TrainerError(_problem(where, f"{name} is {_type(tensor.dtype)}, not {', '.join(map(_type, types))}"))
        if not torch.isfinite(part(name, tensor)).all():
            raise TrainerError(_problem(where, f"{name} has numbers that are not finite"))


def check_masked_ids(masked_ids: Iterable[int], tokenizer: TokenizerInfo, *, where: object, remedy: str) -> None:
    """Check that the masked ids in a description of a model are ids of its tokenizer.

    Raises:
        TrainerError: one is not.
    """
    if not all(0 <= id < tokenizer.num_ids for id in masked_ids):
        raise TrainerError(f"{where}: damaged: masked_ids are not ids of the tokenizer. {remedy}")


def _problem(where: object, what: str) -> str:
    return f"{where}: not the tensors of this model: {what}"


def _shape(tensor: Tensor) -> str:
    return _spell(tensor.shape)


def _spell(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
