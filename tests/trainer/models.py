"""Random models over real vocabularies, for tests that need no training run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import torch

from colophon.shards.layouts import parse_layout
from colophon.shards.schema import TokenizerInfo
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from colophon.trainer.checkpoints.checkpoint import TrainingState
from colophon.trainer.config import TrainConfig
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.trained_model import TrainedModel
from colophon.trainer.model.decoder import Decoder

MODEL = {"num_layers": 2, "hidden_size": 64, "ffn_size": 96, "num_heads": 4, "num_kv_heads": 2, "init_std": 0.3}
PREPEND = {"position": "prepend", "template": "{topic} {level}", "max_metadata_tokens": 6}


def write_vocabulary(path: Path) -> Path:
    """A `.tiktoken` file of the 256 bytes and some English pairs."""
    merges = (b"th", b"the", b"in", b"er", b" a", b" the", b"an", b"on", b"ing", b" b", b" c")
    tokens = [*(bytes([byte]) for byte in range(256)), *merges]
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(t), rank) for rank, t in enumerate(tokens)))
    return path


def small_tokenizer(directory: Path, *, num_meta_tokens: int = 3, **settings: Any) -> Tokenizer:
    """A tokenizer of 267 tokens, followed by special ones."""
    path = write_vocabulary(directory / "small.tiktoken")
    config = TokenizerConfig.model_validate({"path": str(path), "pattern": "gpt2", **settings})
    return load_tokenizer(config, num_meta_tokens=num_meta_tokens)


def info_of(tokenizer: Tokenizer) -> TokenizerInfo:
    """The tokenizer as shards describe it."""
    names = ("name", "sha256", "num_base_ids", "num_ids", "special")
    return TokenizerInfo(**{name: getattr(tokenizer, name) for name in names})


def drawn_model(tokenizer: Tokenizer, *, masked_ids: tuple[int, ...] = (), **model: Any) -> TrainedModel:
    """A model as loaded from a checkpoint, with weights drawn so wide that its predictions are confident."""
    config = TrainConfig.model_validate({"layout": "prepend", "model": {**MODEL, **model}, "steps": 1})
    decoder = Decoder(config.model, tokenizer=info_of(tokenizer), masked_ids=masked_ids)
    decoder.initialise(seed=1)
    return TrainedModel(
        name="drawn",
        model=decoder.requires_grad_(False).eval(),
        config=config,
        tokenizer=info_of(tokenizer),
        state=TrainingState(step=1, tokens=2, text_tokens=1),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def layout_for(tokenizer: Tokenizer, settings: dict[str, Any] | None = None) -> TrainedLayout:
    """The layout of a model, as its shards would describe it."""
    layout = parse_layout(settings or PREPEND, where="test")
    return TrainedLayout(name="prepend", layout=layout, sequence_length=64, special=tokenizer.special)
