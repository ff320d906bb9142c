"""Export of a trained model to a directory that Hugging Face `transformers` loads, and loading of such a directory.

    config.json, generation_config.json   Llama; Qwen 3 where queries and keys are normalised (the same architecture)
    model.safetensors                     weights under Hugging Face's names
    tokenizer.json, tokenizer_config.json the vocabulary with its special tokens
    colophon.json                         layout, special ids and settings of the training
    README.md                             how to use the model

The rows that pad the vocabulary are excluded. Training masks them, so they are untrained, and `transformers`, which
cannot mask ids, would give them probability.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from colophon.shards.common.durable import created_directory
from colophon.shards.common.errors import one_line
from colophon.shards.common.state_files import parse_model, parse_state
from colophon.shards.schema import TokenizerInfo
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, TokenizerError, load_tokenizer
from colophon.trainer.checkpoints.checkpoint import save_tensors
from colophon.trainer.checkpoints.tensor_checks import check_masked_ids, check_weights
from colophon.trainer.errors import TrainerError
from colophon.trainer.export.files import (
    Description,
    WeightsDtype,
    generation_config,
    model_config,
    readme,
    tokenizer_config,
)
from colophon.trainer.export.tokenizer import ExportedTokenizer, export_tokenizer
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.trained_model import TrainedModel
from colophon.trainer.inference.vocabulary import check_tokenizer
from colophon.trainer.model.decoder import Decoder

_REMEDY = "Export the model again"
_STORED_TYPES = (torch.float32, torch.bfloat16, torch.float16)
DESCRIPTION_NAME, WEIGHTS_NAME, TOKENIZER_NAME = "colophon.json", "model.safetensors", "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """The result of an export."""

    directory: Path
    architecture: str
    """The class of `transformers` that loads it."""
    num_ids: int
    step: int
    masked_ids: tuple[int, ...]
    tokenizer: ExportedTokenizer


@dataclass(frozen=True, kw_only=True)
class LoadedExport:
    """An export, loaded as our own decoder."""

    trained: TrainedModel
    layout: TrainedLayout
    tokenizer: Tokenizer


def export_model(
    trained: TrainedModel, *, tokenizer: Tokenizer, layout: TrainedLayout, to: Path, dtype: WeightsDtype = "float32"
) -> ExportedModel:
    """Write `trained` to the new directory `to`, which appears complete or not at all.

    Args:
        trained: the model; its weights may be on any device.
        tokenizer: the one that encoded its shards.
        layout: the one that it was trained on.
        to: a directory that does not exist or is empty.
        dtype: the type of the weights in the file.

    Raises:
        TrainerError: `to` is not empty or cannot be written, or the tokenizer is not the model's or cannot be exported.
    """
    check_empty(to)
    check_tokenizer(tokenizer, trained.tokenizer, training=trained.name, where="export")
    masked_ids = [int(token_id) for token_id in trained.model.impossible_ids if token_id < trained.tokenizer.num_ids]
    description = Description(
        name=trained.name,
        state=trained.state,
        config=trained.config,
        tokenizer=trained.tokenizer,
        layout_name=layout.name,
        layout=layout.layout,
        sequence_length=layout.sequence_length,
        masked_ids=masked_ids,
    )
    exported = export_tokenizer(tokenizer)
    config = model_config(description, dtype=dtype)
    texts = {
        "config.json": _json(config),
        "generation_config.json": _json(generation_config(description)),
        "tokenizer_config.json": _json(tokenizer_config(tokenizer, layout.sequence_length)),
        TOKENIZER_NAME: exported.content,
        DESCRIPTION_NAME: description.model_dump_json(indent=1) + "\n",
        "README.md": readme(description, tokenizer, exported),
    }
    try:
        with created_directory(to) as directory:
            for name, text in texts.items():
                (directory / name).write_text(text, encoding="utf-8")
            weights = _weights(trained, dtype=getattr(torch, dtype))
            save_tensors(weights, directory / WEIGHTS_NAME, metadata={"format": "pt"})
    except OSError as error:
        raise TrainerError(f"{to}: cannot be written: {error.strerror or error}") from None
    return ExportedModel(
        directory=to,
        architecture=config["architectures"][0],
        num_ids=trained.tokenizer.num_ids,
        step=trained.state.step,
        masked_ids=tuple(masked_ids),
        tokenizer=exported,
    )


def load_export(
    directory: Path, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> LoadedExport:
    """Load an export as our own decoder, with the ids masked that were masked in training.

    Args:
        directory: the one that `export_model` wrote.
        device: None: CUDA where it is available, else the CPU.
        dtype: the type of activations and matrix products; weights are float32.

    Raises:
        TrainerError: `directory` is not an export, or is damaged.
    """
    try:
        described = _described(directory / DESCRIPTION_NAME)
        tokenizer = _load_tokenizer(directory, described.tokenizer)
        stored = load_file(_regular(directory / WEIGHTS_NAME))
    except (OSError, KeyError, TypeError, ValueError, TokenizerError, SafetensorError) as error:
        raise TrainerError(f"{directory}: not a model that Colophon exported: {one_line(error)}") from None
    unpadded = described.config.model.model_copy(update={"vocabulary_multiple": 1})
    weights = {name.removeprefix("model."): tensor for name, tensor in stored.items()}
    check_weights(weights, unpadded, described.tokenizer, where=directory / WEIGHTS_NAME, types=_STORED_TYPES)
    model = Decoder(unpadded, tokenizer=described.tokenizer, masked_ids=described.masked_ids)
    model.load_weights({name: tensor.float() for name, tensor in weights.items()})
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = TrainedModel(
        name=described.name,
        model=model.to(where).requires_grad_(False).eval(),
        config=described.config.model_copy(update={"model": unpadded}),
        tokenizer=described.tokenizer,
        state=described.state,
        device=where,
        dtype=dtype,
    )
    layout = TrainedLayout(
        name=described.layout_name,
        layout=described.layout,
        sequence_length=described.sequence_length,
        special=described.tokenizer.special,
    )
    return LoadedExport(trained=trained, layout=layout, tokenizer=tokenizer)


def _described(path: Path) -> Description:
    described = parse_model(Description, _regular(path).read_bytes(), where=str(path), remedy=_REMEDY)
    check_masked_ids(described.masked_ids, described.tokenizer, where=path, remedy=_REMEDY)
    return described


def _regular(path: Path) -> Path:
    """A file of an export; a link to one too, because the hub's cache consists of links. A pipe would wait."""
    if path.exists() and not path.is_file():
        raise TrainerError(f"{path}: not a regular file")
    return path


