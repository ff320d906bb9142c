"""Tokenizers on real text, and GPT-2's vocabulary as tiktoken downloads it."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiktoken

from colophon.shards.tokenizer.backends import spelling
from colophon.shards.tokenizer.patterns import PATTERNS
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, TokenizerError, load_tokenizer
from colophon.shards.tokenizer.training import train_tokenizer

pytestmark = pytest.mark.shared

_BASE = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"


@pytest.fixture(scope="module")
def gpt2_path(shared_data: Path) -> Path:
    return shared_data / "vocab" / "gpt2.tiktoken"


@pytest.fixture(scope="module")
def ranks(gpt2_path: Path) -> dict[bytes, int]:
    lines = (line.split() for line in gpt2_path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


@pytest.fixture(scope="module")
def gpt2(gpt2_path: Path) -> Tokenizer:
    return load_tokenizer(TokenizerConfig(path=str(gpt2_path), pattern="gpt2"))


@pytest.fixture(scope="module")
def reference(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    special = {"<|endoftext|>": 50256}
    return tiktoken.Encoding("gpt2", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens=special)


def texts_of(path: Path, rows: int | None = None) -> pa.ChunkedArray:
    return pq.read_table(path, columns=["text"])["text"].slice(0, rows)


def web(shared_data: Path, rows: int) -> pa.ChunkedArray:
    return texts_of(min((shared_data / "web").glob("*.parquet")), rows)


def same_as(reference: tiktoken.Encoding, tokenizer: Tokenizer, texts: pa.ChunkedArray) -> None:
    ids = tokenizer.encode_batch(texts)
    assert ids.to_pylist() == [reference.encode_ordinary(text) for text in texts.to_pylist()]
    assert [tokenizer.decode(row.values) for row in ids] == texts.to_pylist()


def test_gpt2_has_the_ids_of_tiktoken_on_web_text(
    shared_data: Path, gpt2: Tokenizer, reference: tiktoken.Encoding
) -> None:
    same_as(reference, gpt2, web(shared_data, 400))


def test_gpt2_has_the_ids_of_tiktoken_on_many_languages(
    shared_data: Path, gpt2: Tokenizer, reference: tiktoken.Encoding
) -> None:
    for path in sorted((shared_data / "multilingual").glob("*.parquet")):
        same_as(reference, gpt2, texts_of(path, 10))


@pytest.mark.parametrize("name", ["odd_text", "huge_document"])
@pytest.mark.parametrize("vocabulary", ["gpt2", "tekken"])
def test_unusual_and_huge_texts_are_encoded(
    shared_data: Path, gpt2: Tokenizer, reference: tiktoken.Encoding, name: str, vocabulary: str
) -> None:
    texts = texts_of(shared_data / "hostile" / f"{name}.parquet")
    if vocabulary == "gpt2":
        same_as(reference, gpt2, texts)
        return
    tokenizer = load_tokenizer(TokenizerConfig(name="tekken"))
    ids = tokenizer.encode_batch(texts)
    assert [tokenizer.decode(row.values) for row in ids] == texts.to_pylist()
    assert min(ids.values.to_pylist()) >= 1000


VOCABULARIES = ("gpt2", "cl100k_base", "tekken", "trained")


@pytest.fixture(scope="module")
def vocabularies(shared_data: Path, gpt2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    path = tmp_path_factory.mktemp("trained") / "web.tiktoken"
    train_tokenizer(web(shared_data, 300).chunks, vocabulary_size=8192, output=path)
    configs = {
        "gpt2": TokenizerConfig(path=str(gpt2_path), pattern="gpt2"),
        "cl100k_base": TokenizerConfig(path=str(gpt2_path), pattern="cl100k_base"),
        "tekken": TokenizerConfig(name="tekken"),
        "trained": TokenizerConfig(path=str(path)),
    }
    return {name: load_tokenizer(config) for name, config in configs.items()}


def fast_is_the_reference(tokenizer: Tokenizer, texts: pa.ChunkedArray) -> None:
    ids = tokenizer.encode_batch(texts)
    assert tokenizer.engine.startswith("gigatoken")
    offsets, values = ids.offsets.to_numpy(), ids.values.to_numpy()
    for row, text in enumerate(texts.to_pylist()):
        assert np.array_equal(values[offsets[row] : offsets[row + 1]], tokenizer.backend.encode(text or "")), row


@pytest.mark.parametrize("number", range(len(VOCABULARIES)))
@pytest.mark.parametrize("folder", ["web", "multilingual"])
def test_the_fast_engine_has_the_ids_of_the_reference(
    shared_data: Path, vocabularies: dict[str, Tokenizer], folder: str, number: int
) -> None:
    """Each document is encoded with one of the vocabularies, each file with all of them."""
    tokenizer = vocabularies[VOCABULARIES[number]]
    for path in sorted((shared_data / folder).glob("*.parquet")):
        texts = texts_of(path)
        fast_is_the_reference(tokenizer, texts.take(pa.array(range(number, len(texts), len(VOCABULARIES)))))


@pytest.mark.parametrize("name", VOCABULARIES)
def test_the_fast_engine_has_the_ids_of_the_reference_on_hostile_texts(
    shared_data: Path, vocabularies: dict[str, Tokenizer], name: str
) -> None:
    columns = []
    for path in sorted((shared_data / "hostile").rglob("*.parquet")):
        with suppress(OSError, pa.ArrowInvalid):  # files that cannot be read, or have no texts
            columns.append(texts_of(path))
    seen = 0
    for column in columns:
        try:
            fast_is_the_reference(vocabularies[name], column)
        except TokenizerError as error:
            assert "is not UTF-8" in str(error) or "must be strings" in str(error)
        else:
            seen += len(column)
    assert seen > 1000


def test_a_vocabulary_trained_on_web_text(shared_data: Path, tmp_path: Path) -> None:
    texts = web(shared_data, 300)
    path = train_tokenizer(texts.chunks, vocabulary_size=4096, output=tmp_path / "web.tiktoken").path
    tokenizer = load_tokenizer(TokenizerConfig(path=str(path)))
    ids = tokenizer.encode_batch(texts)
    assert [tokenizer.decode(row.values) for row in ids] == texts.to_pylist()
    num_bytes = sum(len(text.encode()) for text in texts.to_pylist())
    assert num_bytes / len(ids.values) > 3.0
    assert len(ids.values.unique()) > 0.95 * 4096  # not all 256 bytes occur as tokens


def test_gpt2_by_name_is_read_from_tiktokens_cache(
    ranks: dict[bytes, int], gpt2: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two files that tiktoken downloads are rebuilt from the ranks, byte for byte: it checks their sha256."""
    for name, content in {"vocab.bpe": vocab_bpe(ranks), "encoder.json": encoder_json(ranks)}.items():
        (tmp_path / hashlib.sha1(f"{_BASE}/{name}".encode()).hexdigest()).write_bytes(content)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    named = load_tokenizer(TokenizerConfig(name="gpt2"))
    assert named.settings == gpt2.settings
    assert (named.special, named.num_ids) == (gpt2.special, gpt2.num_ids)
    assert (named.num_base_ids, named.special.eos) == (50257, 50256)
    texts = pa.array(["Hello <|endoftext|> world"])
    assert named.encode_batch(texts) == gpt2.encode_batch(texts)


def vocab_bpe(ranks: dict[bytes, int]) -> bytes:
    merges = [" ".join(map(spelling, last_two(token, ranks))) for token in by_rank(ranks) if len(token) > 1]
    return "\n".join(["#version: 0.2", *merges, ""]).encode()


def encoder_json(ranks: dict[bytes, int]) -> bytes:
    return json.dumps({**{spelling(token): ranks[token] for token in by_rank(ranks)}, "<|endoftext|>": 50256}).encode()


def by_rank(ranks: dict[bytes, int]) -> list[bytes]:
    return sorted(ranks, key=ranks.__getitem__)


def last_two(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two parts whose merge gives `token`: merge its bytes by rank until two are left."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
        best = pairs.index(min(pairs))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts
