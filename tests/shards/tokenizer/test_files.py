"""Errors in loading vocabularies: one line that lists the choices."""

from __future__ import annotations

import codecs
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import tiktoken.load

from colophon.shards.tokenizer import files as tokenizer_files
from colophon.shards.tokenizer.tokenizer import TokenizerConfig, TokenizerError, load_tokenizer
from tests.shards.tokenizer.vocabularies import edit_json, write_byte_level_json, write_ranks, write_trained


def error_of(**config: str) -> str:
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(TokenizerConfig(**config))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def no_encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken's registry as in a process that has loaded no vocabulary."""
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})


@pytest.fixture
def ranks(tmp_path: Path) -> Path:
    return write_ranks(tmp_path / "some.tiktoken", [b"ab"])


def test_an_unknown_name_lists_the_known_ones() -> None:
    assert error_of(name="gtp2").startswith(
        "unknown tokenizer 'gtp2'; available: gpt2, cl100k_base, o200k_base, tekken"
    )


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert error_of(path=str(tmp_path / "no.tiktoken")) == f"no tokenizer file {tmp_path / 'no.tiktoken'}"
    assert error_of(path=str(tmp_path)) == f"no tokenizer file {tmp_path} (it is a folder)"


def test_an_unknown_type_of_file_lists_the_supported_ones(tmp_path: Path) -> None:
    (tmp_path / "spm.model").write_bytes(b"x")
    assert error_of(path=str(tmp_path / "spm.model")).endswith("supported: .tiktoken, .json (Hugging Face)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"IQ== 0\nhello world\n", "line 2: not a .tiktoken file: expected a base64 token and its rank, got 'hello "),
        (b"IQ== 0\nIg==\n", "line 2: not a .tiktoken file"),
        (b"IQ== 0\nIg== one\n", "line 2: not a .tiktoken file"),
        (b"\xff\xfe \x001\n", "UTF-16, not UTF-8. Convert it"),
        (b"IQ== 0\n\nIQ== 1\n", "line 3: token b'!' is repeated"),
        (b"IQ== 0\n", "no token for 255 of 256 bytes"),
    ],
)
def test_an_invalid_line_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.tiktoken"
    path.write_bytes(content)
    found = error_of(path=str(path), pattern="gpt2")
    assert message in found
    assert found.startswith(str(path))


def test_ranks_without_a_pattern_list_the_known_ones(ranks: Path) -> None:
    assert error_of(path=str(ranks)).endswith("one of gpt2, cl100k_base, o200k_base, tekken, or your own")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "invalid regular expression '('"),
        (r"\w+", "does not match every character"),
        ("gtp2", "known patterns: gpt2,"),
    ],
)
def test_an_invalid_pattern_is_named(ranks: Path, pattern: str, message: str) -> None:
    assert message in error_of(path=str(ranks), pattern=pattern)


def test_a_changed_file_is_read_again(ranks: Path) -> None:
    config = TokenizerConfig(path=str(ranks), pattern="gpt2")
    before = load_tokenizer(config)
    write_ranks(ranks, [b"ab", b"abc"])
    after = load_tokenizer(config)
    assert (before.num_base_ids, after.num_base_ids) == (257, 258)
    assert before.sha256 != after.sha256
    ranks.write_bytes(codecs.BOM_UTF8 + ranks.read_bytes())
    assert load_tokenizer(config).sha256 == after.sha256


def test_the_pattern_beside_a_vocabulary_is_used_unless_another_is_set(tmp_path: Path) -> None:
    path = write_trained(tmp_path / "own.tiktoken", pattern="tekken")
    found = load_tokenizer(TokenizerConfig(path=str(path)))
    assert found.sha256 == load_tokenizer(TokenizerConfig(path=str(path), pattern="tekken")).sha256
    assert found.sha256 != load_tokenizer(TokenizerConfig(path=str(path), pattern="gpt2")).sha256


