"""The results of a search: files, what was left aside, and what looks like data and cannot be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from colophon.pipeline.errors import UsageError, printable
from colophon.pipeline.inputs.search.listings import Spot
from colophon.pipeline.inputs.search.pattern import Glob, Positions
from colophon.pipeline.recipe.schema import InputFormat
from colophon.shards.manifest import LeftAside
from colophon.shards.records import QuarantineEntry

Value = TypeVar("Value")
_MAX_EXAMPLES = 3
_MAX_KINDS = 20
_OTHER_KINDS = "other kinds"


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One file of the input."""

    source: str
    """The path as the recipe spells it, or as found below it: for records and messages. A web address has no query."""
    place: str
    """The path without links, or the normalized URL: the same for every spelling. Names are made from it."""
    url: str
    """The absolute path or URL, for workers with a different working directory."""
    format: InputFormat
    key: str = "input"
    """The section of the recipe whose paths led to it."""
    listed: tuple[int, str] | None = None
    """Size and identity from the listing that found the file; None: the file has to be asked for them. One request
    for each of 10,000 files would take long."""


@dataclass(frozen=True)
class Scope:
    """A directory from which a search began, or that it reached through a link."""

    directory: Spot
    glob: Glob
    positions: Positions
    """Those of the glob at the directory."""
    key: str = "input"
    """The section of the recipe with the path."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """The result of a search."""

    files: tuple[InputFile, ...]
    """In the order of the recipe's paths; those of a directory or glob are sorted by name."""
    left_aside: tuple[LeftAside, ...]
    quarantine: tuple[QuarantineEntry, ...]
    scopes: tuple[Scope, ...]


@dataclass
class Found:
    """The findings of a search so far, by place: each file once, however many paths and links lead to it."""

    files: dict[str, InputFile] = field(default_factory=dict)
    left_aside: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Kind and source."""
    problems: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Source and reason."""
    scopes: list[Scope] = field(default_factory=list)

    def add(self, other: Found, *, key: str) -> None:
        """Add the findings of the next path, one of the section `key`; those of earlier paths stay as they are.

        Raises:
            UsageError: an earlier section's paths lead to one of its files.
        """
        for place, file in other.files.items():
            known = self.files.get(place, file)
            if known is not file and known.key != key:
                both = f"{known.key}.paths and {key}.paths both lead to {shown(file.source)}"
                raise UsageError(f"{both}; a file has one source")
            if file.key != key:
                other.files[place] = replace(file, key=key)
        other.scopes = [replace(scope, key=key) for scope in other.scopes]
        _add_new(self.files, other.files)
        _add_new(self.left_aside, other.left_aside)
        _add_new(self.problems, other.problems)
        self.scopes += other.scopes

    def result(self) -> Search:
        """All findings. What one path takes is not left aside, whatever the other paths do."""
        left_aside = [kind_and_source for place, kind_and_source in self.left_aside.items() if place not in self.files]
        problems = [problem for place, problem in self.problems.items() if place not in self.files]
        return Search(
            files=tuple(self.files.values()),
            left_aside=tuple(_summed(left_aside)),
            quarantine=tuple(QuarantineEntry(source=s, stage="input", reason=reason) for s, reason in problems),
            scopes=tuple(self.scopes),
        )


def describe_left_aside(left_aside: Iterable[LeftAside]) -> list[str]:
    """A line for each kind: `unknown suffix .txt: 4 (data/a.txt, data/b.txt, data/c.txt, ...)`."""
    return [
        f"{one.kind}: {one.count:,} ({', '.join(map(shown, one.examples))}{', ...' * (one.count > len(one.examples))})"
        for one in left_aside
    ]


def shown(name: str) -> str:
    """A name for one line of a terminal: control characters and line ends are escaped."""
    return printable(name).replace("\n", "\\n").replace("\t", "\\t")


def _add_new(known: dict[str, Value], others: Mapping[str, Value]) -> None:
    for place, value in others.items():
        known.setdefault(place, value)


def _summed(kinds_and_sources: Iterable[tuple[str, str]]) -> list[LeftAside]:
    """By kind, the most frequent first; the kinds after the first 20 are one."""
    sources: dict[str, list[str]] = defaultdict(list)
    for kind, source in kinds_and_sources:
        sources[kind].append(source)
    ranked = sorted(sources.items(), key=lambda item: (-len(item[1]), item[0]))
    if len(ranked) > _MAX_KINDS:
        rest = [source for _, of_kind in ranked[_MAX_KINDS:] for source in of_kind]
        ranked = [*ranked[:_MAX_KINDS], (_OTHER_KINDS, rest)]
    return [
        LeftAside(kind=kind, count=len(of_kind), examples=sorted(of_kind)[:_MAX_EXAMPLES]) for kind, of_kind in ranked
    ]
