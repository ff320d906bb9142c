"""The documents of a distribution: its modules' docstrings, its description, and the text files beside its code."""

from __future__ import annotations

import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from colophon.pipeline.demo.distributions import MAX_FILE_BYTES, Distribution
from colophon.pipeline.demo.docstrings import SKIPPED_FOLDERS, Sections, documented_modules, module_name
from colophon.pipeline.demo.prose import MAX_DOCUMENT_CHARS, clip, plain, prose_share, split_changelog, tidy

MIN_DOCUMENT_CHARS = 400
MAX_LICENCES = 4
MAX_REPEATS = 3
"""A docstring that occurs more often than this in a distribution is boilerplate."""
HIGH_PROSE, LOW_PROSE = 0.7, 0.3
"""Shares of characters in running sentences: a module with at least 0.7 is "high", with at most 0.3 "low"."""
REMARK_CHARS = 90
"""A module whose docstrings are shorter than this on average is "low": it has remarks, not documentation."""
_LICENCE = re.compile(r"(?i)^(licen[cs]e|copying|notice)")
# The library reference has pages for all top-level modules except `_PAGELESS`, and for `_SUBMODULE_PAGES`.
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
    """A text, its origin, and the labels that its source gives it."""

    text: str
    url: str
    file_path: str
    package: str
    topic: str | None
    quality: str | None


@dataclass(frozen=True, kw_only=True)
class CollectedDocuments:
    """The documents of one distribution."""

    documents: tuple[Document, ...]
    num_unreadable_files: int


def collect(tasks: list[Distribution], *, num_workers: int, max_documents: int | None) -> list[CollectedDocuments]:
    """The documents of each distribution, parsed by `num_workers` processes; their number changes nothing.

    Once there are `max_documents` the remaining distributions are skipped.
    """
    if num_workers == 1:
        return _until_enough(map(_documents_of, tasks), max_documents)
    # spawn, not fork: the caller may have threads (pyarrow, polars, Ray)
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return _until_enough(pool.map(_documents_of, tasks), max_documents)
        finally:
            pool.shutdown(cancel_futures=True)


def _until_enough(parts: Iterable[CollectedDocuments], max_documents: int | None) -> list[CollectedDocuments]:
    taken: list[CollectedDocuments] = []
    num_documents = 0
    for part in parts:
        taken.append(part)
        num_documents += len(part.documents)
        if max_documents is not None and num_documents >= max_documents:
            break
    return taken


def _documents_of(distribution: Distribution) -> CollectedDocuments:
    modules, num_unreadable = documented_modules(distribution)
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
    return CollectedDocuments(documents=kept, num_unreadable_files=num_unreadable)


def _module_documents(distribution: Distribution, path: str, sections: Sections) -> Iterator[Document]:
    is_standard = distribution.documentation_url is None
    module = module_name(path)
    for number, part in enumerate(_document_sections(sections)):
        text = "\n\n".join(f"{name}\n\n{text}" if name else text for name, text in part)
        yield Document(
            text=clip(f"{module}\n\n{text}"),
            url=_module_url(distribution, path, anchor=f"{module}.{part[0][0]}" if number else module),
            file_path=f"{distribution.root.name}/{path}" if is_standard else path,
            # for the split of the labels each top-level module of the standard library is a package
            package=module.split(".")[0] if is_standard else distribution.name,
            topic=distribution.topic,
            quality=_module_quality([text for _, text in part]),
        )


def _document_sections(sections: Sections) -> Iterator[Sections]:
    """The sections cut into parts of about `MAX_DOCUMENT_CHARS`, between two docstrings."""
    part: Sections = []
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
    module = module_name(path)
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
    inside = ".dist-info" not in file.parts[0] and not SKIPPED_FOLDERS.search(path)
    return inside and file.suffix.lower() in (".md", ".rst") and "template" not in path


def _file_anchor(path: str) -> str:
    return re.sub(r"^[^/]*\.dist-info/(licenses/)?", "", path)
