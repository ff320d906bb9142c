"""Layouts: the position and the text of a document's metadata, and the loss weights of roles.

A segment is a document's part in one sequence. The positions give these segments (`boc` and `eoc` are the wrapper):

    plain         bos text eos
    prepend       bos boc METADATA eoc text eos
    append        bos text boc METADATA eoc eos
    meta_tokens   bos boc s1 ... sN eoc text eos

Only the last segment of a document ends with `eos`. Metadata and text are tokenized separately and joined as ids, so
the text has the same ids in every layout. Positions, wrapper, masks and dropout follow "Beyond URLs" (arXiv
2511.21613).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
)

from colophon.shards.common.digests import hashes
from colophon.shards.common.errors import ShardError
from colophon.shards.schema import ROLE_NAMES, RoleName
from colophon.shards.selection import Condition
from colophon.shards.templates import MAX_TEXT, template_of

_DEFAULT_WEIGHTS: dict[RoleName, float] = {name: int(name in ("eos", "text")) for name in ROLE_NAMES}
"""In the order of the roles: packed files store it."""

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LayoutConfig(BaseModel):
    """The settings that all layouts have; part of `[layouts.<name>]` of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role_weights: dict[RoleName, Weight] = {}
    """Loss weights that differ from the position's defaults, by role: `pad`, `bos`, `eos`, `wrapper`, `metadata`,
    `meta_token`, `text`."""

    where: dict[str, Condition] = Field(default={}, max_length=100)
    """Conditions on annotation columns, all of which a document must fulfil; the layout has no other documents."""

    @model_serializer(mode="wrap")
    def _without_empty_conditions(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Layouts of earlier versions have no `where`, and keep their fingerprints."""
        settings: dict[str, Any] = handler(self)
        if not self.where:
            settings.pop("where", None)
        return settings

    @field_validator("role_weights")
    @classmethod
    def _padding_has_no_weight(cls, weights: dict[RoleName, float]) -> dict[RoleName, float]:
        if weights.get("pad"):
            raise ValueError("pad must have weight 0: padding is not a prediction")
        return weights

    def weights(self) -> dict[RoleName, float]:
        """The loss weight of a label by its role, for all roles."""
        return {**_DEFAULT_WEIGHTS, **self.role_weights}

    @property
    def fields(self) -> tuple[str, ...]:
        """The annotation columns that the layout's template needs."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The annotation columns that packing reads: those of the template and of `where`."""
        return tuple(dict.fromkeys((*self.fields, *self.where)))


class _Droppable(LayoutConfig):
    dropout: float = Field(0.1, ge=0, le=1)
    """Share of documents whose metadata is dropped. With a template 10 %, as in the paper."""
    when_dropped: Literal["empty", "nothing"] = "empty"
    """`empty` keeps the wrapper (boc eoc), `nothing` drops it too."""


class _Templated(_Droppable):
    template: str = Field(max_length=MAX_TEXT)
    """Text with annotation columns in braces, perhaps with formats: `{topic}, {date:%Y}`. A null column becomes an
    empty string; a document whose columns are all null has no metadata."""
    max_metadata_tokens: int = Field(128, ge=1)
    """Longer metadata is cut to its first tokens; the cut tokens are counted."""

    @field_validator("template")
    @classmethod
    def _template_is_valid(cls, template: str) -> str:
        template_of(template)
        return template

    @property
    def fields(self) -> tuple[str, ...]:
        return template_of(self.template).columns


class PlainLayout(LayoutConfig):
    """No metadata.

    Example:

        [layouts.plain]
        position = "plain"
    """

    position: Literal["plain"]


class PrependLayout(_Templated):
    """Metadata before the text, masked: the labels from boc to eoc have loss weight 0.

    Example:

        [layouts.prepend-url]
        position = "prepend"
        template = "{url}"
    """

    position: Literal["prepend"]
    segments: Literal["every", "first"] = "every"
    """The segments of a document that have metadata."""


class AppendLayout(_Templated):
    """Metadata after the text, predicted: an auxiliary task with the loss weight `role_weights.metadata`, default 1.

    `segments = "last"` puts it at the end of the document only. `first` does not exist: metadata after the first
    sequence of a longer document would be in the middle of the document.

    Example:

        [layouts.append-topic]
        position = "append"
        template = "{topic}"
        role_weights = { metadata = 0.5 }
    """

    position: Literal["append"]
    segments: Literal["every", "last"] = "every"
    """The segments of a document that have metadata."""

    def weights(self) -> dict[RoleName, float]:
        """The loss weight of a label by its role; boc, metadata and eoc have weight 1 unless set."""
        return {**_DEFAULT_WEIGHTS, "wrapper": 1.0, "metadata": 1.0, **self.role_weights}


class MetaTokensLayout(_Droppable):
    """Meta tokens: vocabulary entries without text, the same for every document; the model learns their use.

    Example:

        [layouts.meta-tokens]
        position = "meta_tokens"
        num_meta_tokens = 5
    """

    position: Literal["meta_tokens"]
    num_meta_tokens: int = Field(5, ge=1)
    """Meta tokens of a segment."""
    dropout: float = Field(0.0, ge=0, le=1)
    segments: Literal["every", "first"] = "every"
    """The segments of a document that have meta tokens."""


Layout = Annotated[
    PlainLayout | PrependLayout | AppendLayout | MetaTokensLayout,
    Field(discriminator="position"),
]


_ADAPTER: TypeAdapter[Layout] = TypeAdapter(Layout)


def parse_layout(settings: Mapping[str, Any], *, where: object) -> Layout:
    """The layout of a JSON object, as in schema metadata or a manifest.

    Args:
        settings: the settings of a layout; a `name` is ignored.
        where: the file, for the error message.

    Raises:
        ShardError: the settings are not those of a layout.
    """
    try:
        return _ADAPTER.validate_python({key: value for key, value in settings.items() if key != "name"})
    except ValidationError as error:
        raise ShardError(f"{where}: damaged layout: {error.errors()[0]['msg']}") from None


def dropped(ids: Sequence[str | None], *, dropout: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """bool [num_documents]: whether a document's metadata is dropped.

    It depends on seed and document id alone, not on the layout, the order or the partition. The first 8 bytes of
    BLAKE2b(id, key = seed), read as a number in [0, 1), are compared with `dropout`.
    """
    numbers = hashes(ids, key=seed.to_bytes(8, "little", signed=True))
    # The upper 53 bits make a float64 in [0, 1) exactly, so that dropout = 1 drops every document.
    uniform = (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.asarray(uniform < dropout)


def describe_weights(weights: Mapping[RoleName, float]) -> str:
    """The roles that have loss weight, in one line for reports: `text eos metadata×0.5`."""
    weighted = [(name, weights[name]) for name in reversed(ROLE_NAMES) if weights.get(name)]
    return " ".join(name if weight == 1 else f"{name}×{weight:g}" for name, weight in weighted)
