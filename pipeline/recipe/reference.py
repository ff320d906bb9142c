"""The reference of recipes, written from their models: every table, every key with its type, default, limits and text.

    python -m colophon.pipeline.recipe.reference > docs/recipe-reference.md

A table is a model that `Recipe` leads to. Its text and its example are the docstring of the model, the text of a key is
the docstring below the field. So a new key is on the page once it is in its model.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from colophon.annotators.base import AnnotatorConfig, annotator_types
from colophon.pipeline.recipe.schema import Recipe

_HEAD = """# Recipe reference

`make docs` writes this page from the code. [recipes.md](recipes.md) explains recipes; `colophon init` writes one for
your files. Paths are relative to the command's working directory. *unset*: the key has no default, and is not required.
"""
_TAGS = ("position", "type")
"""The keys that choose one of several models for a table."""

_EXPLAINED = {
    "input": "recipes.md#input",
    "inputs": "recipes.md#inputs",
    "output": "recipes.md#addresses",
    "plugins": "howto/own-annotator.md",
    "tokenizer": "tokenizing.md",
    "layouts.NAME": "recipes.md#layoutsname",
    "ray": "running.md#executors",
    "train.NAME": "training.md",
    "train.NAME.sources": "training.md#several-layouts",
    "train.NAME.sources.row_weights": "training.md#rows-by-weight",
    "train.NAME.sources.curriculum": "training.md#a-curriculum",
    "train.NAME.phases": "training.md#phases",
    "train.NAME.model": "recipes.md#models",
    "train.NAME.optimizer": "recipes.md#optimizers",
    "train.NAME.schedule": "recipes.md#schedules",
}
"""Sections of other pages, by the table that they explain."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a recipe."""

    path: str
    """`pack`, `layouts.NAME`, `train.NAME.phases`."""
    model: type[BaseModel]
    is_list: bool = False
    """Whether it is written with two brackets, once for each entry."""
    tag: str = ""
    """`position = "append"`: what chooses this model."""

    @property
    def heading(self) -> str:
        """The heading, which is the table as a recipe has it."""
        brackets = f"[[{self.path}]]" if self.is_list else f"[{self.path}]"
        return f"`{brackets}`" + (f" with `{self.tag}`" if self.tag else "")

    @property
    def anchor(self) -> str:
        """The address of the heading on the page, as code hosts and the site build it."""
        words = "".join(letter for letter in self.heading.lower() if letter.isalnum() or letter in " _-")
        return words.replace(" ", "-")


@cache
def reference() -> str:
    """Return `docs/recipe-reference.md`."""
    tables = {table.model: table for table in recipe_tables()}
    contents = "".join(f"- [{table.heading}](#{table.anchor})\n" for table in tables.values())
    return "\n".join([_HEAD, contents, *("\n".join(_section(table, tables)) for table in tables.values())])


@cache
def recipe_tables() -> tuple[Table, ...]:
    """Return the tables of a recipe, each model once, a table before the tables in it."""
    found: dict[type[BaseModel], Table] = {}
    # `[input]` is before `[[inputs]]`, whose model extends it.
    for name in sorted(Recipe.model_fields, key=lambda name: name != "input"):
        for table in _tables_of_field(name, Recipe.model_fields[name].annotation):
            _collect(table, found)
    return tuple(found.values())


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the text of each field: the docstring below it, in the class or in the nearest base that has one."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            texts |= _field_docstrings(base)
    return {name: texts[name] for name in model.model_fields if name in texts}


def example(model: type[BaseModel]) -> str:
    """Return the TOML of the model's docstring, after `Example:`."""
    return textwrap.dedent(inspect.cleandoc(model.__doc__ or "").partition("Example:\n\n")[2])


def _collect(table: Table, found: dict[type[BaseModel], Table]) -> None:
    if table.model in found:
        return
    found[table.model] = table
    for name in _own_fields(table.model, found):
        for child in _tables_of_field(f"{table.path}.{name}", table.model.model_fields[name].annotation):
            _collect(child, found)


def _own_fields(model: type[BaseModel], found: Mapping[type[BaseModel], Table]) -> list[str]:
    """Return the fields that a table has on its page: all, but for those of a base that is a table of its own."""
    bases = [base for base in found if base in model.__mro__[1:]]
    inherited = {name for base in bases for name in base.model_fields if name not in model.__annotations__}
    return [name for name in model.model_fields if name not in inherited]


