"""The schemas of the two types of Arrow file that Colophon writes: token files and packed files.

Both are Arrow IPC *files*, uncompressed, so that a reader can memory-map them. A packed row is one training sequence of
`sequence_length + 1` ids. Run-length-encoded roles record whether an id is text, metadata, wrapper, padding and so on;
nothing is inferred from marker ids. Runs take about 0.005 byte a token, a mask of bytes takes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from colophon.shards.common.errors import ShardError
from colophon.shards.common.state_files import parse_model, parse_state

FORMAT_VERSION = 1
UPDATE = "Use the version of Colophon that wrote it, or a newer one"
_REMEDY = "`colophon verify` checks every file of a run"
METADATA_KEY = b"colophon"
NO_DOCUMENT = 2**32 - 1
"""The value in `run_documents` for a run without a document: padding."""


class Role(IntEnum):
    """The role of a token in a packed sequence. Files store the numbers, so they never change."""

    PAD = 0
    BOS = 1
    EOS = 2
    WRAPPER = 3
    METADATA = 4
    META_TOKEN = 5
    TEXT = 6


RoleName = Literal["pad", "bos", "eos", "wrapper", "metadata", "meta_token", "text"]
ROLE_NAMES: tuple[RoleName, ...] = ("pad", "bos", "eos", "wrapper", "metadata", "meta_token", "text")
"""Names of the roles in recipes and schema metadata, by role number."""


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special tokens that layouts use; all differ."""

    bos: int
    eos: int
    pad: int
    boc: int
    eoc: int
    meta: tuple[int, ...] = ()


class TokenizerInfo(BaseModel):
    """The facts about a shard's tokenizer that its reader needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    num_base_ids: int = Field(ge=1)
    num_ids: int = Field(ge=1)
    """The largest id + 1, added tokens included: the rows that an embedding needs."""
    special: SpecialIds


class PackedInfo(BaseModel):
    """The JSON value under the key `colophon` in a packed file's schema metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["packed"] = "packed"
    format_version: int = FORMAT_VERSION
    sequence_length: int = Field(ge=2)
    """Inputs of a row; a row holds one id more, since labels are the inputs shifted by one."""
    layout: dict[str, Any]
    """The layout as in the recipe, with all defaults and its `name`."""
    role_weights: dict[RoleName, float]
    """Loss weight of a label by its role."""
    tokenizer: TokenizerInfo
    sources: list[str]
    """The inputs' paths as the recipe names them; `run_documents` counts rows of the partition."""
    fingerprint: str
    """sha256 of the settings of this layout; equal in all its files."""
    num_tokens: dict[RoleName, int]


def tokens_schema(dtype: np.dtype[Any]) -> pa.Schema:
    """The schema of token files: row-aligned with their partition, `input_ids` without special tokens."""
    return pa.schema([("id", pa.string()), ("input_ids", pa.list_(pa.from_numpy_dtype(dtype)))])


def packed_schema(info: PackedInfo, dtype: np.dtype[Any]) -> pa.Schema:
    """The schema of packed files: one row for each sequence."""
    ids = pa.list_(pa.from_numpy_dtype(dtype), info.sequence_length + 1)
    fields = [
        pa.field("input_ids", ids, nullable=False),
        pa.field("run_lengths", pa.list_(pa.uint32()), nullable=False),
        pa.field("run_roles", pa.list_(pa.uint8()), nullable=False),
        pa.field("run_documents", pa.list_(pa.uint32()), nullable=False),
    ]
    return pa.schema(fields, metadata={METADATA_KEY: info.model_dump_json()})


def packed_info(schema: pa.Schema, *, path: object) -> PackedInfo:
    """The `colophon` metadata of a packed file.

    Raises:
        ShardError: the metadata is missing, has a different format version, or does not fit the file's columns.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise ShardError(f"{path}: not a packed shard: its schema has no metadata {METADATA_KEY.decode()!r}")
    where = f"{path}: metadata"
    version = parse_state(raw, where=where, remedy=_REMEDY).get("format_version")
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path}: format version {version!r:.40}; this Colophon reads version {FORMAT_VERSION}. {UPDATE}"
        )
    info = parse_model(PackedInfo, raw, where=where, remedy=_REMEDY)
    ids = schema.field("input_ids").type if "input_ids" in schema.names else None
    if ids is None or not pa.types.is_fixed_size_list(ids) or ids.list_size != info.sequence_length + 1:
        raise ShardError(f"{path}: column input_ids is {ids}, not a list of {info.sequence_length + 1} ids")
    if ids.value_type not in (pa.uint16(), pa.uint32()):
        raise ShardError(f"{path}: column input_ids holds {ids.value_type}, not uint16 or uint32")
    for field in packed_schema(info, np.dtype(ids.value_type.to_pandas_dtype())):
        found = schema.field(field.name).type if field.name in schema.names else None
        if found != field.type:
            raise ShardError(f"{path}: column {field.name} is {found or 'missing'}, not {field.type}")
    return info


def full_role_weights(weights: dict[RoleName, float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 [7]: the loss weight of each role by number; roles that are not in `weights` have weight 0."""
    return np.array([weights.get(name, 0.0) for name in ROLE_NAMES], dtype=np.float32)
