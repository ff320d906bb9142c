"""A recipe: one TOML file that says what goes in, what is known of it, how it is packed and what is trained.

Sections are frozen pydantic models that forbid unknown keys. Everything that can be wrong in a recipe alone is found
here; what needs models, vocabularies or inputs is found by `pipeline.prepare`, also before anything is written.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator

from annotators.base import AnnotatorConfig, annotator_types
from pipeline.errors import UsageError, has_secret, without_secrets
from shards.layouts import Layout, MetaTokensLayout
from shards.packing import PackingMethod
from shards.tokenizer import TokenizerConfig
from trainer.config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Model = TypeVar("Model", bound=BaseModel)
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


def load_recipe(name: str, *, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe `name`, a TOML file's path or the name of one that Colophon brings.

    Args:
        name: `recipes/web.toml` or `web`.
        overrides: `section.key=value`, the value in TOML syntax (a bare word is a string).

    Raises:
        UsageError: one line that names the file, the key and the choices.
    """
    path = find_recipe(name)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    for override in overrides:
        _override(raw, override)
    return parse_recipe(raw, where=str(path))


def parse_recipe(raw: Mapping[str, Any], *, where: str) -> Recipe:
    """The recipe that a parsed TOML file says; `where` names it in errors."""
    annotators = raw.get("annotators", {})
    if not isinstance(annotators, dict):
        raise UsageError(f"{where}: annotators must be tables, [annotators.<name>]")
    built = {name: _annotator(name, section, where=where) for name, section in annotators.items()}
    recipe = validated(Recipe, {**raw, "annotators": built}, where=where)
    for name, train in recipe.train.items():
        for key, layout in train.layouts_of_this_run().items():
            if layout not in recipe.layouts:
                raise UsageError(
                    f"{where}: train.{name}.{key}: no layout {layout!r}; available: {_list(recipe.layouts)}"
                )
    return recipe


def find_recipe(name: str) -> Path:
    """The file that `name` means."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    raise UsageError(f"no recipe file {name}; recipes that Colophon brings: {_list(shipped)}")


def shipped_recipes() -> dict[str, Path]:
    """The recipes of the package `recipes` by name."""
    files = (Path(str(entry)) for entry in resources.files("recipes").iterdir())
    return {file.stem: file for file in sorted(files) if file.suffix == ".toml"}


def _annotator(name: str, section: Any, *, where: str) -> AnnotatorConfig:
    if not isinstance(section, dict):
        raise UsageError(f"{where}: annotators.{name} must be a table")
    types = annotator_types()
    type_name = section.get("type", name)
    if not isinstance(type_name, str) or type_name not in types:
        raise UsageError(f"{where}: annotators.{name}: unknown annotator {type_name!r}; available: {_list(types)}")
    settings = {key: value for key, value in section.items() if key != "type"}
    return validated(types[type_name], settings, where=where, under=("annotators", name))


def validated(model: type[Model], data: Mapping[str, Any], *, where: str, under: tuple[str, ...] = ()) -> Model:
    """`data` as `model`, or a UsageError of one line for the first thing that is wrong."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (*under, *_keys(first["loc"], data)))
        raise UsageError(f"{where}: {key}: {_say(first, model)}") from None


def _keys(loc: Sequence[int | str], data: Any) -> Iterator[int | str]:
    """`loc` without the tags that pydantic puts in for the members of a union: only keys of the recipe."""
    for i, part in enumerate(loc):
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            # Not in the data: a union's tag, unless it is the key that is missing.
            if i < len(loc) - 1:
                continue
        yield part


_KINDS = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "table"),
    **dict.fromkeys(("list_type", "tuple_type"), "list"),
}
"""What TOML calls that which pydantic's errors of these types want."""


def _say(error: Any, model: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, error["loc"][:-1])
        tables = _tables_with(_type_at(model, error["loc"][:-1]), str(error["loc"][-1]))
        said = f"unknown key; it belongs in {' or '.join(tables)}" if tables else "unknown key"
        return f"{said}; available: {_list(known)}" if known else said
    if error["type"] == "missing":
        return "is required"
    if error["type"].startswith("union_tag"):
        key, given = error["ctx"]["discriminator"].strip("'"), error["ctx"].get("tag")
        said = f"{key} is required" if given is None else f"unknown {key} {given!r}"
        return f"{said}; available: {_list(_tags_at(model, error['loc'], key))}"
    shown = error.get("input")
    got = f", got {without_secrets(repr(shown))}" if isinstance(shown, str | int | float | bool) else ""
    if error["type"] in _KINDS:
        known = _fields_at(model, error["loc"]) if error["type"] == "model_type" else []
        return f"must be a {_KINDS[error['type']]}{got}" + (f"; its keys: {_list(known)}" if known else "")
    return str(error["msg"]).removeprefix("Value error, ") + got


def _fields_at(model: Any, loc: Sequence[int | str]) -> list[str]:
    """The keys that the table at `loc` may have."""
    current = _type_at(model, loc)
    found = [current] if isinstance(current, type) and issubclass(current, BaseModel) else _models(current)
    return sorted(found[0].model_fields) if len(found) == 1 else []


def _tables_with(model: Any, key: str) -> list[str]:
    """The keys of a table under which there are tables, or lists of tables, that may have `key`."""
    is_model = isinstance(model, type) and issubclass(model, BaseModel)
    fields = model.model_fields.items() if is_model else ()
    return [name for name, field in fields if any(key in m.model_fields for m in _models_in(field.annotation))]


def _tags_at(model: Any, loc: Sequence[int | str], key: str) -> list[str]:
    """The values of `key` that tell the members of the union at `loc` apart."""
    members = _models(_type_at(model, loc))
    return [tag for member in members for tag in typing.get_args(member.model_fields[key].annotation)]


def _type_at(model: Any, loc: Sequence[int | str]) -> Any:
    for part in loc:
        model = _step(model, part)
    return model


def _step(annotation: Any, part: int | str) -> Any:
    """From a type to the type of its member `part`: a field, a dict's value, a tuple's, the tagged one of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field is not None else None
    if typing.get_origin(annotation) is dict:
        return typing.get_args(annotation)[1]
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0]
    models = _models(annotation)
    tagged = [m for m in models if part in _tags(m)]
    if tagged:
        return tagged[0]
    return _step(models[0], part) if models else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a union joins."""
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The type itself, or those in its brackets, as far as they are models."""
    members = typing.get_args(annotation) or (annotation,)
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]


def _tags(model: type[BaseModel]) -> set[Any]:
    """What tells a union's member apart in pydantic's error locations: its name or a literal field's value."""
    literals = (field.annotation for field in model.model_fields.values())
    values = {v for a in literals if typing.get_origin(a) is Literal for v in typing.get_args(a)}
    return {model.__name__, *values}


def parse_settings(option: str, assignments: Sequence[str]) -> dict[str, Any]:
    """A table from command-line assignments such as `lower=true`; `option` names them in errors."""
    table: dict[str, Any] = {}
    for assignment in assignments:
        _override(table, assignment, option=option)
    return table


def _override(raw: dict[str, Any], override: str, *, option: str = "--set") -> None:
    """Put `a.b=c` into the parsed TOML."""
    key, equals, text = override.partition("=")
    *tables, last = key.split(".")
    if not equals or not all([*tables, last]):
        raise UsageError(f"{option} {override}: write key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for table in tables:
        raw = raw.setdefault(table, {})
        if not isinstance(raw, dict):
            raise UsageError(f"{option} {override}: {table} is not a table")
    raw[last] = value


def _list(names: typing.Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
