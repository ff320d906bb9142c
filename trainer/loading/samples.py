"""A sample: one row of a layout as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import ValidationError
from torch import Tensor

from colophon.trainer.config import TrainConfig
from colophon.trainer.data.batch import Batch
from colophon.trainer.errors import TrainerError

IGNORED_LABEL = -100
"""The label of a masked position, for the losses of torch and transformers."""

Sample: TypeAlias = dict[str, Tensor]
"""One row of `L` inputs; all tensors have the shape [L], so that torch's own collation stacks them.

    input_ids      int64
    labels         int64: the inputs shifted by one; -100 where the weight is 0
    loss_weights   float32: the weight of each label
    positions      int64: of each input in its segment, from 0
    document_ids   int64: the segment of each input in its row, from 0; padding at the end is one more
"""


def samples_of(batch: Batch) -> list[Sample]:
    """The rows of a batch."""
    columns = {
        "input_ids": batch.input_ids,
        "labels": batch.labels.masked_fill(batch.loss_weights == 0, IGNORED_LABEL),
        "loss_weights": batch.loss_weights,
        "positions": batch.positions.long(),
        "document_ids": batch.input_segments.long(),
    }
    return [{name: column[row] for name, column in columns.items()} for row in range(len(batch))]


def train_config(settings: TrainConfig | Mapping[str, Any]) -> TrainConfig:
    """The settings of a run, from those of a recipe or from keys of a table `[train.<name>]`.

    Raises:
        TrainerError: a key is unknown, missing or has a wrong value; or updates have no fixed number of rows.
    """
    try:
        # The data does not depend on the model, which a table of a recipe must have.
        found = (
            settings if isinstance(settings, TrainConfig) else TrainConfig.model_validate({"model": "124m", **settings})
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise TrainerError(f"settings: {f'{key}: ' if key else ''}{message}") from None
    if found.order != "rows":
        raise TrainerError(
            f'settings: order = "{found.order}" has a different number of rows in each update; available here: "rows"'
        )
    return found
