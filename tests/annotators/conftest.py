"""Small fastText models, trained once a session by the project's own training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from annotators.fasttext_settings import TrainingSettings
from annotators.fasttext_training import train_classifier
from annotators.text_preparation import TextPreparation

WORDS = {
    "high": [
        "theorem",
        "proof",
        "energy",
        "cell",
        "membrane",
        "history",
        "economy",
        "evidence",
        "molecule",
        "equation",
    ],
    "low": ["lol", "omg", "click", "shocking", "buy", "cheap", "prize", "winner", "haha", "subscribe"],
    "Science & Tech": ["laser", "chip", "robot", "software", "orbit", "probe", "quantum", "sensor"],
}
COMMON = ["the", "a", "of", "and", "to", "in", "is", "it", "that", "for"]


def labelled(names: list[str], *, num_texts: int = 300, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of a label's words among common ones, some over several lines; labels in turn."""
    rng = np.random.default_rng(seed)
    labels = [names[i % len(names)] for i in range(num_texts)]
    texts = [" ".join(rng.permutation([*rng.choice(WORDS[label], 5), *rng.choice(COMMON, 6)])) for label in labels]
    return [text.replace(" the ", "\n") for text in texts], labels


def train(path: Path, names: list[str], **settings: object) -> Path:
    texts, labels = labelled(names)
    small = TrainingSettings.model_validate({"dim": 8, "buckets": 500, "epoch": 15, **settings})
    return train_classifier(texts, labels, output=path, normalize=TextPreparation(), settings=small).path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: `softmax.bin`, `ova.bin`, `hs.bin` (high, low, Science & Tech), `chars.bin`, `words.bin` (two of them),
    `many.bin` (260)."""
    folder = tmp_path_factory.mktemp("models")
    for loss in ("softmax", "ova", "hs"):
        train(folder / f"{loss}.bin", list(WORDS), loss=loss)
    train(folder / "chars.bin", ["high", "low"], loss="softmax", min_chars=2, max_chars=3)
    train(folder / "words.bin", ["high", "low"], loss="softmax", word_ngrams=1)
    names = [f"label {number}" for number in range(260)]  # the library quantizes an output from 256 labels on
    many = TrainingSettings(dim=4, buckets=300, epoch=1, loss="softmax")
    train_classifier(names * 2, names * 2, output=folder / "many.bin", settings=many)
    return folder
