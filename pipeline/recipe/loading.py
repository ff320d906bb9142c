"""Loading a recipe: the file is found, parsed, overridden by `--set` and validated."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from colophon.annotators.base import AnnotatorConfig, AnnotatorError
from colophon.annotators.registry import Offer, found, offers
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.error_messages import choices, validated
from colophon.pipeline.recipe.plugins import read_plugins
from colophon.pipeline.recipe.schema import PluginsSection, Recipe
from colophon.shards.common.errors import did_you_mean, with_place
from colophon.shards.common.paths import why_missing
from colophon.shards.common.text_encoding import utf8_text
from colophon.shards.common.url_secrets import has_secret
from colophon.shards.stores.addresses import check_address, check_local, protocol_of, secret_problem
from colophon.shards.templates import MAX_TEXT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_RECIPE_BYTES = 1 << 20
_LONGEST_KEY = 1000
_TOO_DEEP = "tables or lists in it are nested too deeply"
_PLAIN = re.compile(r"[\w.-]*")


def set_options(overrides: Sequence[str]) -> list[str]:
    """The words of a command line that repeat the overrides: `--set`, `output.path=out/b`, ..."""
    return [word for override in overrides for word in ("--set", override)]


def load_recipe(name: str, *, overrides: Sequence[str] = (), plugins: bool = False) -> Recipe:
    """Read a recipe: a TOML file's path, or the name of a bundled recipe.

    Args:
        name: `recipes/web.toml` or `web`.
        overrides: `section.key=value`; the value is TOML, a bare word is a string.
        plugins: run the Python files of the recipe's `[plugins]`, which is an error otherwise.

    Raises:
        UsageError: one line that names the file, the key and the choices.
    """
    path, raw = _read(name, overrides)
    return parse_recipe(raw, where=str(path), directory=path.parent, plugins=plugins)


def recipe_offers(name: str, *, overrides: Sequence[str] = ()) -> list[Offer]:
    """All annotator types that the recipe can use; `load_recipe` describes arguments and errors."""
    path, raw = _read(name, overrides)
    return _offers(raw, where=str(path), directory=path.parent, plugins=False)


def _read(name: str, overrides: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    path = find_recipe(name)
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise UsageError(f"{path}: has more than {MAX_RECIPE_BYTES:,} bytes")
    try:
        text = re.sub("\r\n?", "\n", utf8_text(path.read_bytes()))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return path, _parsed(text, where=str(path), overrides=overrides)


def parse_recipe_text(text: str, *, where: str) -> Recipe:
    """Parse and validate the text of a recipe without plugins; see `load_recipe`."""
    return parse_recipe(_parsed(text, where=where), where=where)


def _parsed(text: str, *, where: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    try:
        raw = tomllib.loads(text)
    except ValueError as error:  # also an integer of more digits than Python reads
        raise UsageError(f"{where}: not valid TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{where}: not a recipe: {_TOO_DEEP}") from None
    for override in overrides:
        _assign(raw, override, option="--set")
    try:
        _check_values(raw, where=where)
    except RecursionError:
        raise UsageError(f"{where}: not a recipe: {_TOO_DEEP}") from None
    return raw


def parse_recipe(raw: Mapping[str, Any], *, where: str, directory: Path | None = None, plugins: bool = False) -> Recipe:
    """Validate a parsed TOML file; `where` names it in errors, `directory` is the file's."""
    annotators = raw.get("annotators", {})
    if not isinstance(annotators, dict):
        raise UsageError(f"{where}: annotators must be tables, [annotators.<name>]")
    among = _offers(raw, where=where, directory=directory, plugins=plugins)
    configs = {name: annotator_config(name, section, among, where=where) for name, section in annotators.items()}
    recipe = validated(Recipe, {**raw, "annotators": configs}, where=where)
    _check_addresses(recipe, where=where)
    for name, train in recipe.train.items():
        for key, layout in train.layouts_of_this_run().items():
            if layout not in recipe.layouts:
                known = choices(recipe.layouts)
                guess = did_you_mean(layout, recipe.layouts)
                raise UsageError(f"{where}: train.{name}.{key}: no layout {layout!r}; available: {known}{guess}")
    return recipe


