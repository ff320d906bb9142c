"""The `c4` annotator: the rules of C4 (arXiv 1910.10683, section 2.2), through datatrove's filter.

C4 drops lines, and then the documents of which too few sentences are left. The annotator gives the verdict on the
document; its text stays whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from colophon.annotators.rules.verdicts import RulesAnnotator, RulesConfig

if TYPE_CHECKING:
    from datatrove.pipeline.filters.base_filter import BaseFilter


class C4Config(RulesConfig):
    """Applies C4's rules.

    Example:

        [annotators.c4]
        min_sentences = 3
    """

    type_name: ClassVar[str] = "c4"

    min_sentences: int = Field(default=5, ge=0)
    """Sentences that must be left in the lines that C4 keeps."""
    min_words_of_line: int = Field(default=3, ge=0)
    """Words of the shortest line that C4 keeps."""
    terminal_punctuation: bool = True
    """Drop lines that do not end with `.`, `?`, `!` or a quote."""
    curly_brackets: bool = True
    """Drop documents with a curly bracket in a kept line."""

    def build(self, name: str) -> RulesAnnotator:
        """The annotator under `name`, see `RulesConfig.build_rules`."""
        return self.build_rules(name, partial(_filters, self))


def _filters(config: C4Config, language: str) -> Sequence[BaseFilter]:
    from datatrove.pipeline.filters import C4QualityFilter

    return [
        C4QualityFilter(
            min_num_sentences=config.min_sentences,
            min_words_per_line=config.min_words_of_line,
            filter_no_terminal_punct=config.terminal_punctuation,
            filter_curly_bracket=config.curly_brackets,
            language=language,
        )
    ]
