"""Text preparation: every text becomes one line before a classifier reads it, in training and in annotating.

fastText reads one line, and would ignore everything after the first newline. How newlines are replaced changes scores,
so the settings are part of an annotator's fingerprint. docs/annotators.md has those of public models.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

# The places where Python's str.splitlines cuts; carriage return and line feed together are one cut.
_LINE_BREAK = r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x{85}\x{2028}\x{2029}]"
# All punctuation and symbols. Marks inside words and numbers (hyphen, apostrophe, full stop, comma) are separated too,
# as in the fastText tutorial.
_PUNCTUATION = r"([\pP\pS])"


class TextPreparation(BaseModel):
    """The preparation of texts, in the order `max_chars`, `newline`, `lower`, `separate_punctuation`.

    Example:

        [annotators.quality]
        type = "fasttext"
        model = "models/quality.bin"
        normalize = { newline = "collapse", lower = true }
        score = { expected = { Low = 0, Mid = 1, High = 2 } }
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    newline: Literal["space", "delete", "collapse", "join_lines"] = "space"
    r"""The replacement of line feeds. `space`: each becomes a space. `delete`: each is removed, which joins words.
    `collapse`: a run of them becomes one space. `join_lines`: as DCLM does, strip white space at both ends, cut the
    text where Python's `splitlines` does (also at `\r`, `\x0c`, U+2028, ...) and join the lines with one space."""

    lower: bool = False
    """Lower case, character by character (Unicode simple case mapping; Python's `lower` differs on `İ` and final Σ)."""

    separate_punctuation: bool = False
    """Put spaces around every punctuation mark and symbol, so that `end.` and `end` are the same word."""

    max_chars: int | None = Field(default=None, ge=1)
    """Read only this many characters (code points) of the raw text."""

    def __call__(self, texts: pa.Array) -> pa.Array:
        r"""Prepare `texts` (string or large_string): same type, length and nulls, without any `\n`.

        Bytes that are not UTF-8 are replaced by U+FFFD. Cost: 150 to 2,000 MB/s a step.
        """
        texts = self.valid(texts)
        if self.max_chars is not None:
            texts = pc.utf8_slice_codeunits(texts, 0, self.max_chars)
        texts = self._without_newlines(texts)
        if self.lower:
            texts = pc.utf8_lower(texts)
        if self.separate_punctuation:
            texts = pc.replace_substring_regex(texts, _PUNCTUATION, r" \1 ")
        return texts

    @property
    def only_separates_words(self) -> bool:
        """Whether fastText reads the same words in the raw text if a line feed ends a word."""
        changed = self.lower or self.separate_punctuation or self.max_chars is not None
        return self.newline in ("space", "collapse") and not changed

    @staticmethod
    def valid(texts: pa.Array) -> pa.Array:
        """`texts` with U+FFFD for bytes that are not UTF-8, which Parquet can hold and Arrow reads without a check."""
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            binary = pa.large_binary() if pa.types.is_large_string(texts.type) else pa.binary()
            values = texts.cast(binary).to_pylist()
            return pa.array([None if v is None else v.decode("utf-8", "replace") for v in values], texts.type)
        return texts

    def _without_newlines(self, texts: pa.Array) -> pa.Array:
        if self.newline == "join_lines":
            return pc.replace_substring_regex(pc.utf8_trim_whitespace(texts), _LINE_BREAK, " ")
        if self.newline == "collapse":
            return pc.replace_substring_regex(texts, r"\n+", " ")
        return pc.replace_substring(texts, "\n", " " if self.newline == "space" else "")
