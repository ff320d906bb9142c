"""Two taggers for Dolma, as its documentation recommends: subclasses of `BaseFastTextTagger` in a separate module."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dolma.core.data_types import TextSlice  # type: ignore[import-not-found]
from dolma.core.ft_tagger import BaseFastTextTagger, Prediction  # type: ignore[import-not-found]
from dolma.core.registry import TaggerRegistry  # type: ignore[import-not-found]

from benchmarks.job import load

_JOB_VARIABLE = "COLOPHON_BENCH_JOB"


@TaggerRegistry.add("quality")
class Quality(BaseFastTextTagger):  # type: ignore[misc]
    """The probability of one label."""

    def __init__(self) -> None:
        job = load(os.environ[_JOB_VARIABLE])
        self._high = job.high
        super().__init__(model_path=job.quality.model, model_mode=self.DOCUMENT_LEVEL_TAGGER)

    def predict_slice(self, text_slice: TextSlice) -> Iterable[Prediction]:
        """Return one prediction, named `high`."""
        labels, scores = self.classifier.predict(text_slice.text.strip().replace("\n", " "), k=-1)
        return [Prediction(label="high", score=float(scores[labels.index(self._high)]))]


@TaggerRegistry.add("topic")
class Topic(BaseFastTextTagger):  # type: ignore[misc]
    """The most probable label."""

    def __init__(self) -> None:
        job = load(os.environ[_JOB_VARIABLE])
        self._number = {label: i for i, label in enumerate(job.topic.labels)}
        super().__init__(model_path=job.topic.model, model_mode=self.DOCUMENT_LEVEL_TAGGER)

    def predict_slice(self, text_slice: TextSlice) -> Iterable[Prediction]:
        """Return one prediction, named `t` and the label's number: attributes cannot contain label names."""
        labels, scores = self.classifier.predict(text_slice.text.strip().replace("\n", " "))
        return [Prediction(label=f"t{self._number[labels[0]]}", score=float(scores[0]))]
