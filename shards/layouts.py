"""Layouts: where a document's metadata stands, in which words, and what of it is paid for.

A segment is a document's part in one sequence. By position, one looks like this (`boc` and `eoc` are the wrapper):

    plain         bos text eos
    prepend       bos boc METADATA eoc text eos
    append        bos text boc METADATA eoc eos
    meta_tokens   bos boc s1 ... sN eoc text eos

`eos` closes the last segment of a document only. Metadata and text are tokenized apart and joined as ids, so the text
has the same ids in every layout. Positions, wrapper, masks and dropout follow "Beyond URLs" (arXiv 2511.21613).
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, field_validator

from colophon.shards.schema import ROLE_NAMES, RoleName

_UNPAID: dict[RoleName, float] = {"pad": 0, "bos": 0, "eos": 1, "wrapper": 0, "metadata": 0, "meta_token": 0, "text": 1}

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LayoutConfig(BaseModel):
    """What every layout has; stands under `[layouts.<name>]` of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role_weights: dict[RoleName, Weight] = {}
    """Loss weights that differ from the position's own."""

    @field_validator("role_weights")
    @classmethod
    def _padding_is_never_paid(cls, weights: dict[RoleName, float]) -> dict[RoleName, float]:
        if weights.get("pad"):
            raise ValueError("pad must have weight 0: padding is not a prediction")
        return weights

    def weights(self) -> dict[RoleName, float]:
        """The loss weight of a label by its role, all roles named."""
        return {**_UNPAID, **self.role_weights}

    @property
    def fields(self) -> tuple[str, ...]:
        """The annotation columns that the layout's template needs."""
        return ()


class _Droppable(LayoutConfig):
    dropout: float = Field(0.1, ge=0, le=1)
    """Share of documents whose metadata is left out; the paper's 10 % unless set."""
    when_dropped: Literal["empty", "nothing"] = "empty"
    """`empty` keeps the wrapper (boc eoc), `nothing` leaves it out too."""


class _Templated(_Droppable):
    template: str
    """Text with annotation columns in braces, such as `{topic}, {format}`."""
    max_metadata_tokens: int = Field(128, ge=1)
    """Longer metadata keeps its first tokens; what was cut is counted."""

    @field_validator("template")
    @classmethod
    def _template_is_sound(cls, template: str) -> str:
        template_fields(template)
        return template

    @property
    def fields(self) -> tuple[str, ...]:
        return template_fields(self.template)


class PlainLayout(LayoutConfig):
    """No metadata."""

    position: Literal["plain"]


class PrependLayout(_Templated):
    """Metadata before the text, read but not paid for: no label from boc through eoc has weight."""

    position: Literal["prepend"]
    segments: Literal["every", "first"] = "every"


class AppendLayout(_Templated):
    """Metadata after the text, predicted: an auxiliary task whose weight is `role_weights.metadata`, 1 unless set.

    `segments = "last"` puts it at the end of the document only. There is no `first` here: metadata after the first
    sequence of a longer document would stand in its middle.
    """

    position: Literal["append"]
    segments: Literal["every", "last"] = "every"

    def weights(self) -> dict[RoleName, float]:
        """As for every layout; boc, metadata and eoc are paid unless set."""
        return {**_UNPAID, "wrapper": 1.0, "metadata": 1.0, **self.role_weights}


class MetaTokensLayout(_Droppable):
    """Vocabulary entries without content, the same for every document, for the model to fill."""

    position: Literal["meta_tokens"]
    num_meta_tokens: int = Field(5, ge=1)
    dropout: float = Field(0.0, ge=0, le=1)
    segments: Literal["every", "first"] = "every"


Layout = Annotated[
    PlainLayout | PrependLayout | AppendLayout | MetaTokensLayout,
    Field(discriminator="position"),
]


def template_fields(template: str) -> tuple[str, ...]:
    """The column names that a template names, each once, in order.

    Raises:
        ValueError: braces that do not match, or a field with a conversion, a format or no name.
    """
    fields: dict[str, None] = {}
    for _, name, spec, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise ValueError(f"template {template!r}: a field is a column name in braces, such as {{url}}")
        fields[name] = None
    return tuple(fields)


def render(template: str, columns: Mapping[str, pa.Array], *, num_rows: int) -> pa.Array:
    """The metadata string of each document: string [num_rows].

    A null column is written as nothing; where all columns of the template are null the result is null, which packing
    treats like dropped metadata and counts as missing.
    """
    parts: list[pa.Array | str] = []
    for literal, name, _, _ in string.Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            parts.append(columns[name].cast(pa.string()))
    used = [part for part in parts if not isinstance(part, str)]
    if not used:
        return pa.array([template.format()] * num_rows, pa.string())
    joined = pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")
    known = pc.is_valid(used[0])
    for part in used[1:]:
        known = pc.or_(known, pc.is_valid(part))
    return pc.if_else(known, joined, pa.scalar(None, pa.string()))


def dropped(ids: Sequence[str | None], *, dropout: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which documents lose their metadata: bool [num_documents].

    A function of (seed, document id) alone: how the work was divided, the layout and the order change nothing. The
    first 8 bytes of BLAKE2b(id, key = seed) are read as a number in [0, 1) and compared with `dropout`.
    """
    key = seed.to_bytes(8, "little", signed=True)
    digests = b"".join(blake2b((i or "").encode(), digest_size=8, key=key).digest() for i in ids)
    # The upper 53 bits make a float64 in [0, 1) exactly, so that dropout = 1 drops every document.
    uniform = (np.frombuffer(digests, dtype="<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniform < dropout


def describe_weights(weights: Mapping[RoleName, float]) -> str:
    """One line for reports: the roles that are paid, `text eos metadata×0.5`."""
    paid = [(name, weights[name]) for name in reversed(ROLE_NAMES) if weights.get(name)]
    return " ".join(name if weight == 1 else f"{name}×{weight:g}" for name, weight in paid)
