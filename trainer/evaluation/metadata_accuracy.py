"""How often a model of an append layout predicts a document's metadata, beside predictions that need no text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.evaluation.bootstrap import RatioDraws
from colophon.trainer.evaluation.document_crops import DocumentCrops
from colophon.trainer.evaluation.settings import EvaluatedModel, EvaluationSettings
from colophon.trainer.inference.codec import Codec
from colophon.trainer.inference.text_loss import exact_matches


@dataclass(frozen=True, kw_only=True)
class MetadataAccuracy:
    """Whether the metadata of each of `n` documents is predicted as a whole; documents without any do not count."""

    after_text: NumPyArray
    """bool [n]: after the document's text, every metadata id and the end of the metadata."""
    without_text: NumPyArray
    """bool [n]: after bos alone, so the same prediction for every document, as far as the model knows the shares."""
    most_frequent: NumPyArray
    """bool [n]: whether it is the most frequent metadata of these documents, the best constant prediction."""
    most_frequent_value: str

    def as_dict(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Accuracies with intervals over documents, and the gain over each baseline, on the same resamples."""
        amounts = np.stack([self.after_text, self.without_text, self.most_frequent])
        sizes = np.ones((1, amounts.shape[1]))
        draws = RatioDraws(amounts, sizes, seed=settings.seed, num_resamples=settings.num_resamples)
        return {
            "documents": amounts.shape[1],
            "accuracy": asdict(draws.ratio(0, 0)),
            "without_text": asdict(draws.ratio(1, 0)),
            "most_frequent": asdict(draws.ratio(2, 0)),
            "most_frequent_value": self.most_frequent_value,
            "over_without_text": asdict(draws.difference(0, 1, 0)),
            "over_most_frequent": asdict(draws.difference(0, 2, 0)),
        }


def metadata_accuracy(model: EvaluatedModel, crops: DocumentCrops, *, tokenizer: Codec) -> MetadataAccuracy | None:
    """The accuracy of a model with metadata after the text; None if no document has metadata."""
    metadata = _metadata(model, crops, tokenizer=tokenizer)
    if not metadata:
        return None
    special = model.layout.special
    contents = [np.array([*ids, special.eoc], np.int64) for ids in metadata.values()]
    values = Counter(tuple(ids.tolist()) for ids in metadata.values())
    (most_frequent, _), *_ = values.most_common(1)
    after_text = [[special.bos, *map(int, crops.text[document]), special.boc] for document in metadata]
    return MetadataAccuracy(
        after_text=exact_matches(model.trained, after_text, contents),
        without_text=exact_matches(model.trained, [[special.bos, special.boc]] * len(contents), contents),
        most_frequent=np.array([tuple(ids.tolist()) == most_frequent for ids in metadata.values()]),
        most_frequent_value=tokenizer.decode(np.array(most_frequent, np.int64)),
    )


def _metadata(model: EvaluatedModel, crops: DocumentCrops, *, tokenizer: Codec) -> Mapping[int, NumPyArray]:
    """The metadata ids of each document that has any, by its number."""
    found: Sequence[NumPyArray | None] = model.layout.metadata(
        crops.columns, num_documents=len(crops), encoder=tokenizer
    )
    return {number: ids for number, ids in enumerate(found) if ids is not None and len(ids)}
