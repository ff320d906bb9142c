"""Runs of the fastText library's training, repeated until the model's numbers are finite.

The library (0.9.3) fills a tenth of the input matrix for each training thread and leaves the rest as it found the
memory. That is why it can stop with "Encountered NaN", or write a model with absurd numbers. Nineteen threads fill the
whole matrix on any number of cores, so training never uses fewer. On small models most trainings failed with one thread
and none with nineteen, which took no longer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fasttext

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel.matrices import Matrix, products_are_finite
from colophon.annotators.fasttext.model_file import read_layout
from colophon.annotators.fasttext.training.settings import MIN_NUMBERS, TrainingSettings
from colophon.shards.common.errors import one_line

_ATTEMPTS = 5
_ATTEMPTS_AT_FULL_RATE = 2
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


def fit(
    lines: Path, settings: TrainingSettings, *, output: Path, report: Callable[[str], None]
) -> tuple[dict[str, Any], int]:
    """Train on the file `lines` and write the model to `output`; returns the settings used and the number of attempts.

    An attempt that ends in NaN is repeated with the next seed, and from the third attempt on with half the learning
    rate of the one before: lr 0.5 gives 0.5, 0.5, 0.25, 0.125, 0.0625. `report` gets a line about each failure.

    Raises:
        AnnotatorError: every attempt ended in NaN, the library cannot train on these lines, or they are too few.
    """
    parameters = library_parameters(settings)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            model = fasttext.train_supervised(str(lines), verbose=0, **parameters).f
            model.saveModel(str(output))
            check_numbers(output)
            return _used_settings(model, settings), attempt
        except RuntimeError as error:
            if "NaN" not in str(error):
                raise AnnotatorError(f"fastText could not train: {one_line(error)}") from None
            report(f"attempt {attempt} of {_ATTEMPTS} ended in NaN (fastText: {one_line(error)})")
            parameters["seed"] = settings.seed + attempt
            if attempt >= _ATTEMPTS_AT_FULL_RATE:
                parameters["lr"] /= 2
        except (ValueError, MemoryError) as error:  # an empty vocabulary, or more memory than the machine has
            raise AnnotatorError(f"fastText could not train: {one_line(error)}") from None
    raise AnnotatorError(f"fastText training ended in NaN {_ATTEMPTS} times; try a lower lr than {settings.lr}")


def check_numbers(path: Path) -> None:
    """Check that every text can be scored with a model's numbers: the library checks its loss alone.

    Raises:
        RuntimeError: the matrices hold NaN, or products of their rows overflow.
        AnnotatorError: the input matrix is too small for the library to fill.
    """
    layout = read_layout(path)
    inputs, outputs = (Matrix(path=str(path), place=place) for place in (layout.inputs, layout.outputs))
    rows, dim = inputs.shape
    if rows * dim < MIN_NUMBERS:
        raise AnnotatorError(
            f"{rows} words with dim {dim} are too little to train on: fewer than {MIN_NUMBERS} numbers"
        )
    if not products_are_finite(inputs, outputs):
        raise RuntimeError("its matrices overflow or hold NaN")


def library_parameters(settings: TrainingSettings) -> dict[str, Any]:
    """Arguments of the library's `train_supervised`."""
    named = {library: getattr(settings, ours) for ours, library in _LIBRARY_NAMES.items()}
    return named | {"thread": settings.threads, "seed": settings.seed}


def _used_settings(model: Any, settings: TrainingSettings) -> dict[str, Any]:
    """`settings` with the values of the last attempt, as JSON."""
    arguments = model.getArgs()
    used = {ours: getattr(arguments, library) for ours, library in _LIBRARY_NAMES.items() if ours != "loss"}
    return settings.model_dump(mode="json") | used
