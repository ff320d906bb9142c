"""Writes the reference of the Python names that a notebook or a training loop needs, from their docstrings.

python docs/python_reference.py > docs/python-reference.md
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

NAMES = {
    "colophon": ("open", "load_recipe", "run"),
    "colophon.shards.run_output": ("RunOutput",),
    "colophon.shards.reader": ("PackedDataset", "PackedRows"),
    "colophon.torch": (
        "PackedDataset",
        "TrainingDataset",
        "PackedIterableDataset",
        "collate_for_transformers",
        "collate_varlen",
    ),
}
_HEAD = """# Python reference

`make docs` writes this page from the docstrings. Reading a run needs neither Ray nor torch.

```python
import colophon

run = colophon.open("out/web")
print(run.annotations().group_by("url_host").len().collect())  # polars
rows = run.packed("prepend-url").rows([0, 1])
print(rows.input_ids.shape, rows.loss_weights(run.packed("prepend-url").role_weights).sum())
```
"""
_SECTIONS = re.compile(r"^(Args|Returns|Raises|Yields):\n((?:(?: {4}.*)?\n?)+)", re.MULTILINE)


def reference() -> str:
    """Return `docs/python-reference.md`."""
    return "\n".join([_HEAD, *_entries()])


def _entries() -> Iterator[str]:
    for module_name, names in NAMES.items():
        module = importlib.import_module(module_name)
        for name in names:
            found = getattr(module, name)
            yield f"## {module_name}.{name}\n"
            yield _described(name, found)
            if inspect.isclass(found):
                yield from _members(found)


def _members(of: type[Any]) -> Iterator[str]:
    """Return the fields of a dataclass, and the public methods and properties of a class in the order of its source."""
    if is_dataclass(of):
        yield f"Fields: {', '.join(f'`{field.name}` ({_escaped(field.type)})' for field in fields(of))}.\n"
    for name, member in vars(of).items():
        function = getattr(member, "__func__", member)
        is_property = isinstance(member, property) or hasattr(member, "func")
        if name.startswith("_") or not (is_property or inspect.isfunction(function)):
            continue
        yield f"### {of.__name__}.{name}\n"
        yield _text(inspect.getdoc(member)) if is_property else _described(name, function)


def _described(name: str, found: Any) -> str:
    """Return the signature, unless a dataclass's fields give it, and the docstring."""
    text = _text(inspect.getdoc(found))
    return text if is_dataclass(found) else f"```\n{_signature(name, found)}\n```\n\n{text}"


def _signature(name: str, function: Any) -> str:
    """Return the call with types and defaults: in one line, or in one for each parameter."""
    signature = inspect.signature(function)
    parts, star = [], False
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        default = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
        parts.append(f"{parameter.name}: {parameter.annotation}{default}")
    returned = "" if inspect.isclass(function) else f" -> {signature.return_annotation}"
    line = f"{name}({', '.join(parts)}){returned}"
    lines = "".join(f"    {part},\n" for part in parts)
    return line if len(line) <= 100 else f"{name}(\n{lines}){returned}"


def _default(value: Any) -> str:
    if callable(value):
        return "..."
    return repr(value.value if isinstance(value, Enum) else value)


def _text(docstring: str | None) -> str:
    """Return a docstring as Markdown: its sections are lists, its indented examples blocks."""
    text = _SECTIONS.sub(lambda found: f"{found[1]}:\n\n{_items(found[2])}\n", f"{docstring or ''}\n")
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _items(block: str) -> str:
    entries = re.split(r"\n(?= {4}\S)", f"\n{block.rstrip()}")[1:]
    joined = (" ".join(entry.split()) for entry in entries)
    return "\n".join(re.sub(r"^(\*{0,2}\w+): ", r"- `\1`: ", entry) for entry in joined) + "\n"


def _escaped(kind: Any) -> str:
    return f"`{kind}`" if isinstance(kind, str) else f"`{kind.__name__}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
