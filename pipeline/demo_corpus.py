"""The demo's corpus: documentation of the installed Python packages, as FineWeb-style shards with labels.

Real text that is on any machine with the dependencies installed. Source files are parsed and never imported:

- *modules*: the docstrings of one module under their qualified names, of the installed distributions and of Python's
  standard library; a long module becomes several documents, cut between docstrings;
- *descriptions*: what a distribution's METADATA says about it (its README), and .md/.rst files beside its code;
- *boilerplate*: changelogs that stand at the end of descriptions, and licence files.

A `url` is an address that the project itself names in its metadata (documentation, repository or home page) with the
documented object or the file as its fragment; for the standard library it is the page of the library reference or,
where a module has none, its source file in CPython's repository. Distributions that name no address are left out.

`topic` maps the trove classifiers that a distribution declares onto a few names. `quality` is **a label by source and
by share of prose, for the demonstration only**: no person judged these texts. "high": descriptions, and modules most of
whose characters stand in running sentences. "low": boilerplate, and modules with hardly a sentence (lists of
parameters, examples) or with one-line remarks only. What lies between has no label.

Same distributions, same Python: the same bytes. `date` is therefore no clock but the latest date among the calendar
versions installed (certifi 2026.10.18): the day before which this environment cannot have been put together.

Cost: about 5 MB/s of Python source a process, at most 8 MB of it a distribution.
"""

from __future__ import annotations

import ast
import csv
import email.message
import email.parser
import gc
import hashlib
import json
import multiprocessing
import os
import platform
import re
import sys
import sysconfig
import textwrap
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from inspect import cleandoc
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urldefrag, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UsageError

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("text", "id", "dump", "url", "date", "file_path", "language")]
    + [("language_score", pa.float64()), ("token_count", pa.int64())]
    + [("score", pa.float64()), ("int_score", pa.int64())]
    + [("topic", pa.string()), ("quality", pa.string())]
)
LABEL_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.string())])

RECORD_NAME = "corpus.json"
ROW_GROUP_ROWS = 1000
VALIDATION_SHARE = 0.02
TEST_SHARE = 0.2
MAX_DOCUMENT_CHARS = 10_000
MIN_DOCUMENT_CHARS = 400
MAX_FILE_BYTES = 400_000
MAX_SOURCE_BYTES = 8_000_000
"""Python source read of one distribution, in an order that a hash of the path gives."""
MAX_LICENCES = 4
MAX_REPEATS = 3
"""A docstring that a distribution has more often than this is boilerplate."""
HIGH_PROSE, LOW_PROSE = 0.7, 0.3
"""Shares of characters in running sentences from which a module is "high", and up to which it is "low"."""
REMARK_CHARS = 90
"""A module whose docstrings are shorter than this on average has remarks, not documentation: "low"."""
MAX_LABELLED = 150
"""Documents of one distribution among the labels, so that the largest do not become the label."""

TOPICS = {
    "Topic :: Scientific/Engineering :: Mathematics": "Mathematics & Physics",
    "Topic :: Scientific/Engineering :: Physics": "Mathematics & Physics",
    "Topic :: Scientific/Engineering": "Data & AI",
    "Topic :: Database": "Data & AI",
    "Topic :: Software Development :: Testing": "Testing & Quality",
    "Topic :: Software Development :: Quality Assurance": "Testing & Quality",
    "Framework :: Pytest": "Testing & Quality",
    "Topic :: Internet": "Web & Networking",
    "Topic :: Communications": "Web & Networking",
    "Topic :: System :: Networking": "Web & Networking",
    "Framework :: AnyIO": "Web & Networking",
    "Framework :: AsyncIO": "Web & Networking",
    "Framework :: Django": "Web & Networking",
    "Framework :: Flask": "Web & Networking",
    "Framework :: aiohttp": "Web & Networking",
    "Topic :: Text Processing": "Text & Formats",
    "Topic :: File Formats": "Text & Formats",
    "Topic :: System": "Systems & Security",
    "Topic :: Security": "Systems & Security",
    "Topic :: Terminals": "Systems & Security",
}
"""Topics by classifier prefix. The one most classifiers of a distribution have wins, in a tie the earlier one.

"Software Development" and "Utilities" say nothing here: nearly every distribution is a library of Python modules."""

