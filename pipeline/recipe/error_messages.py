"""pydantic's errors as one line: `recipe.toml: pack.nope: unknown key; available: method, seed, sequence_length`.

The line names the file, the key and, where there are any, the choices. A key that was renamed is reported by its new
name: a model lists such keys in a class variable, `renamed_keys: ClassVar[dict[str, str]] = {"old": "new"}`.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from colophon.pipeline.errors import UsageError
from colophon.shards.common.errors import did_you_mean

Model = TypeVar("Model", bound=BaseModel)
Location = Sequence[int | str]
"""The path to a value in pydantic's errors: keys, list indices and the tags of unions."""
_ADDRESS = re.compile("://|:[^@]*@")

_EXPECTED = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "a table"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    "string_type": "a string",
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("date_type", "date_parsing"), "a date, such as 2026-01-31"),
    **dict.fromkeys(("date_from_datetime_parsing", "date_from_datetime_inexact"), "a date, such as 2026-01-31"),
}
"""The types that pydantic's errors ask for, in TOML's words."""
_SUBJECT = re.compile(r"^(Input|String|List|Tuple|Dictionary) should ")
_QUOTED = re.compile(r"'([^']*)'")
_KEY = "[key]"
"""The last part of pydantic's location of a key of a table."""


def validated(model: type[Model], data: Mapping[str, Any], *, where: str, under: tuple[str, ...] = ()) -> Model:
    """Validate `data` as a `model`.

    Args:
        model: the model of a recipe or of a section.
        data: the table.
        where: the file that the error names.
        under: the keys above the table, for the error.

    Raises:
        UsageError: one line for the first error that pydantic finds.
    """
    try:
        found = model.model_validate(data)
    except ValidationError as error:
        keys, message = _described(error.errors(), data, model)
    else:
        keys = next(_booleans_as_numbers(data, found), ())
        if not keys:
            return found
        message = "must be a number, not true or false"
    raise UsageError(f"{where}: {'.'.join(str(part) for part in (*under, *keys))}: {message}") from None


def value_problem(error: ValidationError) -> str:
    """The message of the first error of a single value, such as an option's: `must be a whole number, got 'x'`."""
    first = error.errors()[0]
    return _message(first, BaseModel) + _got(first)


def choices(names: Iterable[str]) -> str:
    """The sorted names, separated by commas; `none` without names."""
    return ", ".join(sorted(names)) or "none"


def _described(errors: Sequence[Any], data: Any, model: type[BaseModel]) -> tuple[Location, str]:
    """The keys of the first error's value, and the message."""
    first, *others = errors
    keys = [*_recipe_keys(first, data)]
    if first["type"] == "missing" and isinstance(keys[-1], int):  # of a list of fixed length
        return keys[:-1], f"must be a list of {_num_items(model, first['loc'][:-1])}, got {keys[-1]}"
    # Of a value that may be of several types, such as a boolean or one of some names, each type has an error.
    alternatives = [each for each in (*others, first) if [*_recipe_keys(each, data)] == keys]
    of_key = next((each for each in alternatives if each["loc"][-1:] == (_KEY,)), None)
    if of_key is not None and of_key["type"] == "literal_error":
        return keys, f"unknown key; available: {choices(_QUOTED.findall(of_key['ctx']['expected']))}"
    texts = dict.fromkeys(_message(each, model) for each in alternatives)
    if {"must be a number", "must be a finite number"} & {*texts}:
        texts.pop("must be a whole number", None)
    start, *more = texts
    message = ", or ".join([start, *(text.removeprefix("must be ") for text in more)])
    return keys, message + _got(first) + _keys(first, model)


def _booleans_as_numbers(data: Any, found: Any) -> Iterator[tuple[int | str, ...]]:
    """The keys of each boolean in `data` that pydantic has read as 0 or 1."""
    if isinstance(data, bool):
        yield from [()] if type(found) in (int, float) else []
    elif isinstance(data, Mapping):
        values = found if isinstance(found, Mapping) else getattr(found, "__dict__", {})
        for key, inner in data.items():
            yield from ((key, *keys) for keys in _booleans_as_numbers(inner, values.get(key)))
    elif isinstance(data, list) and isinstance(found, list | tuple) and len(data) == len(found):
        for number, (inner, value) in enumerate(zip(data, found, strict=True)):
            yield from ((number, *keys) for keys in _booleans_as_numbers(inner, value))


def _recipe_keys(error: Any, data: Any) -> Iterator[int | str]:
    """The place of an error without the tags that pydantic inserts for members of a union: only keys of the recipe."""
    location = error["loc"]
    for i, part in enumerate(location):
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            # Not in the data: the tag of a union, except in last place, where it may be the missing key itself.
            if i < len(location) - 1 or not error["type"].startswith("missing"):
                continue
        yield part


