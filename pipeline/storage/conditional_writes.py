"""Conditional writes: an object is created, or replaced, only if nobody else has written it in the meantime.

    create      S3 and its like (If-None-Match), Google Cloud Storage (ifGenerationMatch), Azure (If-None-Match)
    replace     S3 and its like (If-Match)

fsspec has one way of creating for all of them. An S3 that ignores the condition, or does not know it, writes without
one; a run finds out by creating its lock twice. A request whose answer was lost is sent again by the libraries, and
then finds its own object: callers compare contents.
"""

from __future__ import annotations

import errno
from typing import Any

CREATING_PROTOCOLS = {"abfs", "abfss", "az", "gcs", "gs", "memory", "s3", "s3a"}
"""Protocols whose libraries can create an object for one process only."""
_REFUSED_CODES = {"PreconditionFailed", "412"}


def create(filesystem: Any, path: str, *, content: bytes) -> bool:
    """Create an object; False if it exists.

    Raises:
        OSError: the store fails.
    """
    try:
        filesystem.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        if _is_refusal(error):
            return False
        if error.errno != errno.ENOSYS:  # an S3 without conditions
            raise
        filesystem.pipe_file(path, content)
    return True


def version(filesystem: Any, path: str) -> str | None:
    """A value that changes with each write of an object; None if it is missing, or the store cannot use it."""
    if not hasattr(filesystem, "call_s3"):
        return None
    filesystem.invalidate_cache()
    try:
        return str(filesystem.info(path)["ETag"])
    except FileNotFoundError:
        return None


def replace(filesystem: Any, path: str, *, content: bytes, unless_after: str | None) -> bool:
    """Replace an object of this version; False if it has another. Without a version: create it, or see above.

    Raises:
        OSError: the store fails.
    """
    if not hasattr(filesystem, "call_s3"):
        filesystem.pipe_file(path, content)
        return True
    if unless_after is None:
        return create(filesystem, path, content=content) or filesystem.cat_file(path) == content
    bucket, key, _ = filesystem.split_path(path)
    try:
        filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=content, IfMatch=unless_after)
    except FileNotFoundError:  # it has been deleted
        return False
    except OSError as error:
        if _is_refusal(error):
            return bool(filesystem.cat_file(path) == content)
        if error.errno != errno.ENOSYS:
            raise
        filesystem.pipe_file(path, content)
    return True


def _is_refusal(error: OSError) -> bool:
    """Whether the condition of a request does not hold; s3fs has one errno for this and for invalid requests."""
    response = getattr(error.__cause__, "response", None)
    return isinstance(response, dict) and response.get("Error", {}).get("Code") in _REFUSED_CODES
