"""Training a fastText classifier whose model the `fasttext` annotator reads, with a JSON card beside it.

Threads update the same matrix without locks: equal seeds give models of equal quality, not of equal bytes.
Cost: reads each text once per epoch at 5 to 10 MB/s a core; the model file is 4 * dim * (words + buckets) bytes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_card import card_path, model_card
from colophon.annotators.fasttext.model_file import read_header
from colophon.annotators.fasttext.report import ClassifierReport, evaluate_classifier
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext.training.autotune import tuned_settings
from colophon.annotators.fasttext.training.fitting import fit
from colophon.annotators.fasttext.training.labelled_rows import LabelledRows, Strings
from colophon.annotators.fasttext.training.settings import TrainingSettings
from colophon.shards.common.durable import replace_text, replaced_file

DEFAULT_PREPARATION = TextPreparation(lower=True, separate_punctuation=True)
"""The default of training: on small training sets it generalises better than raw text."""


@dataclass(frozen=True, kw_only=True)
class TrainedClassifier:
    """The model file of a training, its card, and its scores."""

    path: Path
    card: dict[str, Any]
    """As written to `<path>.json`."""
    report: ClassifierReport | None
    """Scores on the test texts; None without test texts."""


def train_classifier(
    texts: Strings,
    labels: Strings,
    *,
    output: str | Path,
    normalize: TextPreparation = DEFAULT_PREPARATION,
    settings: TrainingSettings | None = None,
    validation: tuple[Strings, Strings] | None = None,
    test: tuple[Strings, Strings] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> TrainedClassifier:
    """Train on `texts` with `labels`, and write the model to `output` and its card to `<output>.json`.

    Rows without a text or a label are dropped and counted. The rows are shuffled by the seed. A training that ends in
    NaN is repeated up to five times (see `fit`). Both files appear under their names when they are complete. Labels may
    hold spaces: `encode_label` writes them so that the annotator reads them back.

    Args:
        texts: one a document.
        labels: one a text.
        output: path of the model, usually ending in `.bin`; its folder is created.
        normalize: how a text becomes one line. The annotator must use the same, and reads it from the card.
        settings: fastText's parameters.
        validation: (texts, labels) on which autotune compares settings by macro F1. Without them it uses a tenth of
            the rows; the final model is trained on those as well.
        test: (texts, labels) for the scores in the card.
        report: called with a human-readable line for each event.

    Raises:
        AnnotatorError: fewer than two labels, columns of unequal length, only NaN, or `output` cannot be written.
    """
    settings = settings or TrainingSettings()
    rows = LabelledRows.from_columns(texts, labels).shuffled(settings.seed)
    rows.check()
    if rows.num_dropped:
        report(f"dropped {rows.num_dropped:,} rows without a text or a label")
    path = Path(output)
    if path.is_dir():
        raise AnnotatorError(f"{path}: this is a folder; a model is a file")
    with tempfile.TemporaryDirectory(prefix="colophon-") as folder, _replaced_model(path) as temporary:
        lines = Path(folder) / "train.txt"
        if settings.autotune_seconds:
            settings = tuned_settings(
                rows, validation, lines=lines, normalize=normalize, settings=settings, report=report
            )
        rows.write(lines, normalize)
        used_settings, attempts = fit(lines, settings, output=temporary, report=report)
        if not read_header(temporary).num_words:
            raise AnnotatorError(f"no word of the texts occurs min_count = {settings.min_count} times")
        model = FastTextModel(temporary, cached=False)
        scores = None if test is None else evaluate_classifier(model, *test, normalize=normalize)
        card = model_card(model, rows, normalize=normalize, settings=used_settings, attempts=attempts, test=scores)
    with _one_line_errors(card_path(path)):
        replace_text(card_path(path), json.dumps(card, indent=2, ensure_ascii=False) + "\n")
    return TrainedClassifier(path=path, card=card, report=scores)


@contextmanager
def _replaced_model(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends.

    Raises:
        AnnotatorError: the folder cannot be created or written; this is checked at the start.
    """
    with _one_line_errors(path), replaced_file(path) as temporary:
        temporary.touch()  # finds a folder that cannot be written before hours of training, not after
        yield temporary


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror or error}") from None
