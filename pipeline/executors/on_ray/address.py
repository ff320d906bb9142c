"""Addresses of clusters and job servers: their spelling, and whether anybody answers. Importing it loads no library."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
from pathlib import Path

from colophon.pipeline.errors import UsageError
from colophon.shards.common.url_secrets import has_secret
from colophon.shards.common.web_addresses import is_web_address

ANSWER_SECONDS = 20.0
"""How long a command waits for a cluster that does not answer."""
_CONNECT_SECONDS = 10.0
_MOST_PORTS = 65_535
OTHER_JOB_SERVER = "Set --address to that of the cluster's dashboard, http://HOST:8265"
OTHER_CLUSTER = (
    "Start one there with `ray start --head`, set RAY_ADDRESS or ray.address to another, or use --executor local"
)
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s/:@\[\]]+):(?P<port>\d{1,5})")


def check_cluster_address(address: str, *, where: str) -> None:
    """Check the spelling of a cluster's address, and that something listens there, within 10 seconds.

    Raises:
        UsageError: it is spelled in another way, its name is unknown, or nothing listens there. Ray would import, and
            so run, a module that the address names as its protocol.
    """
    if address == "auto":
        return
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None:
        shown = address.rpartition("@")[2]  # before it may be a password
        raise UsageError(f"ray: no cluster at {shown}: {where} must be HOST:PORT, ray://HOST:PORT or auto")
    if reason := unreachable(found["host"], int(found["port"])):
        raise UsageError(f"ray: no cluster at {address}: {reason}. {OTHER_CLUSTER}")


def job_server_url(address: str) -> str:
    """`--address` of a submission as a URL; `HOST:8265` is `http://HOST:8265`.

    Raises:
        UsageError: it may hold a secret, is no web address, or has no port.
    """
    url = address if "://" in address else f"http://{address}"
    if has_secret(url):
        raise UsageError("submit: --address must not hold a secret. Set RAY_AUTH_TOKEN, or RAY_JOB_HEADERS for a proxy")
    if not is_web_address(url):
        raise UsageError("submit: --address: must be http://HOST:8265")
    if "://" not in address and _host_and_port(url) is None:
        raise UsageError(f"submit: --address {address}: must be http://HOST:8265")
    return url


def check_job_server(url: str) -> None:
    """Check that something answers at a job server's URL. Ray's client would wait for it without end.

    Raises:
        UsageError: its name is unknown, nothing listens there, or it does not answer within 20 seconds.
    """
    found = _host_and_port(url)  # None: a path or a default port, behind a proxy
    reason = unreachable(found["host"], int(found["port"])) if found is not None else None
    if reason := reason or _unanswered(url):
        raise UsageError(f"submit: no Ray job server at {url}: {reason}. {OTHER_JOB_SERVER}")


def _unanswered(url: str) -> str | None:
    """Return that a web server is silent; None if it answers anything, or fails at once, which Ray's client reports."""
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    try:
        urllib.request.urlopen(f"{url.rstrip('/')}/api/version", timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
            return f"no answer within {ANSWER_SECONDS:g} seconds"
    return None


def _host_and_port(url: str) -> re.Match[str] | None:
    return _HOST_AND_PORT.fullmatch(url.partition("://")[2].rstrip("/"))


def unreachable(host: str, port: int) -> str | None:
    """Return why no connection to a port is possible; None if there is one."""
    if not 0 < port <= _MOST_PORTS:
        return f"a port is a number from 1 to {_MOST_PORTS}"
    try:
        socket.create_connection((host.strip("[]"), port), timeout=_CONNECT_SECONDS).close()
    except TimeoutError:
        return f"no answer within {_CONNECT_SECONDS:g} seconds"
    except (OSError, UnicodeError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def private_temporary_directory() -> Path:
    """The directory in which Ray, started on this machine, puts its sockets and logs; it is created if it is missing.

    Nobody else can enter it: Ray itself lets every user read and write all below it. It is the directory that
    `RAY_TMPDIR` or `TMPDIR` names, if that is private, else `ray-<uid>` in it or in `/tmp`.

    Raises:
        UsageError: Ray cannot use it.
    """
    variable = next((name for name in _directory_variables() if name in os.environ), None)
    parent = Path(os.environ[variable] if variable else "/tmp")
    reason = _unusable(parent)
    if reason is not None:
        name = f"{variable}={parent}" if variable else str(parent)
        remedy = "Set RAY_TMPDIR to a short, writable directory such as /tmp, or use --executor local"
        raise UsageError(f"ray: {name}: {reason}. {remedy}")
    return _private(parent)


def _directory_variables() -> tuple[str, ...]:
    return ("RAY_TMPDIR", "TMPDIR") if sys.platform.startswith("linux") else ("RAY_TMPDIR",)


def _unusable(parent: Path) -> str | None:
    if not str(parent).isascii():
        return "Ray needs a path of ASCII characters"
    longest = 103 if sys.platform == "darwin" else 107  # bytes of a socket's path
    longest -= len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
    directory = _private(parent)
    longest -= len(str(directory)) - len(str(parent))
    if len(str(parent.absolute())) > longest:
        return f"too long for Ray's sockets: at most {longest} characters"
    if not parent.is_dir():
        return "not a directory" if parent.exists() else "no such directory"
    existing = directory / "ray" if (directory / "ray").exists() else directory
    probe = existing / f".colophon-{os.getpid()}.tmp"
    try:
        if directory != parent:
            _create_private(directory)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return f"{existing} cannot be written: {error.strerror}"
    return None


def _create_private(directory: Path) -> None:
    """Create a directory that this user alone can enter, unless it exists."""
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise OSError(errno.EPERM, "it is a link, or of another user")
    directory.chmod(0o700)


def _private(parent: Path) -> Path:
    """`parent` if this user alone can enter it, else a directory of this user's in it, which need not exist."""
    try:
        status = parent.stat()
    except OSError:
        return parent
    is_private = status.st_uid == os.getuid() and not status.st_mode & 0o077
    return parent if is_private else parent / f"ray-{os.getuid()}"
