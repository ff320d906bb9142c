"""The cost of a pass for each byte of its partitions, as measured by earlier runs on this machine.

A run that is long enough writes its rates into the cache of this machine. They are used again only for the same
outputs: the same annotators, tokenizer, layouts and formats of the input.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from colophon import __version__
from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model_cache import cache_dir
from colophon.pipeline.inputs.partition_table import Partitions
from colophon.pipeline.inputs.search.formats import compression_of
from colophon.pipeline.recipe.schema import Recipe
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.durable import replace_text
from colophon.shards.outputs import TOKENS, Output

RECORDED_SECONDS = 5.0
RECORDED_BYTES = 16 << 20
"""The shortest and smallest pass whose rate is kept: others mostly measure the start, or a moment of the machine."""


class Rate(BaseModel):
    """The cost of one pass. All numbers are for one byte of partitions (`Partition.bytes`)."""

    model_config = ConfigDict(frozen=True)

    worker_seconds: float = Field(ge=0)
    """The time of one worker."""
    documents: float = Field(ge=0)
    text_bytes: float = Field(ge=0)
    written_bytes: dict[str, float]
    """By output."""
    measured_bytes: int = Field(ge=1)
    """The partitions' bytes that were measured."""
    worker_bytes: int | None = None
    """Memory of one worker, models not counted; None if it was not measured."""
    day: str
    """The day of the measurement, `2026-11-29`."""


def rate_of(
    *,
    input_bytes: int,
    worker_seconds: float,
    documents: int,
    text_bytes: int,
    written_bytes: Mapping[str, int],
    worker_bytes: int | None = None,
) -> Rate:
    """Return the rate of work that took so long and wrote so much; `input_bytes` must be at least 1."""
    return Rate(
        worker_seconds=worker_seconds / input_bytes,
        documents=documents / input_bytes,
        text_bytes=text_bytes / input_bytes,
        written_bytes={output: size / input_bytes for output, size in written_bytes.items()},
        measured_bytes=input_bytes,
        worker_bytes=worker_bytes,
        day=date.today().isoformat(),
    )


def remembered_rate(recipe: Recipe, outputs: Collection[Output], partitions: Partitions) -> Rate | None:
    """Return the rate of the last long run of these outputs on this machine; None if there was none."""
    with suppress(OSError, AnnotatorError, ValidationError):
        return Rate.model_validate_json(_path(recipe, outputs, partitions).read_text(encoding="utf-8"))
    return None


def remember_rate(rate: Rate, recipe: Recipe, outputs: Collection[Output], partitions: Partitions) -> None:
    """Store a rate. A cache that cannot be written is not a fault of the run."""
    with suppress(OSError, AnnotatorError):
        path = _path(recipe, outputs, partitions)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_text(path, json.dumps(rate.model_dump(), indent=1))


def _path(recipe: Recipe, outputs: Collection[Output], partitions: Partitions) -> Path:
    formats = sorted({(kind, compression_of(source) or "") for kind, source, _ in partitions.files()})
    settings = {str(output): _settings(recipe, output) for output in outputs}
    return cache_dir() / "rates" / f"{fingerprint([__version__, formats, settings])}.json"


def _settings(recipe: Recipe, output: Output) -> object:
    """Return the settings on which the work for an output depends, as JSON."""
    tokenizer = None if recipe.tokenizer is None else recipe.tokenizer.model_dump(mode="json")
    if output == TOKENS:
        return tokenizer
    if output.stage == "pack":
        layout = recipe.layouts[output.name].model_dump(mode="json")
        return [layout, recipe.pack.model_dump(mode="json"), tokenizer]
    config = recipe.annotators[output.name]
    return [config.type_name, config.model_dump(mode="json")]
