"""The documents of one distribution: its modules' docstrings, its description, and the text files beside its code."""

from __future__ import annotations

import ast
import gc
import multiprocessing
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import cleandoc
from itertools import chain
from pathlib import PurePosixPath
from urllib.parse import quote

from colophon.pipeline.demo.distributions import MAX_FILE_BYTES, Distribution
from colophon.pipeline.demo.prose import MAX_DOCUMENT_CHARS, clip, digest, plain, prose_share, split_changelog, tidy

MIN_DOCUMENT_CHARS = 400
MAX_SOURCE_BYTES = 8_000_000
"""Python source read of one distribution, in an order that a hash of the path gives."""
MAX_LICENCES = 4
MAX_REPEATS = 3
"""A docstring that a distribution has more often than this is boilerplate."""
HIGH_PROSE, LOW_PROSE = 0.7, 0.3
"""Shares of characters in running sentences from which a module is "high", and up to which it is "low"."""
REMARK_CHARS = 90
"""A module whose docstrings are shorter than this on average has remarks, not documentation: "low"."""
_SKIPPED_FOLDERS = re.compile(
    r"(^|/)(tests?|idle_test|testing|_?vendor(ed)?|externals?|third_?party(_files)?|_bundled|(site|dist)-packages)/"
)
_LICENCE = re.compile(r"(?i)^(licen[cs]e|copying|notice)")
# Pages of the library reference: those of all top-level modules but these, and of these submodules.
_PAGELESS = re.compile(
    r"_.*|antigravity|encodings|genericpath|idlelib|lib2to3|ntpath|nturl2path|opcode|posixpath|pydoc_data|sre_.*|this"
    r"|turtledemo|.*\..*"
)
_SUBMODULE_PAGES = re.compile(
    r"concurrent\.futures|curses\.(ascii|panel)|html\.(entities|parser)|http\.(client|cookiejar|cookies|server)"
    r"|email\.(charset|contentmanager|encoders|errors|generator|header|headerregistry|iterators|message|mime|parser"
    r"|policy|utils)|importlib\.(metadata|resources)|logging\.(config|handlers)|multiprocessing\.shared_memory"
    r"|tkinter\.(colorchooser|dnd|font|messagebox|scrolledtext|ttk)|unittest\.mock"
    r"|urllib\.(error|parse|request|robotparser)|xml\.(dom|dom\.minidom|dom\.pulldom|etree\.ElementTree|sax|sax\.handler)"
    r"|xmlrpc\.(client|server)"
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text, where it comes from, and the labels that its source gives it."""

    text: str
    url: str
    file_path: str
    package: str
    topic: str | None
    quality: str | None


@dataclass(frozen=True, kw_only=True)
class _Collected:
    documents: tuple[Document, ...]
    num_unreadable_files: int


_Sections = list[tuple[str, str]]
"""Names below the module (empty for the module itself) and their docstrings."""


def collect(tasks: list[Distribution], *, num_workers: int, max_documents: int | None) -> list[_Collected]:
    """The documents of all distributions, parsed by `num_workers` processes, whose number changes nothing."""
    if num_workers == 1:
        return _take(map(_documents_of, tasks), max_documents)
    # spawn, not fork: the caller may run threads (pyarrow, polars, Ray)
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return _take(pool.map(_documents_of, tasks), max_documents)
        finally:
            pool.shutdown(cancel_futures=True)


def _take(parts: Iterable[_Collected], max_documents: int | None) -> list[_Collected]:
    taken: list[_Collected] = []
    num_documents = 0
    for part in parts:
        taken.append(part)
        num_documents += len(part.documents)
        if max_documents is not None and num_documents >= max_documents:
            break
    return taken


def _documents_of(distribution: Distribution) -> _Collected:
    with _collector_paused():
        modules, num_unreadable = _modules(distribution)
    repeats = Counter(text for _, sections in modules for _, text in sections)
    documents: list[Document] = []
    for path, sections in modules:
        own = [(name, text) for name, text in sections if repeats[text] <= MAX_REPEATS]
        documents += _module_documents(distribution, path, own)
    if distribution.readme_url is not None:
        documents += _description_documents(distribution, distribution.readme_url)
        files, num_undecodable = _file_documents(distribution, distribution.readme_url)
        documents += files
        num_unreadable += num_undecodable
    kept = tuple(d for d in documents if len(d.text) >= MIN_DOCUMENT_CHARS)
    return _Collected(documents=kept, num_unreadable_files=num_unreadable)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Syntax trees are many small objects without cycles: looking for cycles in them took a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _modules(distribution: Distribution) -> tuple[list[tuple[str, _Sections]], int]:
    """Path and sections of the modules that have docstrings; the number of files that do not parse."""
    modules, num_bytes, num_unreadable = [], 0, 0
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
            sections = list(_sections(source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deep for the parser
            num_unreadable += 1
            continue
        modules.append((path, sections))
    return modules, num_unreadable


def _is_module(path: str) -> bool:
    *folders, file = path.split("/")
    named = all(name.isidentifier() for name in (*folders, file.removesuffix(".py")))
    tested = file.startswith(("test_", "conftest")) or file.endswith(("_test.py", "_pb2.py", "_pb2_grpc.py"))
    return file.endswith(".py") and named and not tested and not _SKIPPED_FOLDERS.search(path)


def _module_name(path: str) -> str:
    return ".".join(part for part in path.removesuffix(".py").split("/") if part != "__init__")


def _sections(source: bytes) -> Iterator[tuple[str, str]]:
    """Names and docstrings worth reading, in the order of the source."""
    if b'"""' not in source and b"'''" not in source:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's code
        tree = ast.parse(source)
    for name, docstring in chain([("", ast.get_docstring(tree, clean=False))], _docstrings(tree, ())):
        text = tidy(cleandoc(docstring or ""))
        if _is_worth_reading(text):
            yield name, text


def _docstrings(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """Of functions and classes, those under `if` and `try` included, those inside functions not."""
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


def _module_documents(distribution: Distribution, path: str, sections: _Sections) -> Iterator[Document]:
    is_standard = distribution.documentation_url is None
    module = _module_name(path)
    for number, part in enumerate(_parts(sections)):
        text = "\n\n".join(f"{name}\n\n{text}" if name else text for name, text in part)
        yield Document(
            text=clip(f"{module}\n\n{text}"),
            url=_module_url(distribution, path, anchor=f"{module}.{part[0][0]}" if number else module),
            file_path=f"{distribution.root.name}/{path}" if is_standard else path,
            # the standard library is many packages to the split of the labels
            package=module.split(".")[0] if is_standard else distribution.name,
            topic=distribution.topic,
            quality=_module_quality([text for _, text in part]),
        )


def _parts(sections: _Sections) -> Iterator[_Sections]:
    part: _Sections = []
    size = 0
    for name, text in sections:
        if part and size + len(text) > MAX_DOCUMENT_CHARS:
            yield part
            part, size = [], 0
        part.append((name, text))
        size += len(name) + len(text) + 4
    if part:
        yield part


def _module_quality(texts: list[str]) -> str | None:
    prose = prose_share("\n".join(texts))
    if prose <= LOW_PROSE or sum(map(len, texts)) < REMARK_CHARS * len(texts):
        return "low"
    return "high" if prose >= HIGH_PROSE else None


def _module_url(distribution: Distribution, path: str, *, anchor: str) -> str:
    if distribution.documentation_url is not None:
        return f"{distribution.documentation_url}#{anchor}"
    module = _module_name(path)
    fragment = f"#{anchor}" if anchor != module else ""
    branch = f"{sys.version_info.major}.{sys.version_info.minor}"
    if _SUBMODULE_PAGES.fullmatch(module) or not _PAGELESS.fullmatch(module):
        return f"https://docs.python.org/{branch}/library/{module.lower()}.html{fragment}"
    return f"https://github.com/python/cpython/blob/{branch}/Lib/{path}{fragment}"


def _description_documents(distribution: Distribution, url: str) -> Iterator[Document]:
    readme, changelog = split_changelog(plain(distribution.description))
    for text, anchor, quality in ((readme, "", "high"), (changelog, "changelog", "low")):
        yield Document(
            text=clip(text),
            url=f"{url}#{anchor}" if anchor else url,
            file_path=distribution.metadata_path,
            package=distribution.name,
            topic=distribution.topic,
            quality=quality,
        )


def _file_documents(distribution: Distribution, url: str) -> tuple[list[Document], int]:
    documents, num_unreadable, num_licences = [], 0, 0
    for path in distribution.files:
        is_licence = _is_licence(path)
        if not (_is_guide(path) or (is_licence and num_licences < MAX_LICENCES)):
            continue
        try:
            text = (distribution.root / path).read_bytes()[:MAX_FILE_BYTES].decode("utf-8")
        except OSError:
            continue
        except UnicodeDecodeError:
            num_unreadable += 1
            continue
        num_licences += is_licence
        text = clip(tidy(text) if is_licence else plain(text))
        documents.append(
            Document(
                text=text,
                url=f"{url}#{quote(_file_anchor(path))}",
                file_path=path,
                package=distribution.name,
                topic=distribution.topic,
                quality="low" if is_licence else "high",
            )
        )
    return documents, num_unreadable


def _is_licence(path: str) -> bool:
    file = PurePosixPath(path)
    return ".dist-info" in file.parts[0] and file.suffix != ".py" and _LICENCE.match(file.name) is not None


def _is_guide(path: str) -> bool:
    file = PurePosixPath(path)
    inside = ".dist-info" not in file.parts[0] and not _SKIPPED_FOLDERS.search(path)
    return inside and file.suffix.lower() in (".md", ".rst") and "template" not in path


def _file_anchor(path: str) -> str:
    return re.sub(r"^[^/]*\.dist-info/(licenses/)?", "", path)
