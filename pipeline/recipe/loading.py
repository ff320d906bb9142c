"""Loading a recipe: the file is found, parsed, overridden by `--set` and validated."""

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
    """Read a recipe: a TOML file's path, or the name of a bundled recipe.

    Args:
        name: `recipes/web.toml` or `web`.
        overrides: `section.key=value`; the value is TOML, a bare word is a string.

    Raises:
        UsageError: one line that names the file, the key and the choices.
    """
    path = find_recipe(name)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    for override in overrides:
        _assign(raw, override, option="--set")
    return parse_recipe(raw, where=str(path))


def parse_recipe(raw: Mapping[str, Any], *, where: str) -> Recipe:
    """Validate a parsed TOML file; `where` names it in errors."""
    annotators = raw.get("annotators", {})
    if not isinstance(annotators, dict):
        raise UsageError(f"{where}: annotators must be tables, [annotators.<name>]")
    configs = {name: _annotator_config(name, section, where=where) for name, section in annotators.items()}
    recipe = validated(Recipe, {**raw, "annotators": configs}, where=where)
    for name, train in recipe.train.items():
        for key, layout in train.layouts_of_this_run().items():
            if layout not in recipe.layouts:
                known = choices(recipe.layouts)
                raise UsageError(f"{where}: train.{name}.{key}: no layout {layout!r}; available: {known}")
    return recipe


def find_recipe(name: str) -> Path:
    """The path of a recipe file, or of a bundled recipe by its name."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    raise UsageError(f"no recipe file {name}; bundled recipes: {choices(shipped)}")


def shipped_recipes() -> dict[str, Path]:
    """Paths of the bundled recipes, those in the package `recipes`, by name."""
    files = (Path(str(entry)) for entry in resources.files("colophon.recipes").iterdir())
    return {file.stem: file for file in sorted(files) if file.suffix == ".toml"}


def _annotator_config(name: str, section: Any, *, where: str) -> AnnotatorConfig:
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
    settings: dict[str, Any] = {}
    for assignment in assignments:
        _assign(settings, assignment, option=option)
    return settings


def _assign(table: dict[str, Any], assignment: str, *, option: str) -> None:
    """Assign `a.b=c` in a table, creating the tables above the key."""
    key, equals, text = assignment.partition("=")
    *parents, last = key.split(".")
    if not equals or not all([*parents, last]):
        raise UsageError(f"{option} {assignment}: write key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"{option} {assignment}: {parent} is not a table")
    table[last] = value