_SKIPPED_FOLDERS = re.compile(
    r"(^|/)(tests?|idle_test|testing|_?vendor(ed)?|externals?|third_?party(_files)?|_bundled|(site|dist)-packages)/"
)
_DOCUMENTATION_LABELS = ("documentation", "docs", "docsrtd", "doc")
_HOME_LABELS = ("homepage", "home", "website")
_SOURCE_LABELS = ("repository", "source", "sourcecode", "sources", "code", "github", "githubrepo")
_LICENCE = re.compile(r"(?i)^(licen[cs]e|copying|notice)")
_CALENDAR_VERSION = re.compile(r"(20\d\d)\.(\d{1,2})\.(\d{1,2})")
_PYTHON_RELEASES = {10: date(2021, 10, 4), 11: date(2022, 10, 24), 12: date(2023, 10, 2), 13: date(2024, 10, 7)}

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
class DemoCorpus:
    """What `write_demo_corpus` left under `output`; counts are of documents over training and validation files."""

    output: Path
    train_files: tuple[Path, ...]
    validation_file: Path
    label_files: dict[str, Path]
    """`topic_train`, `topic_test`, `quality_train`, `quality_test`: Parquet with columns `text` and `label`."""
    num_documents: int
    num_validation_documents: int
    text_bytes: int
    """Of the texts in UTF-8, before compression."""
    topics: dict[str, int]
    qualities: dict[str, int]
    num_unreadable_files: int
    """Source and text files that were left out because they cannot be parsed or decoded."""
    fingerprint: str
    reused: bool
    """Whether the corpus was already there and nothing was written."""


@dataclass(frozen=True, kw_only=True)
class _Distribution:
    name: str
    version: str
    root: Path
    files: tuple[str, ...]
    """Paths relative to `root`, sorted."""
    metadata_path: str
    description: str
    topic: str | None
    documentation_url: str | None
    """Of the standard library None: each module has its own page. Others without one give no documents."""
    readme_url: str | None


@dataclass(frozen=True, kw_only=True)
class _Document:
    text: str
    url: str
    file_path: str
    package: str
    topic: str | None
    quality: str | None


@dataclass(frozen=True, kw_only=True)
class _Collected:
    documents: tuple[_Document, ...]
    num_unreadable_files: int


_Sections = list[tuple[str, str]]
"""Names below the module (empty for the module itself) and their docstrings."""
_Labelled = list[tuple[_Document, str]]


