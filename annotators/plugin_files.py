"""Annotators in a Python file of the user: its bytes become a module, in the driver and in every worker process.

The module's name has a hash of path and bytes. So a worker whose machine has no such file imports the code that the
driver read, pickle finds the classes in it by their names, and an edited file is a different module in the same
process. Reading a file runs nothing; `PluginFile.module` runs it.
"""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib.util import decode_source
from inspect import isabstract
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from colophon.annotators.base import AnnotatorConfig, AnnotatorError
from colophon.shards.common.errors import with_place

MODULE_PREFIX = "colophon_plugin_"
MAX_PLUGIN_BYTES = 1 << 20
"""A plugin is sent to every worker; a larger file is no source code of a person."""


@dataclass(frozen=True)
class PluginFile:
    """A file of Python code that defines annotators."""

    name: str
    """The file as the recipe names it."""
    path: str
    """The absolute path on the machine that read it; tracebacks show it."""
    source: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """sha256 of the bytes, in hexadecimal."""
        return sha256(self.source).hexdigest()

    @property
    def module_name(self) -> str:
        """The name of its module: `colophon_plugin_`, a hash, and the file's name in plain characters."""
        digest = sha256(f"{self.path}\0{self.sha256}".encode(errors="surrogateescape")).hexdigest()
        return f"{MODULE_PREFIX}{digest[:32]}_{re.sub(r'[^0-9A-Za-z]', '_', Path(self.name).stem)}"

    def module(self) -> ModuleType:
        """Run the file, once in each process, and return its module.

        Raises:
            AnnotatorError: the file raised an error, or is no Python; the line names the place.
        """
        if self.module_name in sys.modules:
            return sys.modules[self.module_name]
        module = ModuleType(self.module_name)
        module.__file__ = self.path
        self._show_lines_in_tracebacks()
        sys.modules[self.module_name] = module  # pydantic and dataclasses read it while classes are defined
        try:
            exec(compile(self.source, self.path, "exec", dont_inherit=True), module.__dict__)
        except BaseException as error:
            del sys.modules[self.module_name]
            if isinstance(error, Exception | SystemExit):
                raise AnnotatorError(f"{self.name}: {with_place(error, file=self.path)}") from error
            raise
        return module

    def types(self) -> Mapping[str, type[AnnotatorConfig]]:
        """The annotators that the file defines, by name; runs the file.

        Raises:
            AnnotatorError: see `module`; or it defines none, one without a name, or two of one name.
        """
        module = self.module()
        found: dict[str, type[AnnotatorConfig]] = {}
        for config in vars(module).values():
            if not is_annotator_type(config) or config.__module__ != self.module_name:
                continue
            name = getattr(config, "type_name", None)
            if not isinstance(name, str) or not name:
                raise AnnotatorError(f"{self.name}: {config.__name__} needs a type_name, the name that recipes use")
            if found.setdefault(name, config) is not config:
                both = f"{found[name].__name__} and {config.__name__}"
                raise AnnotatorError(f"{self.name}: {both} both have the type_name {name!r}")
        if not found:
            raise AnnotatorError(f"{self.name}: defines no annotator: no subclass of AnnotatorConfig with build()")
        return found

    def _show_lines_in_tracebacks(self) -> None:
        """Give `linecache` the lines that run: a worker has no such file, and the driver's may be edited meanwhile."""
        with suppress(SyntaxError, UnicodeDecodeError):
            lines = decode_source(self.source).splitlines(keepends=True)
            linecache.cache[self.path] = (len(self.source), None, lines, self.path)


def is_annotator_type(value: object) -> TypeGuard[type[AnnotatorConfig]]:
    """Whether a value is the config of an annotator, not a base class of configs."""
    return isinstance(value, type) and issubclass(value, AnnotatorConfig) and not isabstract(value)


@dataclass(frozen=True)
class PluginModules:
    """Plugin files whose modules are imported where this is unpickled, before what follows it in the pickle."""

    files: tuple[PluginFile, ...]

    def __reduce__(self) -> tuple[object, ...]:
        """Import the modules when unpickled."""
        return _imported, (self.files,)


class ImportsPlugins:
    """A mix-in for a dataclass with `plugins`, whose modules are imported where it is unpickled, before its fields."""

    plugins: tuple[PluginFile, ...]

    def __getstate__(self) -> dict[str, object]:
        return {"modules": PluginModules(self.plugins), **vars(self)}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update({name: value for name, value in state.items() if name != "modules"})


def _imported(files: tuple[PluginFile, ...]) -> PluginModules:
    for file in files:
        file.module()
    return PluginModules(files)
