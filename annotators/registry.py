"""All annotator types that a recipe can use, and where each comes from.

- built in: the modules of this package;
- a package: an installed one with an entry point in the group `colophon.annotators`, whose name is the type's name;
- a file: listed under `[plugins]` of the recipe;
- code: a subclass of `AnnotatorConfig` in a module that the running Python program has imported.

A package is imported when one of its types is used, never because it is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pyarrow as pa

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError, annotator_types, config_subclasses
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.plugin_files import MODULE_PREFIX, PluginFile, is_annotator_type
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.errors import short_reason, with_place
from colophon.shards.common.paths import absolute_path

ENTRY_POINTS = "colophon.annotators"


@dataclass(frozen=True)
class Origin:
    """Where an annotator type comes from."""

    description: str
    """`built in`, a package and its version, a file's name, or a module."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """The identity of the code, part of the settings of what the annotator writes. Empty if built in."""
    file: PluginFile | None = None
    package: tuple[str, str] | None = None
    """Name and version of an installed package."""


BUILT_IN = Origin("built in")
_known: dict[type[AnnotatorConfig], Origin] = {}
"""The origins of the types that `found` has returned."""


@dataclass(frozen=True)
class Offer:
    """An annotator type under its name; a package's is not imported yet."""

    name: str
    origin: Origin
    load: Callable[[], type[AnnotatorConfig]]


def offers(files: Sequence[PluginFile] = ()) -> list[Offer]:
    """All types that exist, those of `files` included, which are run.

    Raises:
        AnnotatorError: a file cannot be imported, or defines a name that a built-in annotator or another file has.
    """
    built_in = [Offer(name, BUILT_IN, partial(_same, config)) for name, config in annotator_types().items()]
    from_files = [offer for file in files for offer in _of_file(file)]
    taken = {offer.name: offer.origin for offer in built_in}
    for offer in from_files:
        if offer.name in taken:
            owner = taken[offer.name].description
            raise AnnotatorError(f"{offer.origin.description}: an annotator named {offer.name!r} exists: {owner}")
        taken[offer.name] = offer.origin
    packages = [_of_package(entry) for entry in entry_points(group=ENTRY_POINTS)]
    return [*built_in, *packages, *from_files, *_of_code()]


def found(name: object, among: Iterable[Offer]) -> type[AnnotatorConfig] | None:
    """The type of that name, imported; None if there is none.

    Raises:
        AnnotatorError: several have the name, or the package that has it cannot be imported.
    """
    candidates = {offer.load(): offer.origin for offer in reversed([o for o in among if o.name == name])}
    if len(candidates) > 1:
        owners = ", ".join(sorted(origin.description for origin in candidates.values()))
        raise AnnotatorError(f"several annotators are named {name!r}: {owners}")
    _known.update({config: origin for config, origin in candidates.items() if origin.file or origin.package})
    return next(iter(candidates), None)


def origin_of(config: type[AnnotatorConfig]) -> Origin:
    """Where a type comes from; one that `found` has not returned was defined in code."""
    if is_built_in(config):
        return BUILT_IN
    known = _known.get(config)
    if known is None:
        return _origin_in_code(config)
    return known if known.file else replace(known, identity={**known.identity, **_module_identity(config)})


def is_built_in(config: type[AnnotatorConfig]) -> bool:
    """Whether the type is defined in this package."""
    return annotator_types().get(getattr(config, "type_name", "")) is config


def contract_problem(annotator: object, config: AnnotatorConfig, *, name: str) -> str | None:
    """Why what `config.build(name)` returned cannot be used; None if it can, and always for the built-in ones."""
    if is_built_in(type(config)):
        return None
    if not isinstance(annotator, Annotator):
        return f"build() returned a {type(annotator).__name__}; expected an Annotator"
    try:
        json.dumps([dict(annotator.settings), config.model_dump(mode="json")])
    except Exception as error:
        return f"settings must be JSON values: {with_place(error)}"
    schema, columns = getattr(annotator, "schema", None), getattr(annotator, "columns", None)
    has_schema = isinstance(schema, pa.Schema) and 0 < len(schema.names) == len(set(schema.names))
    has_columns = isinstance(columns, tuple) and bool(columns) and all(isinstance(column, str) for column in columns)
    expected = {
        f"name must be the name that build() was given, {name!r}": getattr(annotator, "name", None) == name,
        "schema must be a pyarrow schema of the output columns, each name once": has_schema,
        "columns must be a tuple of the names of the columns that it reads, at least one": has_columns,
    }
    wrong = next((line for line, holds in expected.items() if not holds), None) or _unwritable(schema)
    return None if wrong is None else f"{type(annotator).__name__}.{wrong}"


