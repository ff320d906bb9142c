"""Trained vocabularies: deterministic files that tiktoken loads."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from colophon.shards.tokenizer import training as tokenizer_training
from colophon.shards.tokenizer.patterns import PATTERNS
from colophon.shards.tokenizer.tokenizer import TokenizerConfig, TokenizerError, load_tokenizer
from colophon.shards.tokenizer.training import splitter, train_tokenizer
from tests.shards.tokenizer.vocabularies import CORPUS, read_encoding


def test_tiktoken_loads_the_trained_file(tmp_path: Path) -> None:
    result = train_tokenizer(CORPUS, vocabulary_size=300, output=tmp_path / "new" / "own.tiktoken")
    assert (result.num_tokens, result.vocabulary_size, result.num_texts) == (300, 300, 3)
    assert result.text_bytes == sum(len(text.encode()) for text in CORPUS)
    assert sorted(path.name for path in result.path.parent.iterdir()) == ["own.tiktoken", "own.tiktoken.json"]
    data = result.path.read_bytes()
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    assert json.loads((tmp_path / "new" / "own.tiktoken.json").read_text())["pattern"] == PATTERNS["o200k_base"]
    encoding = read_encoding(result.path, pattern="o200k_base")
    assert encoding.n_vocab == 300
    assert [encoding.decode_single_token_bytes(rank) for rank in range(256)] == [bytes([byte]) for byte in range(256)]
    assert " lazy" in {encoding.decode([rank]) for rank in range(256, 300)}


def test_merges_worked_out_by_hand(tmp_path: Path) -> None:
    # Words: "ab" twelve times, "abc" five times. Pairs: ab 17, bc 5; then (ab)c 5; nothing is left to merge.
    result = train_tokenizer(["ab\nabc\n" * 5 + "ab\n" * 7], vocabulary_size=300, output=tmp_path / "ab.tiktoken")
    encoding = read_encoding(result.path, pattern="o200k_base")
    assert [encoding.decode([rank]) for rank in range(256, result.num_tokens)] == ["ab", "abc"]
    assert encoding.encode_ordinary("abcab") == [257, 256]


def test_a_small_corpus_gives_fewer_tokens_than_asked_for(tmp_path: Path) -> None:
    result = train_tokenizer(["a"], vocabulary_size=1000, output=tmp_path / "own.tiktoken")
    assert (result.num_tokens, result.vocabulary_size) == (256, 1000)
    assert load_tokenizer(TokenizerConfig(path=str(result.path))).num_base_ids == 256


def test_every_type_of_batch_gives_the_same_file(tmp_path: Path) -> None:
    batches = {
        "strings": list(CORPUS),
        "array": [pa.array([CORPUS[0], None, CORPUS[1]]), pa.array([CORPUS[2], ""], pa.large_string())],
        "chunks": [pa.chunked_array([[None, *CORPUS[:1]], CORPUS[1:]])],
        "columns": iter([pa.array(["unseen", *CORPUS]).slice(1)]),
    }
    files = {
        train_tokenizer(texts, vocabulary_size=350, output=tmp_path / f"{name}.tiktoken").path.read_bytes()
        for name, texts in batches.items()
    }
    assert len(files) == 1


TRAIN = """
import sys
from pathlib import Path
from colophon.shards.tokenizer.training import train_tokenizer
texts = [f"{word} {number} " * (number % 7 + 1) for number in range(500) for word in ("aa", "bab", "abba", "cab")]
train_tokenizer(texts, vocabulary_size=600, output=Path(sys.argv[1]))
"""


def test_other_processes_and_threads_give_the_same_file(tmp_path: Path) -> None:
    files = set()
    for seed, threads in (("1", "1"), ("2", "4")):
        path = tmp_path / f"{seed}.tiktoken"
        env = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        root = Path(tokenizer_training.__file__).parents[2]
        subprocess.run([sys.executable, "-c", TRAIN, str(path)], env=env, cwd=root, check=True)
        files.add(path.read_bytes())
    assert len(files) == 1
    assert len(next(iter(files)).splitlines()) > 300


def test_training_again_replaces_both_files(tmp_path: Path) -> None:
    path = tmp_path / "own.tiktoken"
    train_tokenizer(CORPUS, vocabulary_size=300, output=path, pattern="gpt2")
    again = train_tokenizer(CORPUS, vocabulary_size=310, output=path, pattern="tekken")
    assert load_tokenizer(TokenizerConfig(path=str(path))).num_base_ids == again.num_tokens == 310
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    path = tmp_path / "own.tiktoken"
    train_tokenizer(CORPUS, vocabulary_size=300, output=path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        train_tokenizer(CORPUS, vocabulary_size=310, output=path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_long_texts_are_trained_on(tmp_path: Path) -> None:
    # As one word these would take the trainer hours, or make its regular expressions panic.
    texts = ["A" * 12_000_000, " " * 1_000_000 + "x", *CORPUS]
    result = train_tokenizer(texts, vocabulary_size=300, output=tmp_path / "long.tiktoken")
    assert result.num_tokens == 300
    assert result.text_bytes > 13_000_000


def test_long_texts_are_cut_between_words(tmp_path: Path) -> None:
    words = "these words  are whole " * 50_000
    one = train_tokenizer([words], vocabulary_size=300, output=tmp_path / "one.tiktoken")
    many = train_tokenizer([words[:230]] * 5000, vocabulary_size=300, output=tmp_path / "many.tiktoken")
    assert one.path.read_bytes() == many.path.read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary_size": 255}, "must be at least 256, one token a byte, got 255"),
        ({"output": Path("own.json")}, r"must end in \.tiktoken, got own.json"),
        ({"pattern": "("}, "invalid regular expression"),
        ({"pattern": r"\w+"}, "does not match every character"),
        ({"pattern": r"\p{N}{1,3}+|[^\p{N}]+"}, r"\{1,3\}\+ has a different meaning"),
        ({"texts": []}, r"no text to train a tokenizer on: 0 texts"),
        ({"texts": [pa.array(["", None])]}, r"no text to train a tokenizer on: 1 texts"),
    ],
)
def test_invalid_arguments_are_an_error(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    arguments = {"texts": CORPUS, "vocabulary_size": 300, "output": tmp_path / "own.tiktoken", **settings}
    with pytest.raises(TokenizerError, match=message):
        train_tokenizer(arguments.pop("texts"), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_atomic_group_that_the_error_proposes_works(tmp_path: Path) -> None:
    pattern = r"(?>\p{N}{1,3})|[^\p{N}]"
    result = train_tokenizer(["1234 1234 1234"], vocabulary_size=300, output=tmp_path / "own.tiktoken", pattern=pattern)
    tokenizer = load_tokenizer(TokenizerConfig(path=str(result.path)))
    ids = tokenizer.encode_batch(pa.array(["1234"])).to_pylist()[0]
    assert tokenizer.token_strings(ids) == ["123", "4"]


# Letters of each class that the patterns distinguish, digits, marks, spaces and line ends, none newer than Unicode 6:
# the three regular expression engines compared may have different Unicode versions.
CHARACTERS = "aZſKéßǅʰªאहि\u0301\u0e31漢😀1٣Ⅷ½'’ \t\r\n\v\f\x1c\x85\xa0\u2003\u2028\u3000.,/-_<|>\x00\u200d\ufeff"


@pytest.mark.parametrize("pattern", list(PATTERNS))
@given(
    text=st.lists(
        st.one_of(st.sampled_from(CHARACTERS), st.sampled_from(["'ll", "'RE", "12345", "camelCase", "  ", "\r\n"])),
        max_size=30,
    ).map("".join)
)
def test_training_splits_text_as_encoding_does(pattern: str, text: str) -> None:
    ours = [piece for piece, _ in splitter(PATTERNS[pattern]).pre_tokenize_str(text)]
    assert ours == regex.findall(PATTERNS[pattern], text)
