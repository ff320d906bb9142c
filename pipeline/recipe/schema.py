"""A recipe: one TOML file that says what goes in, what is known of it, how it is packed and what is trained.

Sections are frozen pydantic models that forbid unknown keys. Everything that can be wrong in a recipe alone is found
here; what needs models, vocabularies or inputs is found by `pipeline.runs.resolve`, also before anything is written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, field_validator

from colophon.annotators.base import AnnotatorConfig
from colophon.pipeline.errors import has_secret
from colophon.shards.layouts import Layout, MetaTokensLayout
from colophon.shards.packing import PackingMethod
from colophon.shards.tokenizer.tokenizer import TokenizerConfig
from colophon.trainer.config import TrainConfig

if sys.version_info >= (3, 11):
    pass
else:
    pass

InputFormat = Literal["parquet", "jsonl", "csv", "arrow", "warc"]
DEFAULT_META_TOKENS = 5


class Section(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _without_secret(path: str) -> str:
    if has_secret(path):
        raise ValueError("records keep paths: a password or signature goes into the environment, see docs/recipes.md")
    return path


Place = Annotated[str, Field(min_length=1), AfterValidator(_without_secret)]
"""A path or URL."""


class InputSection(Section):
    """`[input]`: where documents come from."""

    paths: list[Place] = Field(min_length=1)
    """Files, directories and globs; local or any fsspec URL (`s3://`, `gs://`, `hf://datasets/...`)."""
    format: InputFormat | None = None
    """None: by the file's suffix."""
    columns: dict[str, str] = {}
    """The input's own column names by FineWeb's: `{ text = "content" }`."""
    partition_bytes: int = Field(64 << 20, ge=1)
    """Uncompressed bytes of a unit of work; a Parquet file is cut at row groups."""

    @field_validator("paths", mode="before")
    @classmethod
    def _one_path_is_a_list(cls, paths: Any) -> Any:
        return [paths] if isinstance(paths, str) else paths


class OutputSection(Section):
    """`[output]`: where a run's files go."""

    path: Place
    """Local, `~` meaning the home directory, or an fsspec URL."""

    @field_validator("path")
    @classmethod
    def _one_spelling(cls, path: str) -> str:
        return path.rstrip("/") if "://" in path else str(Path(path).expanduser())


class PackSection(Section):
    """`[pack]`: the shape of sequences, the same for all layouts."""

    sequence_length: int = Field(2048, ge=2)
    """Inputs of a sequence; a packed row holds one id more."""
    method: PackingMethod = "concat"
    seed: int = Field(0, ge=-(2**63), lt=2**63)
    """With a document's id it decides whether the document's metadata is dropped."""


class RaySection(Section):
    """`[ray]`: where a run's workers live."""

    address: str | None = None
    """`auto`, `ray://...` or `host:port` of a running cluster; None starts a local one for the run."""
    num_workers: int | None = Field(None, ge=1)
    """Worker processes; None: one for each CPU of the cluster."""
    worker_memory_bytes: int | None = Field(None, ge=1)
    """Memory that Ray reserves for a worker. One that has grown past it is replaced after its partition; one that has
    twice as much, and 512 MiB more than it at least, ends at once, and its partition is tried again."""
    partition_timeout_seconds: float | None = Field(None, gt=0)
    """A partition that takes longer is taken from its worker, which is killed, and tried again."""
    max_attempts: int = Field(3, ge=1)
    """How often a partition is tried when its worker dies or hangs."""


class Recipe(Section):
    """A whole recipe."""

    input: InputSection
    output: OutputSection
    annotators: dict[str, SerializeAsAny[AnnotatorConfig]] = {}
    tokenizer: TokenizerConfig | None = None
    pack: PackSection = PackSection()
    layouts: dict[str, Layout] = {}
    ray: RaySection = RaySection()
    train: dict[str, TrainConfig] = {}

    @field_validator("annotators", "layouts", "train")
    @classmethod
    def _names_are_directories(cls, sections: dict[str, Any]) -> dict[str, Any]:
        for name in sections:
            if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
                raise ValueError(f"{name!r} becomes a directory name: use letters, digits, '-', '_' and '.'")
        return sections

    @property
    def num_meta_tokens(self) -> int:
        """Meta tokens that the vocabulary holds: enough for every layout, at least the paper's 5."""
        asked = [layout.num_meta_tokens for layout in self.layouts.values() if isinstance(layout, MetaTokensLayout)]
        return max([DEFAULT_META_TOKENS, *asked])