def _unwritable(schema: Any) -> str | None:
    """Why Parquet cannot hold columns of this schema; None if it can."""
    import pyarrow.parquet as pq

    try:
        pq.ParquetWriter(pa.BufferOutputStream(), schema).close()
    except pa.ArrowException as error:
        return f"schema has a type that Parquet cannot hold: {short_reason(error)}"
    return None


def recorded_settings(annotator: Annotator, config: AnnotatorConfig | None) -> dict[str, Any]:
    """`Annotator.settings`, and for an annotator that is not built in also what its author may have forgotten there.

    That is all settings of the recipe, the sha256 of the files in `path_fields` in place of their paths, and the
    identity of the code. Reads each such file once, 0.5 to 2 s a GB.

    Args:
        annotator: the annotator.
        config: the settings that it was built from; None: unknown, `Annotator.settings` alone.
    """
    if config is None or is_built_in(type(config)):
        return dict(annotator.settings)
    return {
        **annotator.settings,
        "type": config.type_name,
        "config": config.model_dump(mode="json", exclude=set(config.path_fields)),
        "files": {name: sha256 for name, (_, sha256) in _files_of(config).items()},
        "code": dict(origin_of(type(config)).identity),
    }


def model_files(annotator: Annotator, config: AnnotatorConfig | None) -> dict[str, str]:
    """The paths of the annotator's files, each with the sha256 that is in `recorded_settings`."""
    own = dict(annotator.model_files)
    return own if config is None or is_built_in(type(config)) else {**dict(_files_of(config).values()), **own}


def _files_of(config: AnnotatorConfig) -> dict[str, tuple[str, str]]:
    """The absolute path and the sha256 of each file that `path_fields` names, by setting."""
    paths = {name: value for name in config.path_fields if (value := getattr(config, name)) is not None}
    return {name: (absolute_path(path), remembered_sha256(absolute_path(path))) for name, path in paths.items()}


def _same(config: type[AnnotatorConfig]) -> type[AnnotatorConfig]:
    return config


def _of_file(file: PluginFile) -> list[Offer]:
    origin = Origin(file.name, {"sha256": file.sha256}, file=file)
    return [Offer(name, origin, partial(_same, config)) for name, config in file.types().items()]


def _of_package(entry: EntryPoint) -> Offer:
    name, version = (entry.dist.name, entry.dist.version) if entry.dist is not None else (entry.module, "")
    origin = Origin(f"{name} {version}".strip(), {"package": name, "version": version}, package=(name, version))
    return Offer(entry.name, origin, partial(_imported, entry, origin))


def _imported(entry: EntryPoint, origin: Origin) -> type[AnnotatorConfig]:
    """The class that an entry point names; imports its package."""
    where = f"{origin.description} ({entry.value})"
    try:
        config = entry.load()
    except (Exception, SystemExit) as error:
        raise AnnotatorError(f"{where}: {with_place(error)}") from error
    if not is_annotator_type(config):
        raise AnnotatorError(f"{where}: is not a subclass of AnnotatorConfig with build()")
    if getattr(config, "type_name", None) != entry.name:
        raise AnnotatorError(f"{where}: its type_name is not the name of its entry point, {entry.name!r}")
    return config


def _of_code() -> Iterator[Offer]:
    """Subclasses that no package and no plugin file defines; of a class that was defined again, the last.

    Workers find a class by its module and name, so one that is defined in a function is none.
    """
    for config in config_subclasses():
        name = getattr(config, "type_name", None)
        is_listed = config.__module__.startswith((MODULE_PREFIX, "colophon.annotators.")) or config in _known
        module = sys.modules.get(config.__module__)
        is_found = getattr(module, config.__qualname__, None) is config
        if isinstance(name, str) and is_annotator_type(config) and is_found and not is_listed:
            yield Offer(name, _origin_in_code(config), partial(_same, config))


def _origin_in_code(config: type[AnnotatorConfig]) -> Origin:
    return Origin(f"module {config.__module__}", _module_identity(config))


def _module_identity(config: type[AnnotatorConfig]) -> dict[str, str]:
    """The sha256 of the file of a class's module; nothing for code of a notebook, which has no file."""
    path = getattr(sys.modules.get(config.__module__), "__file__", None)
    return {"sha256": file_sha256(Path(path))} if path is not None and Path(path).is_file() else {}
