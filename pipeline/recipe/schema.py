"""The sections of a recipe, the TOML file that describes input, annotators, tokenizer, layouts and trainings.

Sections are frozen pydantic models that forbid unknown keys. They find every error that a recipe shows by itself;
`pipeline.runs.resolve` finds those that need models, vocabularies or inputs, also before anything is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from colophon.annotators.base import AnnotatorConfig
from colophon.shards.common.paths import local_path
from colophon.shards.layouts import Layout, MetaTokensLayout
from colophon.shards.packing.methods import PackingMethod
from colophon.shards.stores.addresses import check_address, check_cluster, check_local
from colophon.shards.tokenizer.tokenizer import TokenizerConfig
from colophon.trainer.config import TrainConfig

InputFormat = Literal["parquet", "jsonl", "csv", "arrow", "warc", "text"]
DEFAULT_META_TOKENS = 5
DEFAULT_MAX_DOCUMENT_BYTES = 64_000_000
MAX_SECTIONS = 1000
"""Sources, annotators, layouts and trainings of a recipe, of each; their cost is in docs/reliability.md."""
_LONGEST_NAME = 200
"""Bytes of a directory's name, below the 255 of common file systems: temporary names are longer."""


class Section(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Place = Annotated[str, Field(min_length=1), AfterValidator(check_address)]
"""A path or URL, see `shards.stores.addresses`."""


def _one_line(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError("must be printable characters, without spaces around them")
    return name


SourceName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
"""The name of a source, as annotations and tables show it."""


class InputSection(Section):
    """`[input]`: where documents come from. It is the short form of one table of `[[inputs]]`.

    Example:

        [input]
        paths = ["data/*.parquet", "s3://bucket/more/"]
        columns = { text = "content", url = "meta.source" }
    """

    name: SourceName | None = None
    """The documents' source: the column `source_name`, and a row of the summary."""
    paths: list[Place] = Field(min_length=1)
    """Files, directories and globs; local or a URL (`s3://` needs the extra `s3`, `gs://` the extra `gcs`;
    `hf://datasets/...`). A string is a list of one."""
    format: InputFormat | None = None
    """The format of all files, whatever their suffix. None: the one that each file's suffix names."""
    columns: dict[str, str] = {}
    """The input's column names, by FineWeb's names: `{ text = "content" }`. A dot leads into a struct or an object."""
    partition_bytes: Annotated[int, Field(ge=1)] | Literal["auto"] = 64 << 20
    """Bytes of a partition, uncompressed, about. A Parquet file is cut at row groups; JSON lines, plain or in several
    frames of zstd, at line ends; other files are not cut. `auto`: a power of two from the size of the input and
    `ray.num_workers`, chosen by the first run."""
    max_document_bytes: int = Field(DEFAULT_MAX_DOCUMENT_BYTES, ge=1, le=1 << 30)
    """UTF-8 bytes of a text; a document with a longer one is quarantined. At most 1 GiB."""

    @field_validator("partition_bytes", mode="before")
    @classmethod
    def _is_a_size(cls, size: Any) -> Any:
        """One message for both types."""
        is_size = type(size) is int or (type(size) is float and size.is_integer())
        if size != "auto" and not (is_size and size >= 1):
            raise ValueError("must be a whole number of bytes from 1 on, or 'auto'")
        return size

    @field_validator("paths", mode="before")
    @classmethod
    def _one_path_is_a_list(cls, paths: Any) -> Any:
        return [paths] if isinstance(paths, str) else paths

    @property
    def key(self) -> str:
        """The section in errors."""
        return "input"


class SourceSection(InputSection):
    """A table of `[[inputs]]`: one of several sources of documents. No key is shared among them.

    Example:

        [[inputs]]
        name = "web"
        paths = "web/*.parquet"

        [[inputs]]
        name = "books"
        paths = ["books/*.jsonl.zst", "more/*.jsonl"]
        columns = { text = "body", id = "key" }
    """

    name: SourceName

    @property
    def key(self) -> str:
        """The section in errors."""
        return f"inputs.{self.name}"


class OutputSection(Section):
    """`[output]`: the directory of a run's files.

    Example:

        [output]
        path = "out/web"
    """

    path: Place
    """A local path, in which `~` is the home directory, or a URL. A `file:` URL is its path. On a cluster a local path
    is the driver's, made absolute, and all nodes must share it."""

    local_path: str | None = None
    """Where `path` is a URL: the local directory for `training/`, which has checkpoints, metrics and evaluations. A
    training reads its shards from `path` and writes here."""

    @field_validator("path")
    @classmethod
    def _normalized(cls, path: str) -> str:
        if "\0" in path:
            raise ValueError(f"{path!r}: a path has no null byte")
        path = local_path(path)
        return path.rstrip("/") if "://" in path else path

    @field_validator("local_path")
    @classmethod
    def _is_local(cls, path: str | None) -> str | None:
        return None if path is None else local_path(check_local(path))

    @model_validator(mode="after")
    def _has_one_place(self) -> OutputSection:
        if self.local_path is not None and "://" not in self.path:
            raise ValueError("local_path is for a path that is a URL: training/ is in path itself")
        return self

    @property
    def training_root(self) -> Path | None:
        """The local directory with `training/`; None where `path` is a URL and `local_path` is not set."""
        if "://" not in self.path:
            return Path(self.path)
        return None if self.local_path is None else Path(self.local_path)


class PackSection(Section):
    """`[pack]`: the shape of sequences, the same for all layouts.

    Example:

        [pack]
        sequence_length = 4096
        method = "best_fit"
    """

    sequence_length: int = Field(2048, ge=2, le=1 << 24)
    """Input ids of a sequence; a packed row holds one id more."""
    method: PackingMethod = "concat"
    """`concat` cuts documents at the end of a sequence; `best_fit` cuts only documents longer than a sequence."""
    seed: int = Field(0, ge=-(2**63), lt=2**63)
    """Decides, together with a document's id, whether the document's metadata is dropped."""


class RaySection(Section):
    """`[ray]`: the cluster, and the limits of workers, which hold for local processes too.

    Example:

        [ray]
        num_workers = 16
        partition_timeout_seconds = 600
    """

    address: Annotated[str, AfterValidator(check_cluster)] | None = None
    """`auto`, `ray://...` or `host:port` of a running cluster. `RAY_ADDRESS` takes precedence. None: no cluster, or one
    for the run alone."""
    num_workers: int | None = Field(None, ge=1)
    """Worker processes. None: one for each CPU of the machine or the cluster."""
    worker_memory_bytes: int | None = Field(None, ge=1)
    """Memory of a worker, which Ray reserves. A worker above it is replaced after its partition. A worker above twice
    this, and at least 512 MiB above it, exits at once, and its partition is retried."""
    partition_timeout_seconds: float | None = Field(None, gt=0)
    """The worker of a partition that takes longer is killed, and the partition is retried."""
    max_attempts: int = Field(3, ge=1)
    """Attempts at a partition whose worker dies or hangs, then it is quarantined; failed starts in a row on a node,
    then the node is left out."""


class PluginsSection(Section):
    """`[plugins]`: Python code of the user. It runs only with `--plugins`, or if `COLOPHON_PLUGINS` lists a directory
    above it.

    Example:

        [plugins]
        files = ["my_annotators.py"]
    """

    files: list[str] = []
    """Python files that define annotators, relative to the recipe's directory and inside it."""


class Recipe(Section):
    """A whole recipe."""

    inputs: list[SourceSection] | None = Field(None, min_length=1, max_length=MAX_SECTIONS)
    """Several sources; their names differ."""
    input: InputSection | None = Field(None, validate_default=True)
    """One source. A recipe has either `input` or `inputs`."""
    output: OutputSection
    plugins: PluginsSection = PluginsSection()
    annotators: dict[str, SerializeAsAny[AnnotatorConfig]] = {}
    tokenizer: TokenizerConfig | None = None
    pack: PackSection = PackSection()
    layouts: dict[str, Layout] = {}
    ray: RaySection = RaySection()
    train: dict[str, TrainConfig] = {}

    @field_validator("inputs")
    @classmethod
    def _names_differ(cls, inputs: list[SourceSection] | None) -> list[SourceSection] | None:
        names = [source.name for source in inputs or ()]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two sources have the name {name!r}")
        return inputs

    @field_validator("input", mode="before")
    @classmethod
    def _one_of_both(cls, section: Any, info: ValidationInfo) -> Any:
        """Checked before the section's keys: one without paths is not asked for them beside `[[inputs]]`."""
        has_inputs = info.data.get("inputs") is not None
        if section is not None and has_inputs:
            raise ValueError(
                "[input] is the short form of one [[inputs]]: a recipe has one of them. Each table of [[inputs]] has "
                "its own keys, such as partition_bytes"
            )
        if section is None and not has_inputs and "inputs" in info.data:
            message = "is required: the paths of the documents. `colophon init FILES` writes a recipe"
            raise PydanticCustomError("missing_input", message)
        return section

    @property
    def sources(self) -> tuple[InputSection, ...]:
        """The tables of `[[inputs]]`, or the one of `[input]`."""
        return (*(self.inputs or ()), *([] if self.input is None else [self.input]))

    @field_validator("annotators", "layouts", "train")
    @classmethod
    def _directory_names(cls, sections: dict[str, Any]) -> dict[str, Any]:
        if len(sections) > MAX_SECTIONS:
            raise ValueError(f"{len(sections):,} sections; at most {MAX_SECTIONS:,} are read")
        for name in sections:
            if len(name.encode()) > _LONGEST_NAME:
                raise ValueError(f"a name becomes a directory name: at most {_LONGEST_NAME} bytes")
            if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
                raise ValueError(f"{name!r} becomes a directory name: use letters, digits, '-', '_' and '.'")
        by_case: dict[str, str] = {}
        for name in sections:
            if (other := by_case.setdefault(name.casefold(), name)) != name:
                raise ValueError(f"{other!r} and {name!r} are one directory on a disk without case. Rename one")
        return sections

    @field_serializer("annotators", mode="wrap")
    def _with_types(self, annotators: dict[str, Any], tables: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: {"type": annotators[name].type_name, **table} for name, table in tables(annotators).items()}

    @property
    def num_meta_tokens(self) -> int:
        """The number of meta tokens in the vocabulary: enough for every layout, at least the paper's 5."""
        needed = [layout.num_meta_tokens for layout in self.layouts.values() if isinstance(layout, MetaTokensLayout)]
        return max([DEFAULT_META_TOKENS, *needed])
