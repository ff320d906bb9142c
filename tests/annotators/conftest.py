"""Small fastText models, which the project's own training writes once a session."""

from __future__ import annotations

from pathlib import Path

import fasttext
import numpy as np
import pytest

from colophon.annotators.embedding.vector_column import VectorColumn
from colophon.annotators.fasttext.model import encode_label
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext.training.classifier import train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from tests.annotators.embedding.small_model import write_heads, write_static_model
from tests.annotators.pooled.small_model import write_small_model

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
    """Texts of a label's words among common ones, some on several lines; each label in turn."""
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
    `many.bin` (260 labels), `pooled.safetensors`, and `heads.safetensors` for the static model `static` (random)."""
    folder = tmp_path_factory.mktemp("models")
    for loss in ("softmax", "ova", "hs"):
        train(folder / f"{loss}.bin", list(WORDS), loss=loss)
    train(folder / "chars.bin", ["high", "low"], loss="softmax", min_chars=2, max_chars=3)
    train(folder / "words.bin", ["high", "low"], loss="softmax", word_ngrams=1)
    names = [f"label {number}" for number in range(260)]  # the library quantizes an output matrix from 256 labels on
    many = TrainingSettings(dim=4, buckets=300, epoch=1, loss="softmax")
    train_classifier(names * 2, names * 2, output=folder / "many.bin", settings=many)
    write_small_model(folder / "pooled.safetensors")
    write_heads(folder / "heads.safetensors", write_static_model(folder / "static"))
    write_heads(folder / "column-heads.safetensors", VectorColumn("meta.vector"))
    return folder


@pytest.fixture(scope="session")
def quantized(models: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models quantized by the library: without options, pruned with norms, with a quantized output matrix."""
    folder = tmp_path_factory.mktemp("quantized")
    options: dict[str, dict[str, object]] = {
        "plain.ftz": {},
        "pruned.ftz": {"cutoff": 300, "qnorm": True},
        "output.ftz": {"qout": True, "qnorm": True},
    }
    sources = {"output.ftz": "many.bin"}
    return [
        quantize(models / sources.get(name, "softmax.bin"), folder / name, **option) for name, option in options.items()
    ]


def quantize(source: Path, target: Path, **options: object) -> Path:
    lines = write_lines(target.with_suffix(".txt"), *labelled(["high", "low"]))
    model = fasttext.load_model(str(source))
    model.quantize(lines, verbose=0, thread=12, **options)
    model.save_model(str(target))
    return target


def write_lines(path: Path, texts: list[str], labels: list[str]) -> str:
    rows = [f"{encode_label(label)} {' '.join(text.split())}\n" for text, label in zip(texts, labels, strict=True)]
    path.write_text("".join(rows))
    return str(path)


@pytest.fixture(scope="session")
def kinds(models: Path, quantized: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models` and `quantized`, and `trigrams.bin`, `wide.bin` (one versus all, 3 dimensions, 9 labels),
    `wide_hs.bin` (the same with hierarchical softmax), `one_dimension.bin`, `ns.bin` (negative sampling, which only
    the library itself trains), `ova.ftz`, `chars_ova.bin`, `chars_hs.bin` (subwords), `chars_pruned.ftz` (pruned
    subwords), `chars_wide.bin` and `chars_wide_pruned.ftz` (subwords and more labels than dimensions, as in language
    identification)."""
    folder = tmp_path_factory.mktemp("kinds")
    for path in [*models.glob("*.bin"), *quantized]:
        (folder / path.name).symlink_to(path)
    train(folder / "trigrams.bin", list(WORDS), loss="softmax", word_ngrams=3, buckets=97)
    train(folder / "chars_hs.bin", list(WORDS), loss="hs", min_chars=1, max_chars=4, word_ngrams=1)
    train(folder / "chars_wide.bin", list(WORDS), loss="softmax", dim=2, min_chars=2, max_chars=4)
    train(folder / "chars_ova.bin", list(WORDS), loss="ova", min_chars=2, max_chars=4)
    train(folder / "one_dimension.bin", ["high", "low"], loss="softmax", dim=1)
    quantize(models / "ova.bin", folder / "ova.ftz", qnorm=True)
    quantize(models / "chars.bin", folder / "chars_pruned.ftz", cutoff=300, qnorm=True)
    quantize(folder / "chars_wide.bin", folder / "chars_wide_pruned.ftz", cutoff=300, qnorm=True)
    texts, labels = labelled(list(WORDS))
    nine = [f"{label} {number % 3}" for number, label in enumerate(labels)]
    for name, loss in (("wide.bin", "ova"), ("wide_hs.bin", "hs")):
        wide = TrainingSettings.model_validate({"dim": 3, "buckets": 300, "epoch": 5, "loss": loss})
        train_classifier(texts, nine, output=folder / name, normalize=TextPreparation(), settings=wide)
    lines = write_lines(folder / "lines.txt", texts, labels)
    library = {"loss": "ns", "dim": 8, "bucket": 500, "wordNgrams": 2, "epoch": 15, "thread": 19, "verbose": 0}
    fasttext.train_supervised(lines, **library).save_model(str(folder / "ns.bin"))
    return folder
