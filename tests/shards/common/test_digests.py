"""sha256 of files and JSON values."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from colophon.shards.common.digests import file_sha256, fingerprint


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (2 << 20) + 5])
def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    path = tmp_path / "file"
    path.write_bytes(data[:size])
    assert file_sha256(path) == sha256(data[:size]).hexdigest()


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


def test_a_fingerprint_is_stored_in_files_so_it_never_changes() -> None:
    assert fingerprint({"b": "é", "a": [1, 2.5, None]}) == sha256(b'{"a": [1, 2.5, null], "b": "\\u00e9"}').hexdigest()
