"""Secrets in URLs: found where an address is read, masked wherever a message is shown.

A URL can hold a secret before the `@` of its host, in its query, and in its fragment. Which query keys hold one is not
known in general, so all do except those of a short list. Nothing here repeats a secret: a problem names a key at most.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

HARMLESS_KEYS = (
    *("alt", "dl", "download", "format", "generation", "raw", "ref", "rev", "revision", "version", "versionId"),
)
"""Query keys that choose a version or a form of a file, as web servers and object stores use them."""
_HARMLESS = frozenset(key.lower() for key in HARMLESS_KEYS)
_BUCKETS = frozenset({"gcs", "gs", "oci", "oss", "s3", "s3a", "s3n", "tos"})
"""Schemes whose host is a bucket's name, without a port."""
_AZURE = frozenset({"abfs", "abfss", "az"})
_CONTAINER = re.compile(r"[a-z0-9$][a-z0-9-]{2,62}@[a-z0-9][a-z0-9.-]*")
"""Azure's `container@account.dfs.core.windows.net`, always in lower case."""
_WITHOUT_HOST = frozenset({"file", "hdfs", "local", "memory", "webhdfs"})
"""Schemes of which three slashes begin a path."""
_WEB = frozenset({"http", "https", "ftp", "ftps", "sftp"})
_BEGIN = re.compile(
    r"([a-z][a-z0-9+.-]{1,30}):([/\\]{1,4})|(https?|s?ftps?):|(?<![:/\w])//(?=[^/\s@]{0,200}:[^/\s@]{0,200}@)", re.I
)
"""The beginning of a URL up to its host, in any spelling that a user or a library gives it."""
_RUN = re.compile(r"[^\s'\"<>]+")
"""Text without the characters that end a URL in a message."""
_WEB_ADDRESS = re.compile("https?://", re.I)
_QUERY = re.compile("[?#]")
_NAME = re.compile(r"[A-Za-z][\w.-]{0,39}", re.ASCII)

USERINFO = "it contains a user name, a password or a token before an @"


def secret_in(text: str) -> str | None:
    """The reason why a URL in a text may hold a secret: `it has the query key 'sig'`; None if none does.

    Text that is a URL from its beginning is one address, spaces included; in other text a URL ends at a space.
    """
    for start in _BEGIN.finditer(text):
        is_prose = start.start() > 0 and text[start.start() - 1].isspace()
        rest = re.split(r"['\"<>\s]" if is_prose else r"['\"<>\n]", text[start.end() :], maxsplit=1)[0]
        problem = _problem(_scheme(start), _parts(start, rest), is_address=start.start() == 0)
        if problem is not None:
            return problem
    return None


def has_secret(text: str) -> bool:
    """Whether a URL in a text may hold a secret, see `secret_in`."""
    return secret_in(text) is not None


def without_query(address: str) -> str:
    """A web address without query and fragment; any other address as it is."""
    return _QUERY.split(address, maxsplit=1)[0] if _WEB_ADDRESS.match(address) else address


def without_secrets(text: str) -> str:
    """Replace user names and passwords in URLs, and everything after the `?` of a web address, by `***`.

    A store may redirect to a signed address, and the errors of its library name that address. Cost: linear in the
    text, about 0.2 s for a megabyte of URLs.
    """
    if ":" not in text and "//" not in text:
        return text
    return _SPACED.sub(_masked_spaced, _RUN.sub(_masked_run, text))


def _scheme(start: re.Match[str]) -> str:
    return (start[1] or start[3] or "").lower()


def _parts(start: re.Match[str], rest: str) -> tuple[str, str]:
    """The host with what is before it, and all that follows, of a URL without its beginning."""
    if _scheme(start) in _WITHOUT_HOST:
        if start[2] not in ("//", "\\\\"):
            return "", rest
    else:
        rest = rest.lstrip("/\\")
    authority = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    return authority, rest[len(authority) :]


