"""The entries of block lists as sorted keys, which all processes of a machine map.

Hosts and ids are looked up as they are, domains and URL prefixes as beginnings of a key: a domain's labels are reversed
for that (`a.example.org` is `org.example.a.`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.lists.list_files import entries_of
from colophon.annotators.lists.mapped_arrays import cached_arrays, write_arrays
from colophon.annotators.lists.sorted_keys import SortedKeys, sorted_keys
from colophon.annotators.url import host_of, split_urls
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import fingerprint

Kind = Literal["hosts", "domains", "url_prefixes", "ids"]
Entries = tuple[Kind, str | None, str | None, Sequence[str] | None]
"""Kind, path, column and entries of a list."""
Hit = tuple[int, str]
"""The number of a list and its entry."""

_KINDS: tuple[Kind, ...] = ("hosts", "domains", "url_prefixes", "ids")
_BEGINNINGS = ("domains", "url_prefixes")
_FORMAT = 1
_PLAIN_HOST = r"^[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*$"


class BlockKeys:
    """Finds the first list that has a host, a URL or an id."""

    def __init__(self, lists: Sequence[Entries]) -> None:
        """Sort the entries; those of files are sorted once for this machine, in its cache.

        Raises:
            AnnotatorError: a file cannot be read, or has an entry that is none of its kind.
        """
        arrays = _arrays(lists) if all(path is None for _, path, _, _ in lists) else _cached(lists)
        self._keys = {kind: SortedKeys.of(arrays, kind) for kind in _KINDS}

    @property
    def has_prefixes(self) -> bool:
        """Whether a list has URL prefixes."""
        return len(self._keys["url_prefixes"]) > 0

    def of_host(self, host: str) -> Hit | None:
        """The first list with this host, or with it or a domain above it, and the entry."""
        hosts, domains = self._keys["hosts"], self._keys["domains"]
        row, above = hosts.find(host.encode()), domains.find_beginning(reversed_labels(host).encode())
        hits = [] if row is None else [(int(hosts.numbers[row]), host)]
        if above is not None:
            hits.append((int(domains.numbers[above]), _in_order(domains.key(above).decode())))
        return min(hits, default=None)

    def of_url(self, url: str) -> Hit | None:
        """The list with a beginning of this URL, as `comparable_urls` writes it, and the beginning."""
        keys = self._keys["url_prefixes"]
        row = keys.find_beginning(url.encode())
        return None if row is None else (int(keys.numbers[row]), keys.key(row).decode())

    def of_id(self, identifier: str) -> Hit | None:
        """The list with this id, and the id."""
        keys = self._keys["ids"]
        row = keys.find(identifier.encode())
        return None if row is None else (int(keys.numbers[row]), identifier)


def reversed_labels(host: str) -> str:
    """`a.example.org` as `org.example.a.`."""
    return ".".join(reversed(host.split("."))) + "."


def _in_order(key: str) -> str:
    return ".".join(reversed(key[:-1].split(".")))


def comparable_urls(hosts: pa.Array, suffixes: pa.Array) -> pa.Array:
    """large_string: the host, a slash, and the rest of each URL, as they are compared; null without a host."""
    suffixes = suffixes.cast(pa.large_string())
    slash = pc.if_else(pc.starts_with(suffixes, "/"), _text(""), _text("/"))
    return pc.binary_join_element_wise(hosts.cast(pa.large_string()), slash, suffixes, _text(""))


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, pa.large_string())


def _cached(lists: Sequence[Entries]) -> dict[str, NumPyArray]:
    identity = [
        [kind, None if path is None else [Path(path).suffixes, remembered_sha256(path)], column, list(entries or ())]
        for kind, path, column, entries in lists
    ]
    name = fingerprint([_FORMAT, identity])
    return cached_arrays("blocklist", name, lambda directory: write_arrays(directory, _arrays(lists)))


def _arrays(lists: Sequence[Entries]) -> dict[str, NumPyArray]:
    """The sorted keys of each kind, with the numbers of their lists."""
    arrays: dict[str, NumPyArray] = {}
    for kind in _KINDS:
        parts, numbers = [pa.array([], pa.large_string())], [np.empty(0, np.int64)]
        for number, each in enumerate(lists):
            if each[0] == kind:
                parts.append(_entries(each))
                numbers.append(np.full(len(parts[-1]), number))
        keys = sorted_keys(pa.concat_arrays(parts), np.concatenate(numbers), as_beginnings=kind in _BEGINNINGS)
        arrays |= keys.arrays(kind)
    return arrays


def _entries(each: Entries) -> pa.Array:
    """large_string: a list's entries as keys."""
    kind, path, column, entries = each
    found = pa.array(entries, pa.large_string()) if path is None else entries_of(Path(path), column)
    return _as_keys(found, kind, where=path or "entries")


def _as_keys(entries: pa.Array, kind: Kind, *, where: str) -> pa.Array:
    if kind == "ids":
        return entries
    if kind == "url_prefixes":
        return _checked(entries, _url_keys(entries), where=where, what="the beginning of a URL")
    hosts = _checked(entries, _hosts(entries), where=where, what="a host name")
    return hosts if kind == "hosts" else _mapped(hosts, reversed_labels)


def _checked(entries: pa.Array, keys: pa.Array, *, where: str, what: str) -> pa.Array:
    if keys.null_count:
        row = pc.index(pc.is_null(keys), pa.scalar(True)).as_py()
        raise AnnotatorError(f"{where}: entry {row + 1:,} is not {what}: {entries[row].as_py()!r:.80}")
    return keys


def _hosts(entries: pa.Array) -> pa.Array:
    """Host names as `url_host` has them, null for what is none; `*.` and a dot before a name do not count."""
    names = pc.replace_substring_regex(pc.utf8_lower(pc.utf8_trim_whitespace(entries)), r"^(?:\*?\.)", "")
    names = pc.utf8_rtrim(names, ".")
    is_plain = pc.match_substring_regex(names, _PLAIN_HOST)
    return pc.if_else(is_plain, names, _mapped(pc.if_else(is_plain, pa.scalar(None, names.type), names), _unusual_host))


def _unusual_host(name: str) -> str | None:
    """An internationalised name, or an IPv6 address with or without brackets."""
    return host_of(name) or host_of(f"[{name}]")


def _url_keys(entries: pa.Array) -> pa.Array:
    """URLs, or URLs without a scheme, as `comparable_urls` writes them; null for what is none."""
    texts = pc.utf8_trim_whitespace(entries)
    has_scheme = pc.match_substring_regex(texts, r"^[A-Za-z][A-Za-z0-9+.-]*://")
    urls = pc.binary_join_element_wise(pc.if_else(has_scheme, _text(""), _text("http://")), texts, _text(""))
    _, domains, suffixes = split_urls(urls)
    return comparable_urls(_mapped(domains, host_of), suffixes)


def _mapped(values: pa.Array, function: Callable[[str], str | None]) -> pa.Array:
    return pa.array([None if value is None else function(value) for value in values.to_pylist()], pa.large_string())
