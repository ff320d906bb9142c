"""The installed distributions with their topics and addresses; the standard library is one of them."""

from __future__ import annotations

import csv
import email.message
import email.parser
import platform
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from colophon.pipeline.demo.prose import digest

MAX_FILE_BYTES = 400_000
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
"""Topics by classifier prefix. A distribution gets the topic of most of its classifiers; in a tie, the first listed.

"Software Development" and "Utilities" have no topic: nearly every distribution declares them."""
_DOCUMENTATION_LABELS = ("documentation", "docs", "docsrtd", "doc")
_HOME_LABELS = ("homepage", "home", "website")
_SOURCE_LABELS = ("repository", "source", "sourcecode", "sources", "code", "github", "githubrepo")
_CALENDAR_VERSION = re.compile(r"(20\d\d)\.(\d{1,2})\.(\d{1,2})")
_PYTHON_RELEASES = {10: date(2021, 10, 4), 11: date(2022, 10, 24), 12: date(2023, 10, 2), 13: date(2024, 10, 7)}


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """An installed distribution as described in its metadata."""

    name: str
    version: str
    root: Path
    files: tuple[str, ...]
    """Paths relative to `root`, sorted."""
    metadata_path: str
    description: str
    topic: str | None
    documentation_url: str | None
    """None for the standard library, whose modules have their own pages. Others without one are excluded."""
    readme_url: str | None


def installed_paths() -> list[Path]:
    """The folders of installed packages on the path of the running interpreter."""
    names = ("site-packages", "dist-packages")
    return [Path(entry) for entry in dict.fromkeys(sys.path) if Path(entry).name in names]


def find_distributions(search_paths: Sequence[Path]) -> list[Distribution]:
    """The distributions in `search_paths`, sorted by name; the first of equal names wins, as on import."""
    found: dict[str, Distribution] = {}
    for root in search_paths:
        for folder in sorted(root.glob("*.dist-info")):
            distribution = _read_distribution(folder)
            if distribution is not None:
                found.setdefault(distribution.name.lower(), distribution)
    return [found[name] for name in sorted(found)]


def _read_distribution(folder: Path) -> Distribution | None:
    """The distribution of one `*.dist-info` folder; None without readable metadata.

    None too for an install from a local folder or a repository, such as an editable install of this project: its text
    may change while its version does not.
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
    return Distribution(
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
    """The body of METADATA or, before metadata 2.1, the `Description` header without the indent of its lines."""
    body = message.get_payload()
    if isinstance(body, str) and body.strip():
        return body
    return textwrap.dedent(re.sub(r"(?m)^ {7}[ |]", "", str(message.get("Description", ""))))


def _project_urls(message: email.message.Message) -> tuple[str | None, str | None, str | None]:
    """The addresses of the documentation, the home page and the repository in METADATA; None where it names none."""
    urls: dict[str, str] = {}
    for entry in message.get_all("Project-URL", []):
        label, _, url = str(entry).partition(",")
        urls.setdefault(re.sub(r"[\W_]+", "", label.lower()), url)
    urls.setdefault("homepage", str(message.get("Home-page", "")))

    def first_address(labels: tuple[str, ...]) -> str | None:
        return next((url for label in labels if (url := _web_address(urls.get(label, "")))), None)

    return first_address(_DOCUMENTATION_LABELS), first_address(_HOME_LABELS), first_address(_SOURCE_LABELS)


def _web_address(url: str) -> str | None:
    url = urldefrag(url.strip()).url
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and "." in host and not re.search(r"\s", url) else None


def _recorded_files(folder: Path) -> tuple[str, ...]:
    """Files of the distribution below its site-packages, from its RECORD; empty without a RECORD."""
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
    """The topic of the longest prefix in `TOPICS`; None without one."""
    prefixes = [prefix for prefix in TOPICS if f"{classifier} ".startswith(f"{prefix} ")]
    return TOPICS[max(prefixes, key=len)] if prefixes else None


def snapshot_date(distributions: list[Distribution]) -> date:
    """The latest of the installed calendar versions and the day of this Python's first release."""
    dates = [_PYTHON_RELEASES.get(sys.version_info.minor, max(_PYTHON_RELEASES.values()))]
    for distribution in distributions:
        if match := _CALENDAR_VERSION.fullmatch(distribution.version):
            try:
                dates.append(date(*(int(part) for part in match.groups())))
            except ValueError:  # 2026.9.0 is a month and a patch number
                continue
    return max(dates)


def documented(distributions: list[Distribution], stdlib_path: Path | None) -> list[Distribution]:
    """Distributions that name an address, and the standard library.

    They are sorted by a hash of their names, so that the first few are a mixture.
    """
    kept = [d for d in distributions if d.documentation_url is not None]
    if stdlib_path is not None:
        kept.append(_standard_library(stdlib_path))
    return sorted(kept, key=lambda d: digest(d.name))


def _standard_library(path: Path) -> Distribution:
    names = (file.relative_to(path).as_posix() for file in path.rglob("*.py"))
    modules = (name for name in names if name.split("/")[0].removesuffix(".py") in sys.stdlib_module_names)
    return Distribution(
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