def _problem(scheme: str, parts: tuple[str, str], *, is_address: bool) -> str | None:
    authority, tail = parts
    if _userinfo(scheme, authority, tail):
        return USERINFO
    if scheme in ("file", "local"):
        return None
    return _web_query(tail, is_address=is_address) if scheme in _WEB else _store_query(tail)


def _userinfo(scheme: str, authority: str, tail: str) -> str:
    """The part of a URL up to the `@` after a user name, password or token; empty if there is none."""
    if found := re.match(".*(@|%40)", authority, re.I | re.S):
        return "" if scheme in _AZURE and _CONTAINER.fullmatch(authority) else found[0]
    host, colon, port = authority.partition(":")
    if not colon or "@" not in tail or host.startswith("["):  # an IPv6 address
        return ""
    # `user:pass/word@host`: the password has a slash. `host:8080/a@b` is a host with a port.
    is_port = port.isdigit() and scheme not in _BUCKETS
    return "" if is_port else (authority + tail).rpartition("@")[0] + "@"


def _web_query(tail: str, *, is_address: bool) -> str | None:
    """The problem of what follows a web address's host: `?`, `&`, `;` and `#` begin a part."""
    for separator, part in re.findall(r"([?&;#])([^?&;#]*)", tail):
        key, equals, value = part.partition("=")
        if not part or value.startswith("{"):  # a field of a template
            continue
        if separator == "#" and not equals and not is_address:
            continue
        if separator == "#":
            return "it has a fragment, #..., which is never sent to a server"
        if separator == ";" and not equals:
            continue
        if not equals or not _is_harmless(key):
            return _named(key if value.strip("=") else "")
    return None


def _store_query(tail: str) -> str | None:
    """The problem of a path of a store, in which `?` may belong to a glob: only `?key=value` is a query."""
    for key, value in re.findall(r"[?&;]([^/?&;#=\s]+)=([^/?&;#\s]*)", tail):
        if not _is_harmless(key):
            return _named(key if value.strip("=") else "")
    return None


def _is_harmless(key: str) -> bool:
    return unquote(key).lower() in _HARMLESS


def _named(key: str) -> str:
    key = unquote(unquote(key))
    keys = f"only {', '.join(HARMLESS_KEYS)} are known to be harmless"
    return (
        f"it has the query key {key!r}; {keys}" if _NAME.fullmatch(key) else f"it has a query of unknown keys; {keys}"
    )


def _masked_run(run: re.Match[str]) -> str:
    """A run without spaces and quotes, each URL in it masked."""
    starts = list(_BEGIN.finditer(run[0]))
    if not starts:
        return run[0]
    ends = [start.start() for start in starts[1:]] + [len(run[0])]
    return run[0][: starts[0].start()] + "".join(
        start[0] + _masked(start, run[0][start.end() : end]) for start, end in zip(starts, ends, strict=True)
    )


def _masked(start: re.Match[str], rest: str) -> str:
    scheme, (authority, tail) = _scheme(start), _parts(start, rest)
    slashes = rest[: len(rest) - len(authority + tail)]
    userinfo = _userinfo(scheme, authority, tail)
    shown = ("***@" if userinfo else "") + (authority + tail)[len(userinfo) :]
    if scheme in _WEB:
        before, mark, _ = shown.partition("?")
        before = re.sub("([;#])[^;#]*=.*", r"\1***", before, count=1, flags=re.S)
        return slashes + before + (f"{mark}***" if mark and shown != before + mark else mark)
    return slashes + re.sub(r"([?&;])[^/?&;#=]+=.*", r"\1***", shown, count=1, flags=re.S)


_SPACED = re.compile(r"(https?|s?ftps?|s3[an]?|gc?s)(:[/\\]*)([^/\\'\"@\n]{1,120})@", re.I)


_SPACED_PASSWORD = re.compile(r"\s.*:\S+$|^[^\s:]+:(?!\d+[\s,;:)])\S+\s", re.S)


def _masked_spaced(found: re.Match[str]) -> str:
    """`https://us er:password@`: a name with spaces, and a colon that no space follows, as one follows in prose."""
    return f"{found[1]}{found[2]}***@" if _SPACED_PASSWORD.search(found[3]) else found[0]
