"""The `gopher` annotator: the rules of Gopher (arXiv 2112.11446, table A1), through datatrove's filters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from colophon.annotators.rules.verdicts import RulesAnnotator, RulesConfig

if TYPE_CHECKING:
    from datatrove.pipeline.filters.base_filter import BaseFilter

_ENGLISH = ("the", "be", "to", "of", "and", "that", "have", "with")


class GopherConfig(RulesConfig):
    """Applies Gopher's rules of quality and of repetition.

    Example:

        [annotators.gopher]
        min_words = 30
    """

    type_name: ClassVar[str] = "gopher"

    quality: bool = True
    """Apply the rules of quality: number and length of words, symbols, bullets, ellipses, letters, stop words."""
    repetition: bool = True
    """Apply the rules of repetition: of lines, paragraphs and n-grams."""
    min_words: int = Field(default=50, ge=1)
    """Words of the shortest document that is kept."""
    max_words: int = Field(default=100_000, ge=1)
    """Words of the longest document that is kept."""
    min_stop_words: int = Field(default=2, ge=0)
    """Different stop words that a document needs."""
    stop_words: tuple[str, ...] = Field(default=_ENGLISH, max_length=10_000)
    """The stop words; those of English by default."""

    def build(self, name: str) -> RulesAnnotator:
        """The annotator under `name`, see `RulesConfig.build_rules`."""
        return self.build_rules(name, partial(_filters, self))


def _filters(config: GopherConfig, language: str) -> Sequence[BaseFilter]:
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter

    filters: list[BaseFilter] = []
    if config.quality:
        filters.append(
            GopherQualityFilter(
                min_doc_words=config.min_words,
                max_doc_words=config.max_words,
                min_stop_words=config.min_stop_words,
                stop_words=list(config.stop_words),
                language=language,
            )
        )
    if config.repetition:
        filters.append(GopherRepetitionFilter(language=language))
    return filters
