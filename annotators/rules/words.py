"""Words and sentences for datatrove's filters, in a regular expression each.

datatrove's own tokenizers need a package for each language, and most of a filter's time. Here a word is a run of
letters, digits and underscores, with an apostrophe, a full stop or a comma inside (`don't`, `3.5`); a run of full
stops is one, every other mark one of its own, as in spaCy.
"""

from __future__ import annotations

import re

from datatrove.utils.word_tokenizers import WordTokenizer, load_tokenizer_assignments

FAST = "colophon"
"""The language under which datatrove's filters find this tokenizer."""

_WORD = re.compile(r"\w+(?:['’.,]\w+)*|\.{2,}|[^\w\s]")
_SENTENCE = re.compile(r"\S.*?(?:[.!?。！？…]+[\"'”’)\]]*(?=\s|$)|[。！？]|\n|$)", re.DOTALL)


class FastTokenizer(WordTokenizer):  # type: ignore[misc]
    """Cuts texts of languages that write spaces between words."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words and marks of a text."""
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """The sentences of a text, without white space around them."""
        return [sentence for found in _SENTENCE.finditer(text) if (sentence := found[0].strip())]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each sentence."""
        return [found.span() for found in _SENTENCE.finditer(text)]


def register() -> None:
    """Let datatrove's filters find `FastTokenizer` under the language `FAST`."""
    load_tokenizer_assignments()[FAST] = FastTokenizer
