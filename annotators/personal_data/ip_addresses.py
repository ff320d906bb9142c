"""Public IP addresses, of version 4 and 6.

No addresses here are private, reserved and example ones, numbers of versions and sections, and parts of longer names.
Four numbers below ten (`1.2.3.4`) count as a version: no person has such an address, and sections often do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address

_V4 = re.compile(r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9]|\.[0-9])")
_V6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:v|vers?|versions?|releases?|rev|revision|build|firmware|driver|update|patch|kernel|sections?|sec|chapters?"
    r"|clauses?|articles?|paragraphs?|para|rules?|parts?|table|figure|fig|oid|php|java|jdk|sdk|chrome|firefox|opera"
    r"|safari|windows|android|ios|macos|nt)\b\.?|§)[\s:#=(]{0,3}\Z",
    re.IGNORECASE,
)
_CONTEXT = 24
"""Characters before a number in which a word such as `version` is looked for."""
_GLOBAL_UNICAST = (0x2, 0x3)
"""The first hexadecimal digit of 2000::/3, all of which is public today."""


def ip_addresses(text: str) -> Iterator[tuple[int, int]]:
    """The start and end of each public IP address."""
    for found in _V4.finditer(text):
        if _is_public_v4(found[0]) and not _is_version(text, found.start(), found.end()):
            yield found.span()
    for found in _V6.finditer(text):
        name = found[0].rstrip(":") if not found[0].endswith("::") else found[0]
        if _is_public_v6(name):
            yield found.start(), found.start() + len(name)


def _is_public_v4(name: str) -> bool:
    try:
        address = IPv4Address(name)
    except AddressValueError:
        return False
    return address.is_global and not address.is_multicast and any(octet > 9 for octet in address.packed)


def _is_public_v6(name: str) -> bool:
    try:
        address = IPv6Address(name)
    except AddressValueError:
        return False
    return address.is_global and address.packed[0] >> 4 in _GLOBAL_UNICAST


def _is_version(text: str, start: int, end: int) -> bool:
    """Whether the number belongs to a name or follows a word such as `version`."""
    before, after = text[max(0, start - _CONTEXT) : start], text[end : end + 2]
    is_in_name = bool(re.search(r"[\w-]\Z|\w/\Z", before)) or bool(re.match(r"[^\W\d]|[-_]\w", after))
    return is_in_name or _VERSION_BEFORE.search(before) is not None
