"""Tokenizers of the Hugging Face Hub, from a server on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from colophon.pipeline.stages.vocabulary import PlannedTokenizer
from colophon.shards.tokenizer.patterns import PATTERNS
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, TokenizerError, load_tokenizer
from tests.pipeline.servers import ModelHub, model_hub_serving, use_model_hub
from tests.ports import free_ports
from tests.shards.tokenizer.vocabularies import CORPUS, edit_json, write_byte_level_json, write_ranks

TOKEN = "hf_t0kenOfSomebody"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """The files of `org/model`."""
    return {"README.md": b"#", "tokenizer.json": write_byte_level_json(tmp_path / "tokenizer.json").read_bytes()}


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    """A hub with `org/model` and others; this process has no token, and an empty cache."""
    others = dict.fromkeys(("org/private", "org/gated"), files) | {"org/none": {"tokenizer.model": b"x"}}
    hub = ModelHub({"org/model": files} | others, tokens={"org/private": TOKEN}, gated={"org/gated"})
    with model_hub_serving(hub):
        use_model_hub(hub.address, tmp_path / "hub", monkeypatch)
        yield hub


def load(name: str, **settings: str) -> Tokenizer:
    return load_tokenizer(TokenizerConfig.model_validate({"name": name, **settings}))


def error_of(name: str) -> str:
    with pytest.raises(TokenizerError) as raised:
        load(name)
    message = str(raised.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    return message


def paths(hub: ModelHub) -> list[str]:
    """The requests for a repository since the last call."""
    found = [path for _, path in hub.requests if "org" in path]
    hub.requests.clear()
    return found


def test_a_repository_gives_the_vocabulary_of_its_file(hub: ModelHub, tmp_path: Path) -> None:
    found, file = load("hf:org/model"), load_tokenizer(TokenizerConfig(path=str(tmp_path / "tokenizer.json")))
    assert (found.name, found.sha256, found.special) == ("org/model", file.sha256, file.special)
    assert found.encode_batch(pa.array(CORPUS)).equals(file.encode_batch(pa.array(CORPUS)))
    assert found.config.name == f"hf:org/model@{hub.commit('org/model')}"
    assert not any("README" in path for path in paths(hub))


def test_a_cached_commit_is_loaded_without_a_request(hub: ModelHub) -> None:
    first = load("hf:org/model@main")
    paths(hub)
    assert load("hf:org/model").config == first.config
    assert paths(hub) == ["/api/models/org/model/revision/main"]
    assert load(str(first.config.name)).sha256 == first.sha256
    assert paths(hub) == []


def test_a_worker_elsewhere_gets_the_commit_of_the_plan(
    hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch has moved since, and the worker's machine has an empty cache."""
    planned = load("hf:org/model")
    edit_json(tmp_path / "tokenizer.json", normalizer={"type": "Lowercase"})
    hub.repositories["org/model"] = {"tokenizer.json": (tmp_path / "tokenizer.json").read_bytes()}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "other"))
    worker = PlannedTokenizer.of(planned, num_meta_tokens=5).load()
    assert (worker.sha256, worker.name, worker.config) == (planned.sha256, planned.name, planned.config)
    moved = load("hf:org/model")
    assert moved.sha256 != planned.sha256
    assert moved.config.name == f"hf:org/model@{hub.commit('org/model')}"


def test_a_tokenizer_json_comes_before_other_files(hub: ModelHub, files: dict[str, bytes]) -> None:
    expected = load("hf:org/model").sha256
    hub.repositories["org/model"] = files | {"tekken.json": b"{}", "x.tiktoken": b""}
    assert load("hf:org/model").sha256 == expected


def test_a_repository_with_a_tiktoken_file_takes_a_pattern(hub: ModelHub, tmp_path: Path) -> None:
    ranks = write_ranks(tmp_path / "own.tiktoken", [b"ab"])
    hub.repositories["org/ranks"] = {"own.tiktoken": ranks.read_bytes()}
    found = load("hf:org/ranks", pattern="gpt2")
    file = load_tokenizer(TokenizerConfig(path=str(ranks), pattern="gpt2"))
    assert (found.name, found.sha256) == ("org/ranks", file.sha256)
    with pytest.raises(TokenizerError, match=r"own\.tiktoken needs a pattern"):
        load("hf:org/ranks")
    hub.repositories["org/ranks"]["more.tiktoken"] = b""
    assert "holds more.tiktoken, own.tiktoken" in error_of("hf:org/ranks")


@pytest.mark.parametrize("lists_special", [True, False])
def test_a_tekken_file(hub: ModelHub, tmp_path: Path, lists_special: bool) -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"th", b"dropped"]
    content: dict[str, object] = {
        "config": {"pattern": PATTERNS["tekken"], "default_vocab_size": 277, "default_num_special_tokens": 20},
        "vocab": [{"rank": i, "token_bytes": base64.b64encode(t).decode()} for i, t in enumerate(tokens)],
    }
    if lists_special:
        content["special_tokens"] = [{"rank": 0, "token_str": "<unk>"}, {"rank": 7, "token_str": "</s>"}]
    hub.repositories["org/tekken"] = {"tekken.json": json.dumps(content).encode()}
    found = load("hf:org/tekken")
    assert found.num_base_ids == 277
    assert found.special.eos == (7 if lists_special else 2)
    assert found.encode_batch(pa.array(["th<"])).to_pylist() == [[20 + 256, 20 + ord("<")]]
    (tmp_path / "tekken.json").write_bytes(b'{"config": {"pattern": "x"}}')
    with pytest.raises(TokenizerError, match=r"tekken\.json: not a tekken\.json: KeyError"):
        load_tokenizer(TokenizerConfig(path=str(tmp_path / "tekken.json")))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:org/other", "the Hub has no such repository, or it is private: then set HF_TOKEN"),
        ("hf:org/private", "the Hub has no such repository, or it is private: then set HF_TOKEN"),
        ("hf:org/gated", "the repository is gated. Ask for access on its page, and set HF_TOKEN"),
        ("hf:org/none", "the repository holds no tokenizer.json, tekken.json or .tiktoken file"),
        ("hf:org/model@v2", "the repository has no revision 'v2'"),
        ("hf:org/model@" + "0" * 40, "the repository has no revision '000"),
        ("hf:org/model/file", "expected hf:ORGANIZATION/MODEL or hf:ORGANIZATION/MODEL@REVISION"),
        ("hf:-", "not the name of a repository: "),
    ],
)
@pytest.mark.usefixtures("hub")
def test_errors_of_the_hub_are_one_line(name: str, expected: str) -> None:
    assert expected in error_of(name)


def test_a_private_repository_is_read_with_the_token(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load("hf:org/private").config.name == f"hf:org/private@{hub.commit('org/private')}"
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "nothing")
    assert "hf_other" not in error_of("hf:org/private")


def test_without_a_network_the_cache_is_used(hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load("hf:org/model")
    use_model_hub(f"http://127.0.0.1:{free_ports(1)[0]}", tmp_path / "hub", monkeypatch)
    assert load("hf:org/model").config == found.config
    assert "cannot be downloaded (Connect" in error_of("hf:org/gated")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load("hf:org/model").config == found.config
    assert error_of("hf:org/gated").endswith(
        "HF_HUB_OFFLINE is set, and the cache does not have it. Run once with a network, or set the path of a "
        "tokenizer file"
    )
