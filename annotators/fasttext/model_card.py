"""The JSON card beside a trained model, `<model>.json`: what an annotator must know of the training."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.text_preparation import TextPreparation

MODEL_CARD_FORMAT = "colophon-classifier-1"
"""Value of `format` in every card; other JSON files beside a model are not ours to read."""


def card_path(model: str | Path) -> Path:
    """`models/quality.bin` → `models/quality.bin.json`."""
    return Path(f"{model}.json")


def preparation_of(model: str | Path) -> TextPreparation | None:
    """The text preparation that the model was trained with, from its card; None where there is no card of ours.

    Raises:
        AnnotatorError: the card is ours and its `normalize` makes no sense, or it is of another model file.
    """
    path = card_path(model)
    try:
        card = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(card, dict) or card.get("format") != MODEL_CARD_FORMAT:
        return None
    try:
        if card["sizes"]["bytes"] != Path(model).stat().st_size:
            raise AnnotatorError(f"{path}: the card describes another model file")
        return TextPreparation.model_validate(card["normalize"])
    except (KeyError, TypeError, ValidationError):
        raise AnnotatorError(f"{path}: no usable text preparation under 'normalize'") from None
