"""The loader of JSON files that hold a run's state."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from colophon.shards.common.errors import DamagedFileError
from colophon.shards.common.output_paths import OutputPathError
from colophon.shards.common.state_files import (
    is_as_written,
    parse_state,
    read_model,
    read_state,
    with_checksum,
)

REMEDY = "Delete it"


class Numbers(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    rates: dict[str, float] = {}


DAMAGES: dict[bytes, str] = {
    b"": "Expecting value",
    b'{"step": 1': "Expecting ',' delimiter",
    b"[1]": "expected a JSON object, got list",
    b"null": "expected a JSON object, got NoneType",
    b'{"step": "\xff"}': "'utf-8' codec can't decode",
    b'{"step": 1, "step": 2}': "the key 'step' occurs twice",
    b'{"step": 1, "rates": {"a": 1, "a": 1}}': "the key 'a' occurs twice",
    b'{"step": NaN}': "NaN is not JSON",
    b'{"step": -Infinity}': "-Infinity is not JSON",
    b'{"step": 1, "rates": {"a": 1e999}}': "the number 1e999 is too large",
    b'{"step": ' + b"9" * 10_000 + b"}": "Exceeds the limit",
    b'{"step": "\\ud800"}': "half of a surrogate pair",
    b'{"step": ' * 100_000: "maximum recursion depth",
    b"[" * 100_000 + b"]" * 100_000: "maximum recursion depth",
}


@pytest.mark.parametrize("content", DAMAGES, ids=lambda content: content[:40].decode("latin-1"))
def test_damaged_content_is_one_line_with_the_path_and_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    for read in (lambda: read_state(path, remedy=REMEDY), lambda: read_model(Numbers, path, remedy=REMEDY)):
        with pytest.raises(DamagedFileError) as raised:
            read()
        message = str(raised.value)
        assert message.startswith(f"{path}: damaged: {DAMAGES[content]}")
        assert message.endswith(f". {REMEDY}")
        assert "\n" not in message
        assert len(message) < 400


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "step: Field required"),
        ({"step": "x" * 5000}, "step: Input should be a valid integer"),
        ({"step": 10**30, "more": 1}, "more: Extra inputs are not permitted"),
        ({"step": 1, "rates": {"k" * 5000: "x"}}, f"rates.{'k' * 74}: Input should be a valid number"),
    ],
)
def test_other_types_are_one_line(tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFileError) as raised:
        read_model(Numbers, path, remedy=REMEDY)
    assert str(raised.value).startswith(f"{path}: damaged: {reason}")
    assert len(str(raised.value)) < 300


def test_what_is_no_regular_file_is_one_line_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name, kind in {"pipe": "a pipe", "directory": "a directory", "/dev/zero": "a device"}.items():
        with pytest.raises(OutputPathError, match=f"{name}: {kind}, not a regular file; "):
            read_state(tmp_path / name, remedy=REMEDY)
    with pytest.raises(DamagedFileError, match="cannot be read: "):
        read_state(tmp_path / ("n" * 300), remedy=REMEDY)
    assert read_state(tmp_path / "none.json", remedy=REMEDY) is None


def test_a_file_of_another_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(DamagedFileError, match="damaged: 10,737,418,240 bytes"):
        read_state(path, remedy=REMEDY)


def test_the_value_of_a_sound_file() -> None:
    value = {"a": [1, 2.5, None, "ü\U0001f642"], "b": {"a": 1e-320}}
    assert parse_state(json.dumps(value), where="w", remedy=REMEDY) == value
    assert parse_state(json.dumps(value, ensure_ascii=False).encode(), where="w", remedy=REMEDY) == value


def test_a_checksum_covers_every_other_byte() -> None:
    text = with_checksum(json.dumps({"checksum": "", "a": 1, "b": {"checksum": ""}}))
    assert with_checksum(text) == text
    assert is_as_written(text)
    assert [place for place in range(len(text)) if is_as_written(text[:place] + "~" + text[place + 1 :])] == []
    assert not is_as_written('{"a": 1}')