def _load_tokenizer(directory: Path, info: TokenizerInfo) -> Tokenizer:
    """The vocabulary of an export; special tokens have the names that the export gives them."""
    path = _regular(directory / TOKENIZER_NAME)
    added = parse_state(path.read_bytes(), where=str(path), remedy=_REMEDY)["added_tokens"]
    names = {token["id"]: token["content"] for token in added}
    roles = {role: names[getattr(info.special, role)] for role in ("bos", "eos", "pad", "boc", "eoc")}
    config = TokenizerConfig(path=str(directory / TOKENIZER_NAME), **roles)
    tokenizer = load_tokenizer(config, num_meta_tokens=len(info.special.meta))
    if tokenizer.special != info.special or tokenizer.num_ids != info.num_ids:
        raise TrainerError(f"{directory / TOKENIZER_NAME}: its special ids differ from those in {DESCRIPTION_NAME}")
    return tokenizer


def _weights(trained: TrainedModel, *, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights on the CPU under Hugging Face's names, without the rows that pad the vocabulary."""
    num_ids = trained.tokenizer.num_ids
    weights: dict[str, Tensor] = {}
    for name, parameter in trained.model.named_parameters():
        has_row_per_id = name in {"embed_tokens.weight", "lm_head.weight"}
        kept = parameter.detach()[:num_ids] if has_row_per_id else parameter.detach()
        key = name if name.startswith("lm_head.") else f"model.{name}"
        weights[key] = kept.to("cpu", dtype).contiguous()
    return weights


def check_empty(to: Path) -> None:
    """Refuse a directory for an export that has files.

    Raises:
        TrainerError: it exists and is not an empty directory.
    """
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise TrainerError(f"{to} exists and is not an empty directory; give another --to")


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
