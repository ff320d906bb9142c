"""E-mail addresses: a local part, `@`, and a host under a public suffix.

No addresses here are `user@localhost`, `icon@2x.png`, `git@github.com:org/repo`, a user in a URL, a handle such as
`@name@mastodon.social`, and the names that RFC 2606 reserves for examples. Cost: linear in the number of `@`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from colophon.annotators.url import host_of, registered_domain

_LOCAL = re.compile(r"[\w.+%'~-]+\Z")
_EDGE = ".+%'~-"
"""Characters with which a local part does not begin in running text."""
_DOMAIN = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?(?:\.[^\W_](?:[\w-]{0,61}[^\W_])?)+")
_RUN = re.compile(r"\S+\Z")
_MOST_LOCAL, _MOST_DOMAIN = 64, 253
_RESERVED = frozenset({"example.com", "example.net", "example.org"})


def emails(text: str) -> Iterator[tuple[int, int]]:
    """The start and end of each e-mail address."""
    at = text.find("@")
    while at >= 0:
        start, end = _start(text, at), _end(text, at)
        if start is not None and end is not None:
            yield start, end
        at = text.find("@", at + 1)


def _start(text: str, at: int) -> int | None:
    """The start of the local part before an `@`; None if there is none, or it is part of something else."""
    before = text[max(0, at - _MOST_LOCAL - 1) : at]
    found = _LOCAL.search(before)
    local = found[0].lstrip(_EDGE) if found else ""
    start = at - len(local)
    if not local or local.endswith(".") or len(local) > _MOST_LOCAL or local.lower() == "git":
        return None
    run = _RUN.search(text[max(0, start - 2 * _MOST_LOCAL) : start])
    if run and (run[0].endswith("@") or "://" in run[0]):
        return None
    return start


def _end(text: str, at: int) -> int | None:
    """The end of the host behind an `@`: of the longest name that is registered under a public suffix; None if none."""
    found = _DOMAIN.match(text, at + 1, at + 2 + _MOST_DOMAIN)
    name = found[0] if found else ""
    while "." in name:
        if len(name) <= _MOST_DOMAIN and _is_registered(name):
            return at + 1 + len(name)
        name = name.rpartition(".")[0]
    return None


def _is_registered(name: str) -> bool:
    host = host_of(name)
    domain = None if host is None else registered_domain(host)
    return domain is not None and domain not in _RESERVED