def write_demo_corpus(
    output: Path,
    *,
    max_documents: int | None = None,
    num_files: int = 4,
    num_workers: int = 2,
    search_paths: Sequence[Path] | None = None,
    stdlib_path: Path | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> DemoCorpus:
    """Write `corpus/train-*.parquet`, `corpus-validation/validation.parquet` and `labels/*.parquet` under `output`.

    Does nothing where `output/corpus.json` names the same environment and settings and its files are there.
    `max_documents` stops early: whole distributions are left out, in an order that a hash of their names gives.
    `search_paths` are folders with `*.dist-info`, `stdlib_path` the folder of the standard library; without both, those
    of the running interpreter. `num_workers` processes parse; their number changes nothing in the result.

    Raises:
        UsageError: the folders hold too little documentation for `num_files` files, or `num_files` is not one.
        OSError: `output` cannot be written.
    """
    if num_files < 1:
        raise UsageError(f"num_files must be at least 1, got {num_files}")
    if search_paths is None and stdlib_path is None:
        search_paths, stdlib_path = _installed_paths(), Path(sysconfig.get_path("stdlib"))
    distributions = _find_distributions(search_paths or [])
    fingerprint = _fingerprint(distributions, stdlib_path, max_documents=max_documents, num_files=num_files)
    if (existing := _existing(output, fingerprint)) is not None:
        report(f"{output} is up to date: {_summary(existing)}")
        return existing
    tasks = _tasks(distributions, stdlib_path)
    report(f"reading the documentation of {len(tasks)} packages")
    collected = _collect(tasks, num_workers=num_workers, max_documents=max_documents)
    documents = _distinct(chain.from_iterable(part.documents for part in collected))[:max_documents]
    if len(documents) < 2 * num_files:
        places = ", ".join(str(path) for path in (*(search_paths or []), stdlib_path) if path is not None)
        raise UsageError(f"too little documentation for {num_files} files: {len(documents)} documents in {places}")
    corpus = _write(
        output,
        documents,
        num_files=num_files,
        snapshot=_snapshot_date(distributions),
        num_unreadable_files=sum(part.num_unreadable_files for part in collected),
        fingerprint=fingerprint,
    )
    report(f"{output}: {_summary(corpus)}")
    return corpus


# --- what is installed -----------------------------------------------------------------------------------------------


def _installed_paths() -> list[Path]:
    names = ("site-packages", "dist-packages")
    return [Path(entry) for entry in dict.fromkeys(sys.path) if Path(entry).name in names]


def _find_distributions(search_paths: Sequence[Path]) -> list[_Distribution]:
    """Sorted by name; the first of equal names wins, as it would on import."""
    found: dict[str, _Distribution] = {}
    for root in search_paths:
        for folder in sorted(root.glob("*.dist-info")):
            distribution = _read_distribution(folder)
            if distribution is not None:
                found.setdefault(distribution.name.lower(), distribution)
    return [found[name] for name in sorted(found)]


def _read_distribution(folder: Path) -> _Distribution | None:
    """None without readable metadata, and for what was installed from a local folder or a repository.

    The text of the latter may change under the same version; an editable install of this project is among them.
    """
    try:
        raw = (folder / "METADATA").read_bytes()[:MAX_FILE_BYTES]
    except OSError:
        return None
    message = email.parser.Parser().parsestr(raw.decode("utf-8", "replace"))
    name = message.get("Name")
    if not name or (folder / "direct_url.json").exists():
        return None
    documentation, home, source = _project_urls(message)
    return _Distribution(
        name=str(name).strip(),
        version=str(message.get("Version", "")).strip(),
        root=folder.parent,
        files=_recorded_files(folder),
        metadata_path=f"{folder.name}/METADATA",
        description=_description(message),
        topic=_topic([str(classifier) for classifier in message.get_all("Classifier", [])]),
        documentation_url=documentation or home or source,
        readme_url=source or home or documentation,
    )


def _description(message: email.message.Message) -> str:
    """The body of METADATA or, before metadata 2.1, the header with its continuation lines indented."""
    body = message.get_payload()
    if isinstance(body, str) and body.strip():
        return body
    return textwrap.dedent(re.sub(r"(?m)^ {7}[ |]", "", str(message.get("Description", ""))))


def _project_urls(message: email.message.Message) -> tuple[str | None, str | None, str | None]:
    """Addresses of the documentation, the home page and the repository, as far as METADATA names them."""
    urls: dict[str, str] = {}
    for entry in message.get_all("Project-URL", []):
        label, _, url = str(entry).partition(",")
        urls.setdefault(re.sub(r"[\W_]+", "", label.lower()), url)
    urls.setdefault("homepage", str(message.get("Home-page", "")))

    def first(labels: tuple[str, ...]) -> str | None:
        return next((url for label in labels if (url := _web_address(urls.get(label, "")))), None)

    return first(_DOCUMENTATION_LABELS), first(_HOME_LABELS), first(_SOURCE_LABELS)


def _web_address(url: str) -> str | None:
    url = urldefrag(url.strip()).url
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and "." in host and not re.search(r"\s", url) else None


def _recorded_files(folder: Path) -> tuple[str, ...]:
    """Files of the distribution below its site-packages, as its RECORD lists them; none without a RECORD."""
    try:
        record = (folder / "RECORD").read_text("utf-8", "replace")
        paths = {row[0] for row in csv.reader(record.splitlines()) if row}
    except (OSError, csv.Error):
        return ()
    return tuple(sorted(path for path in paths if not path.startswith("/") and ".." not in path.split("/")))


def _topic(classifiers: list[str]) -> str | None:
    votes = Counter(topic for c in classifiers if (topic := _topic_of_classifier(c)) is not None)
    return max(dict.fromkeys(TOPICS.values()), key=lambda topic: votes[topic]) if votes else None


def _topic_of_classifier(classifier: str) -> str | None:
    """The topic of the longest prefix."""
    prefixes = [prefix for prefix in TOPICS if f"{classifier} ".startswith(f"{prefix} ")]
    return TOPICS[max(prefixes, key=len)] if prefixes else None


def _snapshot_date(distributions: list[_Distribution]) -> date:
    """The latest calendar version installed; without any, the day of this Python's first release."""
    dates = [_PYTHON_RELEASES.get(sys.version_info.minor, max(_PYTHON_RELEASES.values()))]
    for distribution in distributions:
        if match := _CALENDAR_VERSION.fullmatch(distribution.version):
            try:
                dates.append(date(*(int(part) for part in match.groups())))
            except ValueError:  # 2026.9.0 is a month and a patch number
                continue
    return max(dates)


def _fingerprint(distributions: list[_Distribution], stdlib_path: Path | None, **settings: int | None) -> str:
    parts = {
        "distributions": [(d.name, d.version) for d in distributions],
        "python": platform.python_version(),
        "stdlib": stdlib_path is not None,
        "settings": settings,
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# --- documents of one distribution -----------------------------------------------------------------------------------


def _tasks(distributions: list[_Distribution], stdlib_path: Path | None) -> list[_Distribution]:
    """In the order of a hash of the names, so that a limit takes a mixture."""
    documented = [d for d in distributions if d.documentation_url is not None]
    if stdlib_path is not None:
        documented.append(_standard_library(stdlib_path))
    return sorted(documented, key=lambda d: _hash(d.name))


def _standard_library(path: Path) -> _Distribution:
    names = (file.relative_to(path).as_posix() for file in path.rglob("*.py"))
    modules = (name for name in names if name.split("/")[0].removesuffix(".py") in sys.stdlib_module_names)
    return _Distribution(
        name="python",
        version=platform.python_version(),
        root=path,
        files=tuple(sorted(modules)),
        metadata_path="",
        description="",
        topic=None,
        documentation_url=None,
        readme_url=None,
    )


def _collect(tasks: list[_Distribution], *, num_workers: int, max_documents: int | None) -> list[_Collected]:
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


def _documents_of(distribution: _Distribution) -> _Collected:
    with _collector_paused():
        modules, num_unreadable = _modules(distribution)
    repeats = Counter(text for _, sections in modules for _, text in sections)
    documents: list[_Document] = []
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


def _modules(distribution: _Distribution) -> tuple[list[tuple[str, _Sections]], int]:
    """Path and sections of the modules that have docstrings; the number of files that do not parse."""
    modules, num_bytes, num_unreadable = [], 0, 0
    for path in sorted(filter(_is_module, distribution.files), key=_hash):
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
        text = _tidy(cleandoc(docstring or ""))
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


def _module_documents(distribution: _Distribution, path: str, sections: _Sections) -> Iterator[_Document]:
    is_standard = distribution.documentation_url is None
    module = _module_name(path)
    for number, part in enumerate(_parts(sections)):
        text = "\n\n".join(f"{name}\n\n{text}" if name else text for name, text in part)
        yield _Document(
            text=_clip(f"{module}\n\n{text}"),
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
    prose = _prose_share("\n".join(texts))
    if prose <= LOW_PROSE or sum(map(len, texts)) < REMARK_CHARS * len(texts):
        return "low"
    return "high" if prose >= HIGH_PROSE else None


def _module_url(distribution: _Distribution, path: str, *, anchor: str) -> str:
    if distribution.documentation_url is not None:
        return f"{distribution.documentation_url}#{anchor}"
    module = _module_name(path)
    fragment = f"#{anchor}" if anchor != module else ""
    branch = f"{sys.version_info.major}.{sys.version_info.minor}"
    if _SUBMODULE_PAGES.fullmatch(module) or not _PAGELESS.fullmatch(module):
        return f"https://docs.python.org/{branch}/library/{module.lower()}.html{fragment}"
    return f"https://github.com/python/cpython/blob/{branch}/Lib/{path}{fragment}"


def _description_documents(distribution: _Distribution, url: str) -> Iterator[_Document]:
    readme, changelog = _split_changelog(_plain(distribution.description))
    for text, anchor, quality in ((readme, "", "high"), (changelog, "changelog", "low")):
        yield _Document(
            text=_clip(text),
            url=f"{url}#{anchor}" if anchor else url,
            file_path=distribution.metadata_path,
            package=distribution.name,
            topic=distribution.topic,
            quality=quality,
        )


def _file_documents(distribution: _Distribution, url: str) -> tuple[list[_Document], int]:
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
        text = _clip(_tidy(text) if is_licence else _plain(text))
        documents.append(
            _Document(
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


# --- text ------------------------------------------------------------------------------------------------------------


def _tidy(text: str) -> str:
    """Without control characters, lone surrogates, trailing blanks and runs of empty lines."""
    text = text.expandtabs(4).replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ufeff]", "", text)
    text = re.sub(r"[\ud800-\udfff]", "\ufffd", text)
    text = re.sub(r"[ \u00a0]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


_MARKUP = (
    (r"(?s)<!--.*?-->", ""),
    (
        r"(?i)(?<![`\w])</?(a|b|br|center|details|div|em|h\d|hr|img|kbd|p|picture|source|span|strong|sub|summary|sup)\b[^<>]*>",
        "",
    ),
    (r"\[?!\[[^\]]*\](\([^)]*\)|\[[^\]]*\])(\](\([^)]*\)|\[[^\]]*\]))?", ""),  # images, and images that are links
    (r"(?m)^\.\. (\|[^|]*\| )?(image|figure|raw|contents)::.*(\n(?=[ \t\n]).*)*", ""),
    (r"(?m)^\.\. _[^\n]*: *http\S*$", ""),
    (r"(?m)^ {0,3}\[[^\]\n]+\]: *\S+.*$", ""),
    (r"(?<![!\w\])])\[([^\]\n]+)\](\([^)\s]*\)|\[[^\]\n]*\])", r"\1"),  # links
    (r"`([^`<\n]+) <https?://[^>\s]*>`__?", r"\1"),
    (r"(?m)^( *\|[^|\n]+\|)+ *$", ""),  # substitutions, each of them a badge
)


def _plain(text: str) -> str:
    """A README without badges, images, HTML tags and link targets; other markup stays."""
    text = _tidy(text)
    for pattern, replacement in _MARKUP:
        text = re.sub(pattern, replacement, text)
    return _tidy(text)


_CHANGELOG = re.compile(
    r"^(#+ *)?(change ?-?log|changes|release notes|release history|history):?$(?=.{,200}?\b\d+\.\d+)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)


def _split_changelog(text: str) -> tuple[str, str]:
    """The text before and from a heading that says so and is followed by a version number."""
    match = _CHANGELOG.search(text)
    return (text[: match.start()].rstrip(), text[match.start() :]) if match else (text, "")


def _clip(text: str) -> str:
    """At most MAX_DOCUMENT_CHARS, cut at the end of a paragraph where there is one in the second half."""
    if len(text) <= MAX_DOCUMENT_CHARS:
        return text
    end = text.rfind("\n\n", MAX_DOCUMENT_CHARS // 2, MAX_DOCUMENT_CHARS)
    return text[: end if end > 0 else MAX_DOCUMENT_CHARS].rstrip()


def _prose_share(text: str) -> float:
    """Share of the characters that stand in lines of running sentences: many words, nearly all of them plain."""
    lines = [line.strip() for line in text.splitlines()]
    total = sum(map(len, lines))
    return sum(len(line) for line in lines if _is_prose(line)) / total if total else 0.0


_PLAIN_WORD = re.compile(r"[\"'(`*]*[A-Za-z][a-z'’-]*[.,;:!?)\"'`*]*")
_NO_SENTENCE = (">>>", "...", "|", "+", "#", ":", "@")


def _is_prose(line: str) -> bool:
    words = line.split()
    if len(words) < 6 or line.startswith(_NO_SENTENCE):
        return False
    return sum(_PLAIN_WORD.fullmatch(word) is not None for word in words) >= 0.75 * len(words)


# --- the corpus ------------------------------------------------------------------------------------------------------


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _distinct(documents: Iterable[_Document]) -> list[_Document]:
    """Each text once (case, punctuation and copyright lines aside), each url once, shuffled by a hash of the url."""
    texts: set[str] = set()
    urls: dict[str, _Document] = {}
    for document in sorted(documents, key=lambda d: (d.package, d.file_path, d.url)):
        lines = (line for line in document.text.lower().splitlines() if "copyright" not in line)
        key = _hash(re.sub(r"\W+", " ", " ".join(lines)))
        if key not in texts and document.url not in urls:
            texts.add(key)
            urls[document.url] = document
    return sorted(urls.values(), key=lambda d: _hash(d.url))


def _write(
    output: Path,
    documents: list[_Document],
    *,
    num_files: int,
    snapshot: date,
    num_unreadable_files: int,
    fingerprint: str,
) -> DemoCorpus:
    """Write all files, the record last; training files of an earlier corpus under other names are removed."""
    record_file = output / RECORD_NAME
    record_file.unlink(missing_ok=True)
    num_validation = max(1, round(VALIDATION_SHARE * len(documents)))
    validation, train = documents[:num_validation], documents[num_validation:]
    record = {
        "num_train_files": num_files,
        "num_documents": len(documents),
        "num_validation_documents": num_validation,
        "text_bytes": sum(len(d.text.encode()) for d in documents),
        "topics": _counts(d.topic for d in documents),
        "qualities": _counts(d.quality for d in documents),
        "num_unreadable_files": num_unreadable_files,
        "fingerprint": fingerprint,
    }
    corpus = _corpus(output, record, reused=False)
    for stale in set((output / "corpus").glob("train-?????.parquet")) - set(corpus.train_files):
        stale.unlink()
    for number, path in enumerate(corpus.train_files):
        share = train[len(train) * number // num_files : len(train) * (number + 1) // num_files]
        _write_table(_table(share, snapshot), path)
    _write_table(_table(validation, snapshot), corpus.validation_file)
    _write_labels(corpus.label_files, train)
    _replace(record_file, lambda path: path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n"))
    return corpus


def _corpus(output: Path, record: dict[str, Any], *, reused: bool) -> DemoCorpus:
    fields = dict(record)
    num_train_files = fields.pop("num_train_files")
    return DemoCorpus(
        output=output,
        train_files=tuple(output / "corpus" / f"train-{number:05d}.parquet" for number in range(num_train_files)),
        validation_file=output / "corpus-validation" / "validation.parquet",
        label_files={
            f"{kind}_{part}": output / "labels" / f"{kind}_{part}.parquet"
            for kind in ("topic", "quality")
            for part in ("train", "test")
        },
        reused=reused,
        **fields,
    )


def _existing(output: Path, fingerprint: str) -> DemoCorpus | None:
    """The corpus that a finished earlier run left, if it is of the same environment and none of its files is gone."""
    try:
        corpus = _corpus(output, json.loads((output / RECORD_NAME).read_text()), reused=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = (*corpus.train_files, corpus.validation_file, *corpus.label_files.values())
    return corpus if corpus.fingerprint == fingerprint and all(path.is_file() for path in files) else None


def _table(documents: list[_Document], snapshot: date) -> pa.Table:
    week = snapshot.isocalendar()
    columns: dict[str, list[str | None]] = {
        "text": [d.text for d in documents],
        "id": [f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, d.url)}>" for d in documents],
        "dump": [f"PYDOC-{week[0]}-{week[1]:02d}"] * len(documents),
        "url": [d.url for d in documents],
        "date": [f"{snapshot.isoformat()}T00:00:00Z"] * len(documents),
        "file_path": [d.file_path for d in documents],
        "language": ["en"] * len(documents),
        "topic": [d.topic for d in documents],
        "quality": [d.quality for d in documents],
    }
    # nothing measured language, tokens or score here
    return pa.table({name: columns.get(name, [None] * len(documents)) for name in SCHEMA.names}, schema=SCHEMA)


def _write_labels(files: dict[str, Path], documents: list[_Document]) -> None:
    for kind in ("topic", "quality"):
        labelled, taken = [], Counter[str]()
        for document in documents:
            label = getattr(document, kind)
            if label is not None and taken[document.package] < MAX_LABELLED:
                taken[document.package] += 1
                labelled.append((document, label))
        for part, rows in zip(("train", "test"), _split_labels(labelled), strict=True):
            columns = {"text": [document.text for document, _ in rows], "label": [label for _, label in rows]}
            _write_table(pa.table(columns, schema=LABEL_SCHEMA), files[f"{kind}_{part}"])


def _split_labels(labelled: _Labelled) -> tuple[_Labelled, _Labelled]:
    """About TEST_SHARE of each label to the test: whole packages, so that none is on both sides.

    A label that whole packages cannot share out (only one package has it, say) is split by document.
    """
    sizes: dict[str, Counter[str]] = {}
    for document, label in labelled:
        sizes.setdefault(document.package, Counter())[label] += 1
    totals = sum(sizes.values(), Counter[str]())
    in_test, test_packages = Counter[str](), set()
    for package in sorted(sizes, key=_hash):
        if all(in_test[label] + size <= 1.25 * TEST_SHARE * totals[label] for label, size in sizes[package].items()):
            test_packages.add(package)
            in_test.update(sizes[package])
    parts: tuple[_Labelled, _Labelled] = ([], [])
    seen = Counter[str]()
    for document, label in labelled:
        seen[label] += 1
        by_document = seen[label] % round(1 / TEST_SHARE) == 2
        parts[document.package in test_packages if in_test[label] else by_document].append((document, label))
    return parts


def _write_table(table: pa.Table, path: Path) -> None:
    _replace(path, lambda name: pq.write_table(table, name, compression="zstd", row_group_size=ROW_GROUP_ROWS))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Nothing unfinished is ever visible under `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _counts(labels: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(label or "unlabelled" for label in labels).items()))


def _summary(corpus: DemoCorpus) -> str:
    return (
        f"{corpus.num_documents:,} documents, {corpus.text_bytes / 1e6:.1f} MB of text in "
        f"{len(corpus.train_files)} training files and a validation file"
    )