def local_paths(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The local files and directories that a recipe names besides `[input]` and `[output]`, each with its key."""
    for name, config in recipe.annotators.items():
        yield from ((f"annotators.{name}", path) for path in config.paths)
    if recipe.tokenizer is not None and recipe.tokenizer.path is not None:
        yield "tokenizer.path", recipe.tokenizer.path


def find_recipe(name: str) -> Path:
    """The path of a recipe file, or of a bundled recipe by its name.

    Raises:
        UsageError: there is none, or the name is a URL.
    """
    if protocol_of(name) is not None or has_secret(name):
        raise UsageError(f"a recipe is a local file, not a URL; bundled recipes: {choices(shipped_recipes())}")
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise UsageError(f"{name} is a directory; a recipe is a TOML file. `colophon init FILES` writes one")
    if link := why_missing(path, otherwise=""):
        raise UsageError(f"no recipe file {name}: {link}")
    known = f"{choices(shipped)}{did_you_mean(name, shipped)}"
    raise UsageError(f"no recipe file {name or repr(name)}; bundled recipes: {known}")


def shipped_recipes() -> dict[str, Path]:
    """Paths of the bundled recipes, those in the package `recipes`, by name."""
    files = (Path(str(entry)) for entry in resources.files("colophon.recipes").iterdir())
    return {file.stem: file for file in sorted(files) if file.suffix == ".toml"}


def _offers(raw: Mapping[str, Any], *, where: str, directory: Path | None, plugins: bool) -> list[Offer]:
    table = raw.get("plugins", {})
    if not isinstance(table, dict):
        raise UsageError(f"{where}: plugins must be a table, [plugins]")
    section = validated(PluginsSection, table, where=where, under=("plugins",))
    files = read_plugins(section.files, directory=directory, where=where, allowed=plugins)
    try:
        return offers(files)
    except AnnotatorError as error:
        raise UsageError(f"{where}: plugins.files: {error}") from error


def _check_values(raw: Mapping[str, Any], *, where: str) -> None:
    """Check every key and every value of a recipe, also those that it should not have: manifests keep all of it."""
    for key, value in _values(raw, ()):
        text = value if isinstance(value, str) else ""
        if len(key[-1]) > _LONGEST_KEY:
            raise UsageError(
                f"{where}: {'.'.join(key[:-1]) or 'recipe'}: a key has more than {_LONGEST_KEY} characters"
            )
        if len(text) > MAX_TEXT:
            raise UsageError(f"{where}: {'.'.join(key)}: has {len(text):,} characters; at most {MAX_TEXT:,} are read")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise UsageError(f"{where}: {'.'.join(key)}: a whole number of TOML has at most 64 bits")
        if has_secret(key[-1]):
            raise UsageError(f"{where}: {'.'.join(key[:-1]) or 'recipe'}: unknown key, a URL that may hold a secret")
        if problem := secret_problem(text):
            raise UsageError(f"{where}: {'.'.join(key)}: {problem}")


def _values(value: Any, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value in a parsed TOML file with its keys, tables and lists included."""
    if key:
        yield key, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _values(inner, (*key, str(name)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            # A table of a list is named by its number, as pydantic does it: train.tiny.sources.0.output.
            yield from _values(inner, (*key, str(number)) if isinstance(inner, Mapping) else key)


def _check_addresses(recipe: Recipe, *, where: str) -> None:
    checks = (
        *((check_local, key, path) for key, path in local_paths(recipe)),
        *(
            (check_local if key.endswith("cache_directory") else check_address, f"train.{name}.{key}", address)
            for name, train in recipe.train.items()
            for key, address in train.addresses()
        ),
    )
    for check, key, address in checks:
        try:
            check(address)
        except ValueError as error:
            raise UsageError(f"{where}: {key}: {error}") from None


def annotator_config(name: str, section: Any, among: Sequence[Offer], *, where: str) -> AnnotatorConfig:
    """The settings of `[annotators.name]`, of the type that the table names, else of the type `name`.

    Raises:
        UsageError: no such type, or a setting is invalid.
    """
    if not isinstance(section, dict):
        raise UsageError(f"{where}: annotators.{name} must be a table")
    type_name = section.get("type", name)
    try:
        config = found(type_name, among)
    except AnnotatorError as error:
        raise UsageError(f"{where}: annotators.{name}: {error}") from error
    if config is None:
        names = {offer.name for offer in among}
        known, guess = choices(names), did_you_mean(type_name, names) if isinstance(type_name, str) else ""
        raise UsageError(f"{where}: annotators.{name}: unknown annotator {type_name!r}; available: {known}{guess}")
    settings = {key: value for key, value in section.items() if key != "type"}
    try:
        return validated(config, settings, where=where, under=("annotators", name))
    except UsageError:
        raise
    except Exception as error:  # of a validator that is not ours
        reason = with_place(error, file=getattr(sys.modules.get(config.__module__), "__file__", None))
        raise UsageError(f"{where}: annotators.{name}: {reason}") from error


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
    if not _PLAIN.fullmatch(key):
        raise UsageError(f"{option}: a key consists of letters, digits, '-', '_' and '.': write key=value")
    shown = assignment if _PLAIN.fullmatch(text) else f"{key}=..."  # a URL may hold a secret
    if not equals or not all([*parents, last]):
        raise UsageError(f"{option} {shown}: write key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        value = text
    except RecursionError:
        raise UsageError(f"{option} {key}: {_TOO_DEEP}") from None
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"{option} {shown}: {parent} is not a table")
    table[last] = value
