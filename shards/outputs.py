"""Outputs: the directories of files that the stages of a run fill.

    stage      output                     a file a partition
    annotate   annotations/<annotator>    .parquet
    tokenize   tokens                     .arrow
    pack       packed/<layout>            .arrow

This module alone builds and parses these names.
"""

from __future__ import annotations

from typing import Literal

from colophon.shards.common.errors import ShardError

StageName = Literal["annotate", "tokenize", "pack"]
STAGES: tuple[StageName, ...] = ("annotate", "tokenize", "pack")
"""The stages of a run, in order; each is also a command."""
_STAGE_OF_KIND: dict[str, StageName] = {"annotations": "annotate", "tokens": "tokenize", "packed": "pack"}


class Output(str):
    """The directory of an output, relative to the run's: a `str` that knows its parts."""

    __slots__ = ()

    @classmethod
    def annotations(cls, annotator: str) -> Output:
        """The output of an annotator."""
        return cls(f"annotations/{annotator}")

    @classmethod
    def packed(cls, layout: str) -> Output:
        """The output of a layout."""
        return cls(f"packed/{layout}")

    @classmethod
    def parse(cls, text: str) -> Output:
        """The output with this directory.

        Raises:
            ShardError: `text` is not the directory of an output.
        """
        kind, slash, name = text.partition("/")
        if kind not in _STAGE_OF_KIND or bool(slash) != (kind != "tokens") or bool(slash) != bool(name):
            raise ShardError(f"unknown output {text!r}: expected annotations/<annotator>, tokens or packed/<layout>")
        return cls(text)

    @property
    def stage(self) -> StageName:
        """The stage that fills it."""
        return _STAGE_OF_KIND[self.partition("/")[0]]

    @property
    def name(self) -> str:
        """The annotator's or the layout's name; empty for tokens."""
        return self.partition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of its files."""
        return ".parquet" if self.stage == "annotate" else ".arrow"


TOKENS = Output("tokens")
