"""Verdicts: datatrove's filters over the texts of a batch, as a column of verdicts and one of reasons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.shards.common.errors import did_you_mean, missing_library, short_reason

if TYPE_CHECKING:
    from datatrove.pipeline.filters.base_filter import BaseFilter

_CODE_VERSION = 1
_LONG_RUN = re.compile(r"\S{1001,}")
_LONGEST_RUN = 1000

Build = Callable[[str], "Sequence[BaseFilter]"]
"""Builds the filters for a language of datatrove."""


class RulesConfig(AnnotatorConfig):
    """The keys that `gopher`, `c4` and `fineweb` share."""

    words: Literal["fast", "datatrove"] = "fast"
    """The tokenizer of words and sentences: `fast` (a regular expression, for languages with spaces), or `datatrove`
    (its own for `language`, which is slow, and needs the extra `rules` or the package that the error names)."""
    language: str = "en"
    """With `words = "datatrove"`: the language, as `en`, `deu` or `deu_Latn`."""
    max_chars: int = Field(default=1_000_000, ge=1)
    """A longer text is judged by this many characters. Words are cut after 1,000 characters."""

    def build_rules(self, name: str, build: Build) -> RulesAnnotator:
        """The annotator under `name` with the filters that `build` returns.

        Raises:
            AnnotatorError: datatrove does not know the language, or its package is not installed.
        """
        from colophon.annotators.rules.words import FAST, register

        register()
        if self.words == "datatrove":
            _check_language(name, self.language)
        return RulesAnnotator(name, config=self, build=build, language=FAST if self.words == "fast" else self.language)


class RulesAnnotator(Annotator):
    """Applies filters to `text`, one after the other.

    Output columns under the name NAME:
      - `NAME_ok` (bool): whether all filters keep the document;
      - `NAME_reason` (string): datatrove's name of the rule that drops it, else null.
    Both are null for a null text and for a text without a word.
    """

    columns = ("text",)

    def __init__(self, name: str, *, config: RulesConfig, build: Build, language: str) -> None:
        self.name = name
        self._config, self._build, self._language = config, build, language
        self.schema = pa.schema([(f"{name}_ok", pa.bool_()), (f"{name}_reason", pa.string())])
        self.settings: dict[str, Any] = {
            "type": config.type_name,
            "code_version": _CODE_VERSION,
            "name": name,
            "config": config.model_dump(mode="json"),
            "datatrove": version("datatrove"),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_filters"}

    def load(self) -> None:
        """Import datatrove's filters, and the tokenizer of the language."""
        _ = self._filters

    @cached_property
    def _filters(self) -> list[BaseFilter]:
        from colophon.annotators.rules.words import register

        register()
        return list(self._build(self._language))

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class."""
        texts = TextPreparation.valid(string_column(batch, "text"))
        rows = list(self._verdicts(texts))
        columns = [pa.array([ok for ok, _ in rows], pa.bool_()), pa.array([reason for _, reason in rows], pa.string())]
        return pa.record_batch(columns, schema=self.schema)

    def _verdicts(self, texts: pa.Array) -> Iterator[tuple[bool | None, str | None]]:
        for scalar in texts:
            text = scalar.as_py()
            yield (None, None) if text is None or not text.strip() else self._verdict(text)

    def _verdict(self, text: str) -> tuple[bool | None, str | None]:
        from datatrove.data import Document

        text = _LONG_RUN.sub(lambda found: found[0][:_LONGEST_RUN], text[: self._config.max_chars])
        for each in self._filters:
            try:
                result = each.filter(Document(text=text, id=""))  # a filter may change the document's text
            except ZeroDivisionError:  # a text without a word
                return None, None
            kept, reason = result if isinstance(result, tuple) else (result, None)
            if not kept:
                return False, reason or each.name
        return True, None


def _check_language(name: str, language: str) -> None:
    from datatrove.utils.word_tokenizers import load_tokenizer_assignments, load_word_tokenizer

    known = [each for each in load_tokenizer_assignments() if "_" not in each]
    if language not in load_tokenizer_assignments():
        guess = did_you_mean(language, known)
        raise AnnotatorError(f"annotators.{name}.language: datatrove has no tokenizer for {language!r}{guess}")
    try:
        load_word_tokenizer(language).word_tokenize("a")
    except ImportError as error:
        message = str(error)
        if "spacy" in message:
            raise AnnotatorError(missing_library(f"annotators.{name}", "spacy", extra="rules")) from None
        raise AnnotatorError(f"annotators.{name}.language: {short_reason(error)}") from None
