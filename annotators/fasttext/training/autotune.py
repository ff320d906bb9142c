"""Autotune: a random search for better training settings within a given time.

It replaces the library's own autotune (0.9.3), which can run for ever: `Autotune::startTimer` starts the timer thread
before it sets the flag that this thread reads, and a timer that loses the race ends at once. This happened in practice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pyarrow as pa

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.report import evaluate_classifier
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext.training.fitting import library_parameters
from colophon.annotators.fasttext.training.labelled_rows import LabelledRows, Strings
from colophon.annotators.fasttext.training.settings import TrainingSettings

_VALIDATION_PART = 10
_MAX_SKIPPED = 50


def tuned_settings(
    rows: LabelledRows,
    validation: tuple[Strings, Strings] | None,
    *,
    lines: Path,
    normalize: TextPreparation,
    settings: TrainingSettings,
    report: Callable[[str], None],
) -> TrainingSettings:
    """`settings` with the parameters that have the best macro F1 on `validation`, or on a tenth of `rows`.

    `lines` is a path for the training file; the trial models are written beside it.
    """
    if validation is None:
        rows, held_out = rows.split(-(-len(rows) // _VALIDATION_PART))
        validation = (held_out.texts, pa.array(held_out.label_names()))
    rows.write(lines, normalize)
    trial = lines.with_name("trial.bin")

    def macro_f1(candidate: TrainingSettings) -> float | None:
        try:
            fasttext.train_supervised(str(lines), verbose=0, **library_parameters(candidate)).save_model(str(trial))
        except (RuntimeError, ValueError):  # NaN, or no word is frequent enough
            return None
        return evaluate_classifier(FastTextModel(trial, cached=False), *validation, normalize=normalize).macro_f1

    return search(settings, score=macro_f1, report=report)


def search(
    start: TrainingSettings,
    *,
    score: Callable[[TrainingSettings], float | None],
    report: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> TrainingSettings:
    """The settings with the highest `score`: `start` itself, then random ones until `start.autotune_seconds` are over.

    Candidates depend on the seed alone; how many are tried depends on the machine. A candidate is skipped where the
    time of `start` predicts that it would run past the end; `start` is always tried. `score` is None for a run that
    failed.

    Raises:
        AnnotatorError: no run succeeded.
    """
    began, end = clock(), clock() + (start.autotune_seconds or 0)
    best, best_score = start, score(start)
    unit = (clock() - began) / start.cost
    report(f"autotune: start {_score_text(best_score)}")
    skipped = 0
    for candidate in _candidates(start):
        if skipped == _MAX_SKIPPED or clock() >= end:
            break
        if clock() + unit * candidate.cost > end:
            skipped += 1
            continue
        found = score(candidate)
        report(f"autotune: {_changed_settings(candidate, start)} {_score_text(found)}")
        if found is not None and (best_score is None or found > best_score):
            best, best_score = candidate, found
    if best_score is None:
        raise AnnotatorError("autotune: every training run ended in NaN")
    changed = _changed_settings(best, start) or "the settings of the start"
    report(f"autotune: best {_score_text(best_score)} with {changed}")
    return best


def _candidates(start: TrainingSettings) -> Iterator[TrainingSettings]:
    """Random settings without end; values that `start` was given explicitly are kept."""
    rng = np.random.default_rng(start.seed)
    while True:
        min_chars, max_chars = ((0, 0), (0, 0), (3, 5), (2, 4))[rng.integers(4)]
        drawn: dict[str, Any] = {
            "word_ngrams": int(rng.integers(1, 4)),
            "dim": int(rng.choice([16, 32, 50, 100])),
            "epoch": int(np.exp(rng.uniform(np.log(3), np.log(40)))),
            "lr": round(float(np.exp(rng.uniform(np.log(0.05), np.log(1.5)))), 3),
            "min_count": int(rng.choice([1, 1, 2, 5])),
        }
        if not {"min_chars", "max_chars"} & start.model_fields_set:
            drawn |= {"min_chars": min_chars, "max_chars": max_chars}
        yield start.model_copy(update={name: x for name, x in drawn.items() if name not in start.model_fields_set})


def _changed_settings(settings: TrainingSettings, start: TrainingSettings) -> str:
    before = start.model_dump()
    return ", ".join(f"{name} {value}" for name, value in settings.model_dump().items() if value != before[name])


def _score_text(score: float | None) -> str:
    return "ended in NaN" if score is None else f"{score:.4f}"
