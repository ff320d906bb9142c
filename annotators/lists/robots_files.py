"""robots.txt files of many sites: an index and the texts in this machine's cache, parsed when a site is first met."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from protego import Protego

from colophon.annotators.base import AnnotatorError
from colophon.annotators.lists.list_files import digests, is_table, table_batches
from colophon.annotators.lists.mapped_arrays import cached_arrays, write_arrays
from colophon.annotators.lists.sorted_keys import SortedKeys, sorted_keys
from colophon.annotators.url import host_of, split_urls
from colophon.shards.common.digests import fingerprint

_FORMAT = 1
MOST_BYTES = 500 << 10
"""The bytes of a robots.txt that are read: those that RFC 9309 asks of every parser. The rest is cut."""
MOST_RULES = 200_000
"""User-agent lines times other lines: protego keeps each rule once for each agent of its group."""
_CACHED_RULES = 1_000_000
_AGENT_LINE = re.compile(rb"(?im)^[ \t]*user[- ]?agent")
_NULL = -1


class RobotsFiles:
    """Finds the robots.txt of a host, and answers for it."""

    def __init__(self, files: Sequence[Path], *, host_column: str, text_column: str) -> None:
        """Map the texts; the first process of a machine writes them to the cache.

        Raises:
            AnnotatorError: a file cannot be read, lacks a column, or has no host.
        """
        name = fingerprint([_FORMAT, digests(files), [file.name for file in files], host_column, text_column])
        arrays = cached_arrays("robots", name, lambda directory: _write(directory, files, (host_column, text_column)))
        self._hosts = SortedKeys.of(arrays, "hosts")
        self._places, self._texts = arrays["places"], arrays["texts"]
        self._parsed: OrderedDict[int, tuple[Protego | None, int]] = OrderedDict()
        self._num_rules = 0

    def find(self, host: str) -> int | None:
        """The number of a host's file; None if there is none."""
        row = self._hosts.find(host.encode())
        return None if row is None else -int(self._hosts.numbers[row])

    def refused(self, site: int | None, url: str, agents: Sequence[str]) -> tuple[list[str], str]:
        """The agents that may not fetch a URL, and the status of its site's file, see `RobotsAnnotator`."""
        if site is None or int(self._places[site][1]) == _NULL:
            return [], "missing"
        parsed = self._parse(site)
        if parsed is None:
            return [], "unreadable"
        return [agent for agent in agents if not _may_fetch(parsed, url, agent)], "found"

    def _parse(self, site: int) -> Protego | None:
        """The parsed file; the last ones used are kept, up to a number of rules."""
        if site in self._parsed:
            self._parsed.move_to_end(site)
            return self._parsed[site][0]
        start, size = map(int, self._places[site])
        text = self._texts[start : start + size].tobytes()
        num_agents = len(_AGENT_LINE.findall(text)) + 1
        num_rules = num_agents * (text.count(b"\n") + text.count(b"\r") + 1)
        parsed = _parsed(text) if num_rules <= MOST_RULES else None
        cost = num_rules if parsed is not None else 1
        self._parsed[site] = (parsed, cost)
        self._num_rules += cost
        while self._num_rules > _CACHED_RULES:
            _, (_, cost) = self._parsed.popitem(last=False)
            self._num_rules -= cost
        return parsed


def _parsed(text: bytes) -> Protego | None:
    try:
        return Protego.parse(text.decode("utf-8-sig"))
    except (ValueError, TypeError, RecursionError):  # a UnicodeDecodeError is a ValueError
        return None


def _may_fetch(parsed: Protego, url: str, agent: str) -> bool:
    try:
        return bool(parsed.can_fetch(url, agent))
    except ValueError:  # a URL that urllib cannot cut
        return True


def _write(directory: Path, files: Sequence[Path], columns: tuple[str, str]) -> None:
    """Write `texts.bin`, the places of each text in it (int64 [sites, 2]: start and size, -1 for null), and the hosts.

    Hosts have the number of their text as a negative number: of equal hosts, the smallest number is the last text.
    """
    hosts: list[str] = []
    places: list[tuple[int, int]] = []
    start = 0
    with (directory / "texts.bin").open("wb") as target:
        for host, text in _rows(files, columns):
            size = _NULL if text is None else target.write(text)
            hosts.append(host)
            places.append((start, size))
            start += max(size, 0)
    if not hosts:
        raise AnnotatorError(f"{files[0] if len(files) == 1 else files[0].parent}: no row has a host")
    keys = sorted_keys(pa.array(hosts, pa.large_string()), -np.arange(len(hosts)))
    write_arrays(directory, {**keys.arrays("hosts"), "places": np.array(places, np.int64)})


def _rows(files: Sequence[Path], columns: tuple[str, str]) -> Iterator[tuple[str, bytes | None]]:
    """The host and the text of each site."""
    for file in files:
        if not is_table(file):
            host = _host(file.name.removesuffix(".txt"))
            if host is None:
                raise AnnotatorError(f"{file}: expected a table, or a file named HOST.txt")
            yield host, _first_bytes(file)
            continue
        for batch in table_batches(file, columns):
            texts = batch.column(1).cast(pa.large_binary()).to_pylist()
            for site, text in zip(batch.column(0).to_pylist(), texts, strict=True):
                if site is not None and (host := _host(site)):
                    yield host, None if text is None else text[:MOST_BYTES]


def _first_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(MOST_BYTES)
    except OSError as error:
        raise AnnotatorError(f"{file}: {error.strerror}") from None


def _host(site: str) -> str | None:
    """The host of a site that is written as a host or as a URL."""
    site = site.strip()
    if "://" in site:
        site = split_urls(pa.array([site], pa.string()))[1][0].as_py() or ""
    return host_of(site.rstrip("/")) if site else None
