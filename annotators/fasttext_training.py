"""Training a fastText classifier whose model the `fasttext` annotator reads, with a JSON card beside it.

The library (0.9.3) fills a tenth of the input matrix for each training thread and leaves the rest as it found the
memory, which is why it can stop with "Encountered NaN". Eleven threads fill all of it, whatever the number of cores
(measured: with one thread most small models failed, with twelve none did), so this module never uses fewer.
Threads update the same matrix without locks: equal seeds give models of equal quality, not of equal bytes.

Cost: reads each text once per epoch at 5 to 10 MB/s a core; the model file is 4 * dim * (words + buckets) bytes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import fasttext
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from annotators.base import AnnotatorError
from annotators.classifier_report import ClassifierReport, evaluate_classifier
from annotators.fasttext_model import FastTextModel, decode_label, encode_label, file_sha256
from annotators.model_card import MODEL_CARD_FORMAT, card_path
from annotators.text_preparation import TextPreparation

DEFAULT_PREPARATION = TextPreparation(lower=True, separate_punctuation=True)
"""What training uses unless told otherwise: on small training sets it generalises better than raw text."""

_MIN_THREADS = 11
_ATTEMPTS = 5
_ATTEMPTS_AT_FULL_RATE = 2
_VALIDATION_PART = 10
# A word that begins like a label would be one in a training file; when a model reads a text it skips such words.
_LABEL_LIKE = r"(^|[ \n\r\t\v\f\x00])__label__[^ \n\r\t\v\f\x00]*"


class TrainingSettings(BaseModel):
    """fastText's training parameters. The defaults were chosen by cross-validation inside training sets.

    `word_ngrams`, `dim`, `epoch`, `lr`, `min_count`, `min_chars`, `max_chars` and `buckets` are what autotune searches;
    with `autotune_seconds` only those given explicitly are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    word_ngrams: int = Field(default=2, ge=1, le=10)
    """Longest word n-gram that is a feature."""
    dim: int = Field(default=50, ge=1, le=2000)
    epoch: int = Field(default=10, ge=1)
    lr: float = Field(default=0.5, gt=0)
    """Learning rate at the start; it falls linearly to zero."""
    min_count: int = Field(default=1, ge=1)
    """Words seen less often are left out."""
    min_chars: int = Field(default=0, ge=0)
    """Shortest and longest character n-grams; 0 and 0: none."""
    max_chars: int = Field(default=0, ge=0)
    buckets: int = Field(default=1 << 18, ge=1)
    """Rows that hashed n-grams share; for millions of documents 2,000,000."""
    loss: Literal["ova", "softmax", "hs"] = "ova"
    """`ova` (each label against all others; its probabilities need not sum to 1), `softmax`, or `hs`."""
    threads: int = Field(default=_MIN_THREADS, ge=_MIN_THREADS)
    seed: int = Field(default=0, ge=0, lt=2**31)
    autotune_seconds: int | None = Field(default=None, ge=1)
    """Search the parameters for this long, then train with the best."""


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """What a training run left behind."""

    path: Path
    card: dict[str, Any]
    """As written to `<path>.json`."""
    report: ClassifierReport | None
    """Scores on the test texts, where some were given."""


Labelled = tuple[pa.Array | Sequence[str | None], pa.Array | Sequence[str | None]]


