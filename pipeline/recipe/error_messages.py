"""pydantic's errors as one line: `recipe.toml: pack.nope: unknown key; available: method, seed, sequence_length`.

The line names the file, the key and, where there are any, the choices. A key that was renamed is reported by its new
name: a model lists such keys in a class variable, `renamed_keys: ClassVar[dict[str, str]] = {"old": "new"}`.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from colophon.pipeline.errors import UsageError
from colophon.shards.common.errors import did_you_mean

Model = TypeVar("Model", bound=BaseModel)
Location = Sequence[int | str]
"""The path to a value in pydantic's errors: keys, list indices and the tags of unions."""

_TOML_TYPES = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "table"),
    **dict.fromkeys(("list_type", "tuple_type"), "list"),
}
"""The TOML type that pydantic's errors of these types ask for."""
_SUBJECT = re.compile(r"^(Input|String|List|Tuple|Dictionary) should ")


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
        return model.model_validate(data)
    except ValidationError as error:
        first, *others = error.errors()
        keys = [*_recipe_keys(first, data)]
        # Of a value that may be of several types, such as a boolean or one of some names, each type has an error.
        alternatives = [each for each in others if [*_recipe_keys(each, data)] == keys]
        message = (
            ", or ".join(_message(each, model) for each in (*alternatives, first)) + _got(first) + _keys(first, model)
        )
        key = ".".join(str(part) for part in (*under, *keys))
        raise UsageError(f"{where}: {key}: {message}") from None


def choices(names: Iterable[str]) -> str:
    """The sorted names, separated by commas; `none` without names."""
    return ", ".join(sorted(names)) or "none"


def _recipe_keys(error: Any, data: Any) -> Iterator[int | str]:
    """The place of an error without the tags that pydantic inserts for members of a union: only keys of the recipe."""
    location = error["loc"]
    for i, part in enumerate(location):
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            # Not in the data: the tag of a union, except in last place, where it may be the missing key itself.
            if i < len(location) - 1 or error["type"] != "missing":
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
    if kind in _TOML_TYPES:
        return f"must be a {_TOML_TYPES[kind]}"
    if kind in ("bool_type", "bool_parsing"):
        return "must be true or false"
    return _SUBJECT.sub("must ", error["msg"]).removeprefix("Value error, ")


def _got(error: Any) -> str:
    """The end of a message that shows the value, unless it is in the message, or is of no interest."""
    value = error["input"]
    if error["type"] == "extra_forbidden":
        return ""
    # A URL is not repeated: it may hold a secret.
    is_new_text = isinstance(value, str) and "://" not in value and repr(value) not in error["msg"]
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


def _type_at(annotation: Any, location: Location) -> Any:
    for part in location:
        annotation = _type_of_member(annotation, part)
    return annotation


def _type_of_member(annotation: Any, part: int | str) -> Any:
    """The type of the member `part` of a type: a field, a dict's value, a tuple's, or the union member of that tag."""
    if _is_model(annotation):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field is not None else None
    if typing.get_origin(annotation) is dict:
        return typing.get_args(annotation)[1]
    if isinstance(part, int):  # of a list or a tuple, or of a union with one
        kinds = (annotation, *typing.get_args(annotation))
        return next((typing.get_args(kind)[0] for kind in kinds if typing.get_origin(kind) in (list, tuple)), None)
    members = _member_models(annotation)
    tagged = [member for member in members if part in _tags(member)]
    if tagged:
        return tagged[0]
    return _type_of_member(members[0], part) if members else None


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
