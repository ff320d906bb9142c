"""The form of a web address."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_web_address(address: str) -> bool:
    """Whether it is `http://` or `https://` with a host, and with a port from 1 to 65535 if it has one."""
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without end, or a port that is none
        return False
