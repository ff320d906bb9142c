"""Training a fastText classifier whose model the `fasttext` annotator reads, with a JSON card beside it.

The library (0.9.3) fills a tenth of the input matrix for each training thread and leaves the rest as it found the
memory, which is why it can stop with "Encountered NaN", or end with numbers that are absurd. Nineteen threads fill all
of it on any number of cores, so that training never uses fewer (measured on small models: most failed with one thread,
none with nineteen, and training takes no longer).
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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.autotune import MIN_NUMBERS, TrainingSettings, search
from colophon.annotators.fasttext.model import FastTextModel, decode_label, encode_label
from colophon.annotators.fasttext.model_cache import file_sha256
from colophon.annotators.fasttext.model_card import MODEL_CARD_FORMAT, card_path
from colophon.annotators.fasttext.model_file import read_header, read_layout
from colophon.annotators.fasttext.report import ClassifierReport, evaluate_classifier
from colophon.annotators.fasttext.text_preparation import TextPreparation

__all__ = ["DEFAULT_PREPARATION", "Labelled", "TrainedClassifier", "TrainingSettings", "train_classifier"]

DEFAULT_PREPARATION = TextPreparation(lower=True, separate_punctuation=True)
"""What training uses unless told otherwise: on small training sets it generalises better than raw text."""

_ATTEMPTS = 5
_ATTEMPTS_AT_FULL_RATE = 2
_VALIDATION_PART = 10
# A word that begins like a label would be one in a training file; when a model reads a text it skips such words.
_LABEL_LIKE = r"(^|[ \n\r\t\v\f\x00])__label__[^ \n\r\t\v\f\x00]*"


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
        validation: (texts, labels) by whose macro F1 autotune judges; without them a tenth of the rows, which the
            final model is trained on as well.
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
    path = Path(output)
    if path.is_dir():
        raise AnnotatorError(f"{path}: this is a folder; a model is a file")
    with tempfile.TemporaryDirectory(prefix="colophon-") as folder, _replacing(path) as unfinished:
        lines = Path(folder) / "train.txt"
        if settings.autotune_seconds:
            settings = _tuned(rows, validation, lines=lines, normalize=normalize, settings=settings, report=report)
        rows.write(lines, normalize)
        model, attempts = _fit(lines, settings, output=unfinished, report=report)
        if not read_header(unfinished).num_words:
            raise AnnotatorError(f"no word of the texts occurs min_count = {settings.min_count} times")
        scores = (
            None
            if test is None
            else evaluate_classifier(FastTextModel(unfinished, cached=False), *test, normalize=normalize)
        )
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
            seen = ", ".join(map(decode_label, self.labels.unique().to_pylist())) or "none"
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


def _tuned(
    rows: _Rows,
    validation: Labelled | None,
    *,
    lines: Path,
    normalize: TextPreparation,
    settings: TrainingSettings,
    report: Callable[[str], None],
) -> TrainingSettings:
    """`settings` with the parameters that are best on `validation`, or on a tenth of `rows`."""
    if validation is None:
        rows, held_out = rows.split(-(-len(rows.texts) // _VALIDATION_PART))
        validation = (held_out.texts, pa.array([decode_label(label) for label in held_out.labels.to_pylist()]))
    rows.write(lines, normalize)
    trial = lines.with_name("trial.bin")

    def score(candidate: TrainingSettings) -> float | None:
        import fasttext

        try:
            fasttext.train_supervised(str(lines), verbose=0, **_parameters(candidate)).save_model(str(trial))
        except (RuntimeError, ValueError):  # NaN, or no word is frequent enough
            return None
        return evaluate_classifier(trial, *validation, normalize=normalize).macro_f1

    return search(settings, score=score, report=report)


def _fit(lines: Path, settings: TrainingSettings, *, output: Path, report: Callable[[str], None]) -> tuple[Any, int]:
    """The library's model object, saved to `output`, and how many attempts it took."""
    import fasttext

    parameters = _parameters(settings)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            model = fasttext.train_supervised(str(lines), verbose=0, **parameters).f
            model.saveModel(str(output))
            _check_numbers(output)
            return model, attempt
        except RuntimeError as error:
            if "NaN" not in str(error):
                raise AnnotatorError(f"fastText could not train: {error}") from None
            report(f"attempt {attempt} of {_ATTEMPTS} ended in NaN (fastText: {error})")
            parameters["seed"] = settings.seed + attempt
            if attempt >= _ATTEMPTS_AT_FULL_RATE:
                parameters["lr"] /= 2
        except (ValueError, MemoryError) as error:  # an empty vocabulary, or more memory than there is
            raise AnnotatorError(f"fastText could not train: {error}") from None
    raise AnnotatorError(f"fastText training ended in NaN {_ATTEMPTS} times; try a lower lr than {settings.lr}")


def _check_numbers(path: Path) -> None:
    """Raise RuntimeError for numbers that no text can be scored with: the library looks at its loss alone.

    Raises:
        AnnotatorError: the library fills no matrix that is so small.
    """
    from colophon.annotators.fasttext.kernel.matrices import Matrix, products_are_finite

    layout = read_layout(path)
    inputs, outputs = (Matrix(path=str(path), place=place) for place in (layout.inputs, layout.outputs))
    rows, dim = inputs.shape
    if rows * dim < MIN_NUMBERS:
        raise AnnotatorError(
            f"{rows} words with dim {dim} are too little to train on: fewer than {MIN_NUMBERS} numbers"
        )
    if not products_are_finite(inputs, outputs):
        raise RuntimeError("its matrices overflow or hold NaN")


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
    """Arguments of the library's `train_supervised`."""
    named = {library: getattr(settings, ours) for ours, library in _LIBRARY_NAMES.items()}
    return named | {"thread": settings.threads, "seed": settings.seed}


def _found_settings(model: Any, settings: TrainingSettings) -> dict[str, Any]:
    """`settings` with what the model was trained with in the end, after retries."""
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
        unfinished.touch()  # a folder that cannot be written is found before hours of training, not after
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror or error}") from None
