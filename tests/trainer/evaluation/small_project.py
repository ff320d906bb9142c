"""The layouts of the small project of `conftest`, and its trained models."""

from __future__ import annotations

from pathlib import Path

import torch

from colophon.trainer.evaluation.settings import EvaluatedModel
from colophon.trainer.inference.trained_model import load_trained

LAYOUTS = {"plain": "none", "prepend-url": "true", "append-quality": "true", "meta-tokens": "meta_tokens"}
"""Layouts of the small project, with the condition that equals training."""


def evaluated_model(output: Path, name: str) -> EvaluatedModel:
    """The training run `name` under `output`, with its layout."""
    return EvaluatedModel(trained=load_trained(output, name, device=torch.device("cpu")))
