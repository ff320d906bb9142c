"""The docstrings of the modules of one distribution, parsed without importing them."""

from __future__ import annotations

import ast
import gc
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import cleandoc
from itertools import chain
from typing import TypeAlias

from colophon.pipeline.demo.distributions import MAX_FILE_BYTES, Distribution
from colophon.pipeline.demo.prose import digest, tidy

MAX_SOURCE_BYTES = 8_000_000
"""Python source read of one distribution, in an order by a hash of the path."""
SKIPPED_FOLDERS = re.compile(
    r"(^|/)(tests?|idle_test|testing|_?vendor(ed)?|externals?|third_?party(_files)?|_bundled|(site|dist)-packages)/"
)

Sections: TypeAlias = list[tuple[str, str]]
"""Names below the module (empty for the module itself) and their docstrings."""


def documented_modules(distribution: Distribution) -> tuple[list[tuple[str, Sections]], int]:
    """The path and sections of each module, and the number of files that cannot be parsed."""
    modules: list[tuple[str, Sections]] = []
    num_bytes, num_unreadable = 0, 0
    with _collector_paused():
        for path in sorted(filter(_is_module, distribution.files), key=digest):
            try:
                source = (distribution.root / path).read_bytes()
            except OSError:
                continue
            if len(source) > MAX_FILE_BYTES:
                continue
            num_bytes += len(source)
            if num_bytes > MAX_SOURCE_BYTES:
                break
            try:
                modules.append((path, list(_sections(source))))
            except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: too deeply nested to parse
                num_unreadable += 1
    return modules, num_unreadable


def _is_module(path: str) -> bool:
    *folders, file = path.split("/")
    named = all(name.isidentifier() for name in (*folders, file.removesuffix(".py")))
    tested = file.startswith(("test_", "conftest")) or file.endswith(("_test.py", "_pb2.py", "_pb2_grpc.py"))
    return file.endswith(".py") and named and not tested and not SKIPPED_FOLDERS.search(path)


def module_name(path: str) -> str:
    """`json/__init__.py` → `json`, `http/client.py` → `http.client`."""
    return ".".join(part for part in path.removesuffix(".py").split("/") if part != "__init__")


def _sections(source: bytes) -> Iterator[tuple[str, str]]:
    """The names and docstrings that are long enough to read, in the order of the source."""
    if b'"""' not in source and b"'''" not in source:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the source
        tree = ast.parse(source)
    for name, docstring in chain([("", ast.get_docstring(tree, clean=False))], _docstrings(tree, ())):
        text = tidy(cleandoc(docstring or ""))
        if _is_worth_reading(text):
            yield name, text


def _docstrings(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """The docstrings of functions and classes, also under `if`, `try` and `with`, but not inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not re.fullmatch(r"__(?!init__|call__|new__)\w+__", child.name):
                yield ".".join((*path, child.name)), ast.get_docstring(child, clean=False)
            if isinstance(child, ast.ClassDef):
                yield from _docstrings(child, (*path, child.name))
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _docstrings(child, path)


def _is_worth_reading(text: str) -> bool:
    signature_only = re.fullmatch(r"[\w.]+\([^\n]*\)(\s*->[^\n]*)?", text) is not None
    return len(text.split()) >= 4 and len(text) >= 25 and not signature_only


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Syntax trees are many small objects without cycles: the search for cycles took a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
