"""Two qualities of a document from FineWeb-Edu's educational score (as in "Beyond URLs", arXiv 2511.21613)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from colophon.annotators.base import Annotator, AnnotatorConfig
from colophon.annotators.columns import number_column

_CODE_VERSION = 1


class EduScoreConfig(AnnotatorConfig):
    """Makes a coarse and a fine class of FineWeb-Edu's score of 0 to 5.

    Example:

        [annotators.edu_score]
        column = "score"
    """

    type_name: ClassVar[str] = "edu_score"

    column: str = Field(default="score", min_length=1)
    """A numeric input column, or another annotator's, such as `quality_score`."""
    prefix: str = Field(default="quality", min_length=1)
    """The output columns are `<prefix>_coarse` and `<prefix>_fine`."""

    def build(self, name: str) -> EduScoreAnnotator:
        """The annotator; `name` changes nothing in its output."""
        return EduScoreAnnotator(name, column=self.column, prefix=self.prefix)


class EduScoreAnnotator(Annotator):
    """Writes `<prefix>_coarse` and `<prefix>_fine`, both int8, from a score of 0 to 5.

    - coarse: `int(round(clip(score, 0, 5)))`, FineWeb-Edu's `int_score`. Halves go to the even neighbour, as in
      Python's `round`: 2.5 is 2 and 3.5 is 4.
    - fine: `floor(10 * score)` from 0 to 50, computed in the precision of the column. 10 times 4.1 is 41 in
      float32 and in float64, but a float32 4.1 converted to float64 first would give 40.

    Negative scores count as 0 and scores above 5 as 5. Null, NaN and infinite scores give null.
    Integer columns are computed in float64.
    """

    def __init__(self, name: str, *, column: str, prefix: str) -> None:
        self.name = name
        self.columns = (column,)
        self.read_by = {column: number_column}
        self.schema = pa.schema([(f"{prefix}_coarse", pa.int8()), (f"{prefix}_fine", pa.int8())])
        self.settings: dict[str, Any] = {
            "type": EduScoreConfig.type_name,
            "code_version": _CODE_VERSION,
            "column": column,
            "prefix": prefix,
        }

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class.

        Raises:
            AnnotatorError: the column is missing or holds no numbers.
        """
        scores = number_column(batch, self.columns[0]).to_numpy(zero_copy_only=False)
        unknown = ~np.isfinite(scores)
        clipped = np.clip(np.where(unknown, 0, scores), 0, 5)  # keeps the dtype of the column
        qualities = (np.rint(clipped), np.floor(10 * clipped))
        return pa.record_batch([pa.array(q.astype(np.int8), mask=unknown) for q in qualities], schema=self.schema)