def train_classifier(
    texts: pa.Array | Sequence[str | None],
    labels: pa.Array | Sequence[str | None],
    *,
    output: str | Path,
    normalize: TextPreparation = DEFAULT_PREPARATION,
    settings: TrainingSettings | None = None,
    validation: Labelled | None = None,
    test: Labelled | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> TrainedClassifier:
    """Train on `texts` with `labels`, and write the model to `output` and its card to `<output>.json`.

    Rows without a text or a label are left out and counted. The rows are shuffled by the seed. A run that ends in
    "Encountered NaN" is repeated up to five times, with a new seed each time and from the third attempt on half the
    learning rate of the one before; `report` gets a line about each. Both files appear under their names when they are
    complete. Labels may hold spaces: `encode_label` writes them so that the annotator reads them back.

    Args:
        texts: one a document.
        labels: one a text.
        output: path of the model, `.bin` by custom; its folder is made.
        normalize: how a text is made one line. The annotator must use the same: it finds it in the card.
        settings: fastText's parameters.
        validation: (texts, labels) that autotune judges by; without them a tenth of the rows, which the final model
            is then not trained on.
        test: (texts, labels) for the scores in the card.
        report: called with a line for a person.

    Raises:
        AnnotatorError: fewer than two labels, columns of unequal length, no run without NaN, or no place to write.
    """
    settings = settings or TrainingSettings()
    rows = _Rows.of(texts, labels).shuffled(settings.seed)
    rows.check()
    if rows.num_left_out:
        report(f"{rows.num_left_out:,} rows without a text or a label are left out")
    held_out = None if validation is None else _Rows.of(*validation)
    if settings.autotune_seconds and held_out is None:
        rows, held_out = rows.split(len(rows.texts) // _VALIDATION_PART)
    path = Path(output)
    with tempfile.TemporaryDirectory(prefix="colophon-") as folder, _replacing(path) as unfinished:
        model, attempts = _fit(rows, held_out, folder=Path(folder), normalize=normalize, settings=settings, log=report)
        model.saveModel(str(unfinished))
        scores = None if test is None else evaluate_classifier(FastTextModel(unfinished), *test, normalize=normalize)
        found = _found_settings(model, settings)
        card = _card(unfinished, rows, normalize=normalize, settings=found, attempts=attempts, test=scores)
    with _replacing(card_path(path)) as unfinished:
        unfinished.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return TrainedClassifier(path=path, card=card, report=scores)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Texts and encoded labels of equal length, without nulls."""

    texts: pa.Array
    labels: pa.Array
    num_left_out: int = 0

    @staticmethod
    def of(texts: pa.Array | Sequence[str | None], labels: pa.Array | Sequence[str | None]) -> _Rows:
        texts, labels = _strings(texts), _strings(labels)
        if len(texts) != len(labels):
            raise AnnotatorError(f"{len(texts)} texts have {len(labels)} labels")
        complete = pc.and_(pc.fill_null(pc.greater(pc.binary_length(texts), 0), False), labels.is_valid())
        encoded = labels.filter(complete).dictionary_encode()
        names = pa.array([encode_label(name) for name in encoded.dictionary.to_pylist()], pa.large_string())
        kept = texts.filter(complete)
        return _Rows(texts=kept, labels=names.take(encoded.indices), num_left_out=len(texts) - len(kept))

    def shuffled(self, seed: int) -> _Rows:
        order = pa.array(np.random.default_rng(seed).permutation(len(self.texts)))
        return _Rows(texts=self.texts.take(order), labels=self.labels.take(order), num_left_out=self.num_left_out)

    def split(self, size: int) -> tuple[_Rows, _Rows]:
        rest = _Rows(texts=self.texts.slice(size), labels=self.labels.slice(size), num_left_out=self.num_left_out)
        return rest, _Rows(texts=self.texts.slice(0, size), labels=self.labels.slice(0, size))

    def check(self) -> None:
        if len(self.labels.unique()) < 2:
            seen = ", ".join(self.labels.unique().to_pylist()) or "none"
            raise AnnotatorError(
                f"a classifier needs at least two labels; labels of the {len(self.texts)} texts: {seen}"
            )

    def write(self, path: Path, normalize: TextPreparation) -> None:
        """One line a row: label, space, prepared text."""
        with path.open("wb") as file:
            for start in range(0, len(self.texts), 1024):
                prepared = normalize(self.texts.slice(start, 1024))
                prepared = pc.replace_substring_regex(prepared, _LABEL_LIKE, r"\1")
                lines = pc.binary_join_element_wise(
                    self.labels.slice(start, 1024), prepared, pa.scalar(" ", pa.large_string())
                )
                file.writelines(line + b"\n" for line in lines.cast(pa.large_binary()).to_pylist())

    def count_by_label(self) -> dict[str, int]:
        from_label = {decode_label(row["values"]): row["counts"] for row in self.labels.value_counts().to_pylist()}
        return dict(sorted(from_label.items()))


def _strings(values: pa.Array | Sequence[str | None]) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    try:
        return values.cast(pa.large_string()) if isinstance(values, pa.Array) else pa.array(values, pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise AnnotatorError(f"texts and labels must be strings: {error}") from None


def _fit(
    rows: _Rows,
    held_out: _Rows | None,
    *,
    folder: Path,
    normalize: TextPreparation,
    settings: TrainingSettings,
    log: Callable[[str], None],
) -> tuple[Any, int]:
    """The library's model object, and how many attempts it took."""
    rows.write(folder / "train.txt", normalize)
    parameters = _parameters(settings)
    if settings.autotune_seconds and held_out is not None:
        held_out.write(folder / "validation.txt", normalize)
        parameters |= {
            "autotuneValidationFile": str(folder / "validation.txt"),
            "autotuneDuration": settings.autotune_seconds,
        }
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return fasttext.train_supervised(str(folder / "train.txt"), verbose=0, **parameters).f, attempt
        except RuntimeError as error:
            if "NaN" not in str(error):
                raise AnnotatorError(f"fastText could not train: {error}") from None
            parameters["seed"] = settings.seed + attempt
            if attempt >= _ATTEMPTS_AT_FULL_RATE:
                parameters["lr"] = parameters.get("lr", settings.lr) / 2
            log(f"attempt {attempt} of {_ATTEMPTS} ended in NaN (fastText: {error})")
        except (ValueError, MemoryError) as error:  # an empty vocabulary, or more memory than there is
            raise AnnotatorError(f"fastText could not train: {error}") from None
    raise AnnotatorError(f"fastText training ended in NaN {_ATTEMPTS} times; try a lower lr than {settings.lr}")


_LIBRARY_NAMES = {
    "word_ngrams": "wordNgrams",
    "dim": "dim",
    "epoch": "epoch",
    "lr": "lr",
    "min_count": "minCount",
    "min_chars": "minn",
    "max_chars": "maxn",
    "buckets": "bucket",
    "loss": "loss",
}


def _parameters(settings: TrainingSettings) -> dict[str, Any]:
    """Arguments of `train_supervised`: with autotune only what was set, as every argument given is not searched."""
    fixed = settings.model_fields_set if settings.autotune_seconds else set(_LIBRARY_NAMES)
    chosen = {library: getattr(settings, ours) for ours, library in _LIBRARY_NAMES.items() if ours in fixed}
    return chosen | {"loss": settings.loss, "thread": settings.threads, "seed": settings.seed}


def _found_settings(model: Any, settings: TrainingSettings) -> dict[str, Any]:
    """`settings` with what the model was trained with in the end, after autotune or retries."""
    used = model.getArgs()
    found = {ours: getattr(used, library) for ours, library in _LIBRARY_NAMES.items() if ours != "loss"}
    return settings.model_dump(mode="json") | found


def _card(
    path: Path,
    rows: _Rows,
    *,
    normalize: TextPreparation,
    settings: dict[str, Any],
    attempts: int,
    test: ClassifierReport | None,
) -> dict[str, Any]:
    model = FastTextModel(path)
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
            "rows": len(rows.texts),
            "rows_left_out": rows.num_left_out,
            "tokens": header.num_tokens,
            "rows_by_label": rows.count_by_label(),
        },
        "test": None if test is None else test.as_dict(),
        "sha256": file_sha256(path),
        "library": {"name": "fasttext", "version": version("fasttext")},
    }


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, renamed to `path` at the end and removed on failure.

    Raises:
        AnnotatorError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror or error}") from None
