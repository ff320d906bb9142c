"""The parts of a document's URL, its host, and the domain under which the host is registered.

One regular expression over the Arrow column cuts the URLs; Python sees each distinct authority of a batch once.
Cost: about 1 µs a row, and 5 µs for each host not seen before. The hosts that are remembered have at most 256
characters, so they take less than 64 MB, whatever the URLs are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.metadata import version
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, ClassVar

import idna
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import Annotator, AnnotatorConfig
from colophon.annotators.columns import string_column

if TYPE_CHECKING:  # it imports requests, which only this annotator needs
    from tldextract import TLDExtract

_CODE_VERSION = 1

# The generic syntax of RFC 3986 with a non-empty authority. As browsers do (WHATWG URL, section 4.4), spaces and
# control characters around the URL are ignored; the authority must hold none of them and no backslash.
_PARTS = (
    r"(?s)^[\x00-\x20]*(?P<prefix>[A-Za-z][A-Za-z0-9+.-]*://)"
    r"(?P<domain>[^/?#\\\x00-\x20\x7f]+)"
    r"(?P<suffix>(?:[/?#].*?)?)[\x00-\x20]*$"
)
_MAX_HOST = 256
"""Characters of a host with a trailing dot or brackets. DNS allows 253, an address has 45."""
_CACHED_HOSTS = 1 << 15
_PORT = re.compile(r":[0-9]*\Z")
# RFC 952 forbids underscores in host names, but DNS carries them and real sites use them.
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")


class UrlConfig(AnnotatorConfig):
    """Cuts `url` into its parts, and finds the host and the registered domain.

    Example:

        [annotators.url]
        private_suffixes = true
    """

    type_name: ClassVar[str] = "url"

    private_suffixes: bool = False
    """Use the private part of the public-suffix list too: `foo.github.io` is then a registered domain of its own, not a
    host of `github.io`."""

    def build(self, name: str) -> UrlAnnotator:
        """The annotator; `name` changes nothing in its output."""
        return UrlAnnotator(name, private_suffixes=self.private_suffixes)


class UrlAnnotator(Annotator):
    """Cuts `url` into the parts that "Beyond URLs" (arXiv 2511.21613) compares; finds host and registered domain.

    Output columns, all string:
      - `url`: unchanged.
      - `url_prefix` (scheme and `://`), `url_domain` (everything between `://` and the first of `/?#`: the host,
        with user information and port if given), `url_suffix` (the rest, possibly empty). Joined, they are the URL
        without the spaces and control characters around it. All three are null where the URL has no scheme, no `://`
        or no authority: `data:`, `mailto:`, `//host/x`, `example.org`, `file:///etc/hosts`.
      - `url_host`: the authority without user information, port, brackets and one trailing dot; lower case, in the
        ASCII form of internationalised names (`xn--mnchen-3ya.de`; UTS 46), which is how DNS and block lists write
        it. Null where that is not a host name, IPv4 or IPv6 address, or has more than 256 characters.
      - `url_registered_domain`: public suffix and the label before it (`bbc.co.uk`). Null for addresses, single
        labels, and hosts that are a public suffix or do not end in one.
    """

    schema = pa.schema(
        [
            (column, pa.string())
            for column in ("url", "url_prefix", "url_domain", "url_suffix", "url_host", "url_registered_domain")
        ]
    )
    columns = ("url",)

    def __init__(self, name: str, *, private_suffixes: bool) -> None:
        self.name = name
        self._private_suffixes = private_suffixes
        self.settings: dict[str, Any] = {
            "type": UrlConfig.type_name,
            "code_version": _CODE_VERSION,
            "private_suffixes": private_suffixes,
            "tldextract": version("tldextract"),
            "idna": version("idna"),
        }

    def load(self) -> None:
        """Read the public-suffix list, about 40 ms."""
        _suffix_list(self._private_suffixes)

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class."""
        urls = string_column(batch, "url").cast(pa.string())
        prefixes, domains, suffixes = split_urls(urls)
        hosts = map_distinct(domains, host_of)
        registered = map_distinct(hosts, self._registered_domain)
        return pa.record_batch([urls, prefixes, domains, suffixes, hosts, registered], schema=self.schema)

    def _registered_domain(self, host: str) -> str | None:
        return registered_domain(host, private_suffixes=self._private_suffixes)


def host_of(domain: str) -> str | None:
    """The host name or address in an authority: `user@host:80` gives `host`; None if none. See `UrlAnnotator`."""
    host = _PORT.sub("", domain.rpartition("@")[2], count=1)
    return _host(host) if len(host) <= _MAX_HOST else None


@lru_cache(maxsize=_CACHED_HOSTS)
def _host(host: str) -> str | None:
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1].lower() if _is_ipv6(host[1:-1]) else None
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except UnicodeError:  # idna.IDNAError is one
            return None
    host = host.lower().removesuffix(".")
    return host if _HOST.match(host) else None


@lru_cache(maxsize=_CACHED_HOSTS)
def registered_domain(host: str, *, private_suffixes: bool = False) -> str | None:
    """The public suffix of `host` plus one label, by tldextract's list: `www.bbc.co.uk` gives `bbc.co.uk`."""
    if ":" in host or _is_ipv4(host):
        return None
    return _suffix_list(private_suffixes)(host).top_domain_under_public_suffix or None


@cache
def _suffix_list(private_suffixes: bool) -> TLDExtract:
    import tldextract

    # Without an address for a newer list and without a cache on disk every worker uses the same list, without network.
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=private_suffixes)


def split_urls(urls: pa.Array) -> list[pa.Array]:
    """The columns `url_prefix`, `url_domain` and `url_suffix` of `UrlAnnotator`, each string [urls]."""
    try:
        return list(pc.extract_regex(urls, _PARTS).flatten())
    except pa.ArrowInvalid:  # a URL of the batch is not UTF-8: it gets no parts
        return list(pc.extract_regex(_null_where_not_utf8(urls), _PARTS).flatten())


def _null_where_not_utf8(values: pa.Array) -> pa.Array:
    return pa.array([_decode(value) for value in values.cast(pa.binary()).to_pylist()], pa.string())


def _decode(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def map_distinct(values: pa.Array, function: Callable[[str], str | None]) -> pa.Array:
    """`values` mapped by `function`, which is called once for each distinct value; null stays null."""
    encoded = values.dictionary_encode()
    mapped = pa.array([function(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return mapped.take(encoded.indices)


def _is_ipv6(text: str) -> bool:
    try:
        return IPv6Address(text).scope_id is None
    except AddressValueError:
        return False


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True
