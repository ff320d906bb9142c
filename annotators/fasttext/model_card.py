"""The JSON card beside a trained model, `<model>.json`: its text preparation, sizes, training and test scores."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.shards.common.digests import file_sha256

if TYPE_CHECKING:  # the annotator reads cards without the libraries that training needs
    from colophon.annotators.fasttext.report import ClassifierReport
    from colophon.annotators.fasttext.training.labelled_rows import LabelledRows

MODEL_CARD_FORMAT = "colophon-classifier-1"
"""Value of `format` in every card. Other JSON files beside a model are ignored."""


def card_path(model: str | Path) -> Path:
    """`models/quality.bin` → `models/quality.bin.json`."""
    return Path(f"{model}.json")


def preparation_of(model: str | Path) -> TextPreparation | None:
    """The text preparation that the model was trained with, from its card; None without a card of this format.

    Raises:
        AnnotatorError: the card's `normalize` is invalid, or the card describes a different model file.
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
            raise AnnotatorError(f"{path}: the card describes a different model file")
        return TextPreparation.model_validate(card["normalize"])
    except (KeyError, TypeError, ValidationError):
        raise AnnotatorError(f"{path}: no usable text preparation under 'normalize'") from None


def model_card(
    model: FastTextModel,
    rows: LabelledRows,
    *,
    normalize: TextPreparation,
    settings: dict[str, Any],
    attempts: int,
    test: ClassifierReport | None,
) -> dict[str, Any]:
    """The card of a model that was trained on `rows` with `settings`, as JSON. Reads the whole model for its sha256."""
    header = model.header
    return {
        "format": MODEL_CARD_FORMAT,
        "labels": list(model.label_names),
        "normalize": normalize.model_dump(mode="json"),
        "sizes": {
            "bytes": header.file_bytes,
            "labels": len(header.labels),
            "words": header.num_words,
            "buckets": header.buckets,
            "dim": header.dim,
        },
        "training": {
            "settings": settings,
            "attempts": attempts,
            "rows": len(rows),
            "rows_left_out": rows.num_dropped,
            "tokens": header.num_tokens,
            "rows_by_label": rows.count_by_label(),
        },
        "test": None if test is None else test.as_dict(),
        "sha256": file_sha256(Path(model.path)),
        "library": {"name": "fasttext", "version": version("fasttext")},
    }