def test_a_pattern_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    path = write_trained(tmp_path / "own.tiktoken")
    write_ranks(path, [b"ab"])
    assert "is the pattern of another vocabulary" in error_of(path=str(path))
    sidecar = tmp_path / "own.tiktoken.json"
    for content in ("[]", "{", json.dumps({"pattern": "x"})):
        sidecar.write_text(content)
        assert error_of(path=str(path)).startswith(f"{sidecar}: not the pattern of a .tiktoken file")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model": {"type": "Nothing"}}', '{"model": {"type": "BPE"}}'])
def test_a_json_that_is_not_a_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    assert error_of(path=str(path)).startswith(f"{path}: not a Hugging Face tokenizer.json: ")


@pytest.mark.parametrize("content", ['{"model": {"vocab": {"a": ID}}}', '{"model": {}, "added_tokens": [{"id": ID}]}'])
@pytest.mark.parametrize("number", [2**24, 2**31, 2**32 - 1, 10**30])
def test_an_id_whose_tables_would_fill_memory_is_refused(tmp_path: Path, content: str, number: int) -> None:
    """Libraries allocate a row for each id, and end the process if they cannot."""
    path = tmp_path / "tokenizer.json"
    path.write_text(content.replace("ID", str(number)))
    assert f"its largest id is {number}; ids up to 16777215 are supported" in error_of(path=str(path))
    ranks = tmp_path / "x.tiktoken"
    ranks.write_text(f"YQ== 0\nYg== {number}\n")
    assert f"its largest id is {number}; ids up to 16777215 are supported" in error_of(path=str(ranks), pattern="gpt2")


def test_a_json_takes_no_pattern(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "tokenizer.json")
    assert error_of(path=str(path), pattern="gpt2").endswith("a tokenizer.json has its own")


def test_the_sha256_of_a_json_covers_only_what_changes_the_ids_of_text(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "tokenizer.json")
    tokenizer = load_tokenizer(TokenizerConfig(path=str(path)))
    assert tokenizer.name == tmp_path.name
    edit_json(path, padding=None, post_processor=None)
    assert load_tokenizer(TokenizerConfig(path=str(path))).sha256 == tokenizer.sha256
    edit_json(path, normalizer={"type": "Lowercase"})
    assert load_tokenizer(TokenizerConfig(path=str(path))).sha256 != tokenizer.sha256


@pytest.mark.usefixtures("no_encodings")
def test_a_failed_download_names_the_folder_for_a_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read_file(url: str) -> bytes:
        raise requests.exceptions.ConnectionError(f"no route to {url}")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.load, "read_file", read_file)
    for name in ("gpt2", "cl100k_base", "o200k_base"):
        message = error_of(name=name)
        assert message.startswith(f"tiktoken cannot download the vocabulary {name!r} (ConnectionError: no route to")
        assert "Set TIKTOKEN_CACHE_DIR to a folder that holds it" in message


@pytest.mark.usefixtures("no_encodings")
def test_a_damaged_download_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.load, "read_file", lambda url: b"<html>captive portal</html>")
    assert "ValueError: Hash mismatch" in error_of(name="cl100k_base")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def silence() -> Iterator[threading.Event]:
    """An event that is set after the test, so that no thread outlives it."""
    over = threading.Event()
    yield over
    over.set()


def test_a_download_without_an_answer_times_out(monkeypatch: pytest.MonkeyPatch, silence: threading.Event) -> None:
    def get_encoding(name: str) -> tiktoken.Encoding:
        silence.wait()
        raise ConnectionError(name)

    monkeypatch.setattr(tokenizer_files, "DOWNLOAD_SECONDS", 0.01)
    monkeypatch.setattr(tiktoken, "get_encoding", get_encoding)
    assert "(TimeoutError: no answer in 0.01 seconds)" in error_of(name="gpt2")


def test_tekken_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tokenizer_files, "_TEKKEN_FILE", "data/other.json")
    assert "no file " in error_of(name="tekken")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert error_of(name="tekken").endswith("mistral-common, which is not installed")


def test_a_file_at_which_the_library_panics_is_one_line(tmp_path: Path) -> None:
    path = write_byte_level_json(tmp_path / "bad.json")
    model = json.loads(path.read_text())["model"]
    edit_json(path, model={**model, "continuing_subword_prefix": "longer than a token"})
    assert f"{path}: not a Hugging Face tokenizer.json: PanicError: a library failed: " in error_of(path=str(path))