def _tables_of_field(path: str, annotation: Any) -> Iterator[Table]:
    models = list(_models(annotation))
    containers = set(_containers(annotation))
    for model in models:
        is_named = dict in containers
        tag = _tag(model) if len(models) > 1 else ""
        yield Table(
            path=f"{path}.NAME" if is_named else path, model=model, is_list=bool({list, tuple} & containers), tag=tag
        )


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return the models in an annotation; the abstract one of annotators is replaced by those that are built in."""
    if annotation is AnnotatorConfig:
        yield from annotator_types().values()
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _models(argument)


def _containers(annotation: Any) -> Iterator[Any]:
    if list(_models(annotation)):
        yield get_origin(annotation)
        for argument in get_args(annotation):
            yield from _containers(argument)


def _tag(model: type[BaseModel]) -> str:
    if issubclass(model, AnnotatorConfig):
        return f'type = "{model.type_name}"'
    (name,) = (name for name in _TAGS if name in model.model_fields)
    return f'{name} = "{get_args(model.model_fields[name].annotation)[0]}"'


def _section(table: Table, tables: Mapping[type[BaseModel], Table]) -> Iterator[str]:
    text = re.sub(r"^`\[.*?\]`: ", "", inspect.cleandoc(table.model.__doc__ or "").partition("Example:\n\n")[0].strip())
    yield f"## {table.heading}\n\n{text[:1].upper()}{text[1:]}\n"
    if page := _explanation(table):
        yield f"Explained in [{page.partition('#')[0]}]({page}).\n"
    keys = [name for name in _own_fields(table.model, tables) if f"{name} = " not in table.tag]
    bases = [base for model, base in tables.items() if model in table.model.__mro__[1:]]
    if bases:
        yield f"It has the keys of [{bases[0].heading}](#{bases[0].anchor}), of which this one differs:\n"
    if keys:
        yield "| key | type | default | |\n| --- | --- | --- | --- |"
        yield from (_row(table, name, tables) for name in keys)
        yield ""
    if code := example(table.model):
        yield f"```toml\n{code}\n```\n"


def _explanation(table: Table) -> str:
    """Return the address of the section of a page that explains the table; empty for a table in a table."""
    if issubclass(table.model, AnnotatorConfig):
        return f"annotators.md#{table.model.type_name}"
    return _EXPLAINED.get(table.path, "")


def _row(table: Table, name: str, tables: Mapping[type[BaseModel], Table]) -> str:
    field = table.model.model_fields[name]
    text = re.sub(r"(^|[.:] )None\b", r"\1Unset", descriptions(table.model).get(name, ""))
    cells = (f"`{name}`", _type(_schema(table.model)[name], table.model, name, tables), _default(field), text)
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return properties


def _type(schema: Mapping[str, Any], model: type[BaseModel], name: str, tables: Mapping[type[BaseModel], Table]) -> str:
    """Return the type of a key, with its limits, or links to the tables that it holds."""
    field = model.model_fields[name]
    children = [tables[child] for child in _models(field.annotation)]
    if children:
        is_list, is_named = children[0].is_list, children[0].path.endswith(".NAME")
        kind = "list of tables" if is_list else "table of tables" if is_named else "table"
        return f"{kind}: " + ", ".join(f"[{child.heading}](#{child.anchor})" for child in children)
    return _plain_type(schema)


def _plain_type(schema: Mapping[str, Any], *, plural: bool = False) -> str:
    if options := [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]:
        return " or ".join(_plain_type(option, plural=plural) for option in options)
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{_toml(choice)}`" for choice in choices)
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        count = f"{schema['minItems']} " if "prefixItems" in schema else ""
        return f"list of {count}{_plain_type(items, plural=True)}"
    if kind == "object" and schema["additionalProperties"] is True:  # of any values
        return "tables" if plural else "table"
    if kind == "object":
        return f"table of {_plain_type(schema['additionalProperties'], plural=True)}"
    limits = "".join(_limits(schema))
    return f"{kind}s{limits}" if plural else f"{kind}{limits}"


def _limits(schema: Mapping[str, Any]) -> Iterator[str]:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    yield from (f", {sign} {_number(schema[limit])}" for limit, sign in signs.items() if limit in schema)
    if "maxLength" in schema:
        yield f", at most {schema['maxLength']:,} characters"


def _number(value: float) -> str:
    """Return a number; a large power of two as one."""
    if abs(value) >= 1 << 20 and math.log2(abs(value)).is_integer():
        return f"{'−' if value < 0 else ''}2^{int(math.log2(abs(value)))}"
    return f"{value:g}"


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value is PydanticUndefined:
        return "unset"
    if isinstance(value, BaseModel):
        return f"`{_toml(value.model_dump()['type'])}`"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """Return a value as a recipe has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (int, float)):
        return f"{value:_}"
    return {"()": "[]"}.get(repr(value), repr(value))


@cache
def _field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings below the fields of one class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(statement.target, ast.Name)
            texts[statement.target.id] = " ".join(str(ast.literal_eval(following.value)).split())
    return texts


if __name__ == "__main__":
    sys.stdout.write(reference())
