"""pydantic's errors as one line with the choices."""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from colophon.pipeline.errors import UsageError, without_secrets

if sys.version_info >= (3, 11):
    pass
else:
    pass

Model = TypeVar("Model", bound=BaseModel)


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
        return f"{said}; available: {choices(known)}" if known else said
    if error["type"] == "missing":
        return "is required"
    if error["type"].startswith("union_tag"):
        key, given = error["ctx"]["discriminator"].strip("'"), error["ctx"].get("tag")
        said = f"{key} is required" if given is None else f"unknown {key} {given!r}"
        return f"{said}; available: {choices(_tags_at(model, error['loc'], key))}"
    shown = error.get("input")
    got = f", got {without_secrets(repr(shown))}" if isinstance(shown, str | int | float | bool) else ""
    if error["type"] in _KINDS:
        known = _fields_at(model, error["loc"]) if error["type"] == "model_type" else []
        return f"must be a {_KINDS[error['type']]}{got}" + (f"; its keys: {choices(known)}" if known else "")
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


def choices(names: typing.Iterable[str]) -> str:
    """The names for an error that lists them."""
    return ", ".join(sorted(names)) or "none"
