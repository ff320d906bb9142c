"""Small vocabularies for tests, and the ids that their reference libraries give."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tiktoken
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from colophon.shards.tokenizer.patterns import PATTERNS
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from colophon.shards.tokenizer.training import train_tokenizer

SPECIAL_STRINGS = (
    *("<|endoftext|>", "<|begin_of_text|>", "<|pad|>", "<|context_begin|>", "<|context_end|>", "<|meta_1|>"),
    *("<s>", "</s>", "<pad>", "<unk>", "<SPECIAL_61>", "[INST]", "<|no token of this name|>"),
)
"""Names of special tokens in the vocabularies here, as a document may contain them."""

CORPUS = (
    "the quick brown fox jumps over the lazy dog, and the lazy dog doesn't mind at all",
    "It's 1234567 o'clock in camelCase and snake_case; see <|endoftext|> or </s> there.\r\n\n\tindented  twice\n",
    "Grüße aus München, où l'été dure; हिन्दी में लिखा हुआ, 漢字かな交じり文 😀😀",
)


def write_ranks(path: Path, tokens: Iterable[bytes]) -> Path:
    """A `.tiktoken` file of the 256 bytes and `tokens`."""
    ranked = [*(bytes([byte]) for byte in range(256)), *tokens]
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(t), rank) for rank, t in enumerate(ranked)))
    return path


def write_trained(path: Path, *, pattern: str = "o200k_base") -> Path:
    """A vocabulary trained on `CORPUS`, with its sidecar."""
    return train_tokenizer(CORPUS, vocabulary_size=400, output=path, pattern=pattern).path


def read_encoding(path: Path, *, pattern: str) -> tiktoken.Encoding:
    """The file as a user of tiktoken loads it."""
    lines = (line.split() for line in path.read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding("reference", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={})


def write_byte_level_json(path: Path) -> Path:
    """A byte-level BPE `tokenizer.json` with all settings that add ids, cut ids or find special ids in text."""
    tokenizer = HuggingFaceTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet, show_progress=False, special_tokens=[])
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["<s>", "</s>", "<pad>", "<|endoftext|>", "<|reserved_special_token_0|>"])
    tokenizer.add_tokens(["<plain>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    )
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>", length=64)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(path))
    return path


def write_unigram_json(path: Path) -> Path:
    """A SentencePiece-like `tokenizer.json`: Unigram with `</s>` among its own pieces, and a metaspace."""
    letters = sorted({*"".join(CORPUS), *"".join(SPECIAL_STRINGS)} - set(" \r\n\t"))
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁the", -1.0), ("lazy", -1.5)]
    tokenizer = HuggingFaceTokenizer(models.Unigram(pieces + [(letter, -6.0) for letter in letters], 0, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(path))
    return path


def random_words(num_bytes: int, *, seed: int) -> list[str]:
    """Texts of about 1 kB with words of 6 random letters, of which hardly any repeats."""
    letters = np.random.default_rng(seed).integers(97, 123, (num_bytes // 7, 7), dtype=np.uint8)
    letters[:, 6] = ord(" ")
    text = letters.tobytes().decode()
    return [text[i : i + 1050] for i in range(0, len(text), 1050)]


def load(path: Path, **settings: Any) -> Tokenizer:
    """The tokenizer of a vocabulary file."""
    return load_tokenizer(TokenizerConfig(path=str(path), **settings))


def reference_ids(tokenizer: Tokenizer, texts: list[str | None]) -> list[list[int]]:
    """Ids of each text by the reference library."""
    return [tokenizer.backend.encode(text).tolist() if text else [] for text in texts]


def assert_fast_and_equal(tokenizer: Tokenizer, *texts: str | None) -> None:
    """Assert that the fast engine encodes, and that its ids of `texts` are the reference's."""
    ids = tokenizer.encode_batch(pa.array(texts, pa.string())).to_pylist()
    assert tokenizer.engine.startswith("gigatoken 0.10")
    assert ids == reference_ids(tokenizer, list(texts))


def edit_json(path: Path, **changes: Any) -> Path:
    """Replace top-level values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path
