"""The `fineweb` annotator: the rules that FineWeb adds (arXiv 2406.17557, section 3.6), through datatrove's filter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from colophon.annotators.rules.verdicts import RulesAnnotator, RulesConfig

if TYPE_CHECKING:
    from datatrove.pipeline.filters.base_filter import BaseFilter


class FinewebConfig(RulesConfig):
    """Applies FineWeb's rules on lines.

    Example:

        [annotators.fineweb]
        max_duplicate_chars = 0.1
    """

    type_name: ClassVar[str] = "fineweb"

    min_punctuated_lines: float = Field(default=0.12, ge=0, le=1)
    """Share of lines that must end with a mark of the end of a sentence."""
    max_short_lines: float = Field(default=0.67, ge=0, le=1)
    """Highest share of lines of at most `short_line` characters."""
    short_line: int = Field(default=30, ge=1)
    """Characters of a short line."""
    max_duplicate_chars: float = Field(default=0.01, ge=0, le=1)
    """Highest share of characters in lines that occur before."""
    max_newlines: float = Field(default=0.3, ge=0)
    """Highest number of line ends for each word."""

    def build(self, name: str) -> RulesAnnotator:
        """The annotator under `name`, see `RulesConfig.build_rules`."""
        return self.build_rules(name, partial(_filters, self))


def _filters(config: FinewebConfig, language: str) -> Sequence[BaseFilter]:
    from datatrove.pipeline.filters import FineWebQualityFilter

    return [
        FineWebQualityFilter(
            line_punct_thr=config.min_punctuated_lines,
            short_line_thr=config.max_short_lines,
            short_line_length=config.short_line,
            char_duplicates_ratio=config.max_duplicate_chars,
            new_line_ratio=config.max_newlines,
            language=language,
        )
    ]