def _message(error: Any, model: type[BaseModel]) -> str:
    kind, location = error["type"], error["loc"]
    if kind == "extra_forbidden":
        return _unknown_key(model, location)
    if kind == "missing":
        return "is required"
    if kind.startswith("union_tag"):
        return _unknown_tag(error, model)
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}"
    if kind in ("too_short", "too_long"):
        least, most = error["ctx"].get("min_length"), error["ctx"].get("max_length")
        number, end = (least, "least") if kind == "too_short" else (most, "most")
        return f"must have at {end} {number:,} item{'s' if number != 1 else ''}"
    return _SUBJECT.sub("must ", error["msg"]).removeprefix("Value error, ")


def _got(error: Any) -> str:
    """The end of a message that shows the value, or its type, unless it is in the message, or is of no interest."""
    value, kind = error["input"], error["type"]
    if kind in ("extra_forbidden", "secret"):
        return ""
    if isinstance(value, bool):
        return f", got {str(value).lower()}"
    if isinstance(value, list | dict):
        is_asked_for = kind in _EXPECTED or kind == "literal_error"
        return f", got a {'list' if isinstance(value, list) else 'table'}" if is_asked_for else ""
    if isinstance(value, date | time):
        return f", got {value}"
    # A URL, or an address with a user, is not repeated: it may hold a secret.
    is_new_text = isinstance(value, str) and not _ADDRESS.search(value) and repr(value) not in error["msg"]
    return f", got {value!r}" if is_new_text or isinstance(value, int | float) else ""


def _keys(error: Any, model: type[BaseModel]) -> str:
    """The end of a message on a value that should be a table: the table's keys."""
    table = _table_model(model, error["loc"]) if error["type"] == "model_type" else None
    return f"; its keys: {choices(table.model_fields)}" if table else ""


def _unknown_key(model: type[BaseModel], location: Location) -> str:
    key = str(location[-1])
    table = _table_model(model, location[:-1])
    renamed: Mapping[str, str] = getattr(table, "renamed_keys", {})
    if key in renamed:
        return f"renamed to {renamed[key]}"
    sections = _sections_with(_type_at(model, location[:-1]), key)
    known = table.model_fields if table else {}
    message = f"unknown key; it belongs in {' or '.join(sections)}" if sections else "unknown key"
    guess = "" if sections else did_you_mean(key, known)
    return f"{message}; available: {choices(known)}{guess}" if table else message


def _unknown_tag(error: Any, model: type[BaseModel]) -> str:
    key, value = error["ctx"]["discriminator"].strip("'"), error["ctx"].get("tag")
    members = _member_models(_type_at(model, error["loc"]))
    known = [tag for member in members for tag in typing.get_args(member.model_fields[key].annotation)]
    message = f"{key} is required" if value is None else f"unknown {key} {value!r}"
    return f"{message}; available: {choices(known)}{did_you_mean(str(value or ''), known)}"


def _table_model(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model of the table at `location`; None where several are possible."""
    models = _models_in(_type_at(model, location))
    return models[0] if len(models) == 1 else None


def _sections_with(annotation: Any, key: str) -> list[str]:
    """The keys of a table whose values are tables, or lists of tables, that may have `key`."""
    fields = annotation.model_fields.items() if _is_model(annotation) else ()
    return [name for name, field in fields if any(key in m.model_fields for m in _models_in(field.annotation))]


def _num_items(model: type[BaseModel], location: Location) -> int:
    """The number of items of the list of fixed length at `location`."""
    kinds = _alternatives(_type_at(model, location))
    return next(len(typing.get_args(kind)) for kind in kinds if typing.get_origin(kind) is tuple)


def _type_at(annotation: Any, location: Location) -> Any:
    for part in location:
        if not (isinstance(part, str) and part.endswith("]")):  # the tag of a list or a dict in a union
            annotation = _type_of_member(annotation, part)
    return annotation


def _type_of_member(annotation: Any, part: int | str) -> Any:
    """The type of the member `part` of a type: a field, a dict's value, a tuple's, or the union member of that tag."""
    kinds = _alternatives(annotation)
    tagged = [kind for kind in kinds if _is_model(kind) and part in _tags(kind)]
    members = tagged or (_member(kind, part) for kind in kinds)
    return next((member for member in members if member is not None), None)


def _member(kind: Any, part: int | str) -> Any:
    if _is_model(kind):
        field = kind.model_fields.get(str(part))
        return field.annotation if field is not None else None
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(part, int):
        return arguments[0] if origin in (list, tuple) else None
    return arguments[1] if origin is dict else None


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, and of unions in it; the type itself if it is none."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [kind for member in typing.get_args(annotation) for kind in _alternatives(member)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The type itself if it is a model, else the models of a union."""
    return [annotation] if _is_model(annotation) else _member_models(annotation)


def _member_models(annotation: Any) -> list[type[BaseModel]]:
    """The models in the brackets of a type, one level of brackets inside them included: `list[A] | B` gives A and B."""
    members = (m for argument in typing.get_args(annotation) for m in (typing.get_args(argument) or (argument,)))
    return [member for member in members if _is_model(member)]


def _tags(model: type[BaseModel]) -> set[Any]:
    """The names by which pydantic's error locations tell apart the members of a union: class name, literal values."""
    literals = (field.annotation for field in model.model_fields.values())
    values = {v for a in literals if typing.get_origin(a) is Literal for v in typing.get_args(a)}
    return {model.__name__, *values}
