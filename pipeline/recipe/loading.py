"""A recipe file, read and overridden."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from colophon.annotators.base import AnnotatorConfig, annotator_types
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.error_messages import choices, validated
from colophon.pipeline.recipe.schema import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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
                    f"{where}: train.{name}.{key}: no layout {layout!r}; available: {choices(recipe.layouts)}"
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
    raise UsageError(f"no recipe file {name}; recipes that Colophon brings: {choices(shipped)}")


def shipped_recipes() -> dict[str, Path]:
    """The recipes of the package `recipes` by name."""
    files = (Path(str(entry)) for entry in resources.files("colophon.recipes").iterdir())
    return {file.stem: file for file in sorted(files) if file.suffix == ".toml"}


def _annotator(name: str, section: Any, *, where: str) -> AnnotatorConfig:
    if not isinstance(section, dict):
        raise UsageError(f"{where}: annotators.{name} must be a table")
    types = annotator_types()
    type_name = section.get("type", name)
    if not isinstance(type_name, str) or type_name not in types:
        raise UsageError(f"{where}: annotators.{name}: unknown annotator {type_name!r}; available: {choices(types)}")
    settings = {key: value for key, value in section.items() if key != "type"}
    return validated(types[type_name], settings, where=where, under=("annotators", name))


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
