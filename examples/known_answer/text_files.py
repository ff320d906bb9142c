"""The example's files: documents with their class as Parquet, and a vocabulary in which each word is one token."""

from __future__ import annotations

import base64
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hidden_markov import Documents, Process

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_SYLLABLES = [a + b for a, b in product(_CONSONANTS, _VOWELS)]


def words_of(process: Process) -> list[str]:
    """The words by number, such as ` ba`: a space and a syllable, so that each is one token anywhere in a text."""
    return [f" {syllable}" for syllable in _SYLLABLES[: process.num_words]]


def class_names(process: Process) -> list[str]:
    """The classes by number, such as `Ba`: one token each."""
    return [syllable.capitalize() for syllable in _SYLLABLES[: process.num_classes]]


def write_documents(path: Path, process: Process, documents: Documents) -> None:
    """Write a Parquet file with the columns `id`, `text`, `class` and `control`, a document a row."""
    words, names = np.array(words_of(process)), np.array(class_names(process))
    table = pa.table(
        {
            "id": [f"{path.stem}-{number}" for number in range(len(documents.words))],
            "text": ["".join(row) for row in words[documents.words]],
            "class": names[documents.classes],
            "control": names[documents.control],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_vocabulary(path: Path, process: Process) -> None:
    """Write a `.tiktoken` file: the 256 bytes, which any vocabulary needs, then the words and the classes.

    A token of three bytes is a merge of the first two and the last: ` b` precedes ` ba`.
    """
    words = words_of(process)
    tokens = [*dict.fromkeys(word[:-1] for word in words), *words, *class_names(process)]
    encoded = [*(bytes([byte]) for byte in range(256)), *(token.encode() for token in tokens)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(encoded)))
