"""The settings of an output: everything but the input that its files depend on.

They are stored beside the commit records and in the manifest, and are part of each file's fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from colophon.annotators.base import INPUT_IDS, Annotator, TextRewriter
from colophon.annotators.registry import recorded_settings
from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.columns import SOURCE_NAME, ColumnNeed
from colophon.pipeline.recipe.schema import DEFAULT_MAX_DOCUMENT_BYTES, InputSection, Recipe
from colophon.pipeline.stages.column_sources import ColumnSources, input_columns
from colophon.pipeline.stages.packing import tokenizer_info
from colophon.pipeline.stages.tokenization import Vocabulary
from colophon.shards.common.differences import differences
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.errors import did_you_mean
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.schema import FORMAT_VERSION

SOURCES = "sources"
"""The key of settings with those of each source, by its name."""
_KEYS_OF_A_SOURCE = ("columns", "max_document_bytes", SOURCE_NAME)


@dataclass(frozen=True)
class Settings:
    """The settings of a recipe's outputs, as JSON values."""

    recipe: Recipe
    columns: ColumnSources
    vocabulary: Vocabulary

    @cached_property
    def by_output(self) -> dict[Output, dict[str, Any]]:
        """The settings of every output; of annotations alone if the recipe has no tokenizer."""
        outputs = [Output.annotations(annotator.name) for annotator in self.columns.annotators]
        if self.recipe.tokenizer is not None:
            outputs += [TOKENS, *map(Output.packed, self.recipe.layouts)]
        return {output: self.of(output) for output in outputs}

    @cached_property
    def fingerprints(self) -> dict[Output, str]:
        """sha256 of the settings of every output."""
        return {output: fingerprint(settings) for output, settings in self.by_output.items()}

    @cached_property
    def fingerprints_in_sources(self) -> dict[tuple[Output, str | None], str]:
        """sha256 of the settings of every output for the files of each source, by its name.

        A source's settings are no part of those of another: a new source leaves the files of the others up to date.
        """
        return {
            (output, source.name): fingerprint(self._in_source(settings, source.name))
            for output, settings in self.by_output.items()
            for source in self.recipe.sources
        }

    @property
    def rewriters(self) -> tuple[TextRewriter, ...]:
        """The annotators whose replaced text is tokenized.

        Raises:
            UsageError: the recipe has no such annotator, or it replaces no text.
        """
        names = self.recipe.tokenizer.rewritten_by if self.recipe.tokenizer is not None else ()
        known = {each.name: each for each in self.columns.annotators if isinstance(each, TextRewriter)}
        for name in names:
            if name not in known:
                available = ", ".join(known) or "none (of the built-in annotators, `pii` replaces text)"
                raise UsageError(
                    f"tokenizer.rewritten_by: {name!r} is no annotator of the recipe that replaces text; "
                    f"available: {available}{did_you_mean(name, known)}"
                )
        return tuple(known[name] for name in names)

    def of(self, output: Output) -> dict[str, Any]:
        """The settings of one output. Reads only the models and the vocabulary that they name.

        Raises:
            UsageError: they name the tokenizer, which cannot be loaded.
        """
        if output.stage == "annotate":
            annotator = next(annotator for annotator in self.columns.annotators if annotator.name == output.name)
            from_input = [column for column in input_columns(annotator) if self.columns.source(column) is None]
            recorded = recorded_settings(annotator, self.recipe.annotators.get(annotator.name))
            needs = [self.columns.need(column) for column in from_input]
            ids = self.columns.need("id", required=False)
            # Settings of earlier versions, whose files have no ids, do not name the column.
            if any(ids.in_source(source.name).in_input != "id" for source in self.recipe.sources):
                needs.append(ids)
            return {"annotator": recorded, **self._of_ids(annotator), **self._of_input(needs)}
        if output.stage == "tokenize":
            tokenizer = self.vocabulary.tokenizer.settings
            return {"tokenizer": tokenizer, **self._of_rewriters(), **self._of_input(self.columns.tokenize_needs)}
        return {
            "layout": self.recipe.layouts[output.name].model_dump(mode="json"),
            "pack": self.recipe.pack.model_dump(mode="json"),
            "tokenizer": tokenizer_info(self.vocabulary.tokenizer).model_dump(mode="json"),
            "format_version": FORMAT_VERSION,
        }

    def _of_rewriters(self) -> dict[str, Any]:
        """The annotators that rewrite what is encoded; nothing without any: earlier versions have no such key."""
        rewriters = {
            f"{number} {each.name}": recorded_settings(each, self.recipe.annotators[each.name])
            for number, each in enumerate(self.rewriters, 1)
        }
        return {"rewritten_by": rewriters} if rewriters else {}

    def _of_ids(self, annotator: Annotator) -> dict[str, Any]:
        """The vocabulary of an annotator that reads ids; added tokens and the dtype change no id of a text."""
        if INPUT_IDS not in annotator.columns:
            return {}
        settings = self.vocabulary.tokenizer.settings
        return {"tokenizer": {name: settings[name] for name in ("name", "sha256")}, **self._of_rewriters()}

    def _of_input(self, needs: Sequence[ColumnNeed]) -> dict[str, Any]:
        """The settings of the input, of each source where there are several: columns, and which lines are documents."""
        of_sources = {source.name: self._of_source(source, needs) for source in self.recipe.sources}
        return {SOURCES: of_sources} if self.recipe.inputs else next(iter(of_sources.values()))

    @staticmethod
    def _of_source(source: InputSection, needs: Sequence[ColumnNeed]) -> dict[str, Any]:
        in_source = [need.in_source(source.name) for need in needs]
        settings: dict[str, Any] = {"columns": {need.name: need.in_input for need in in_source}}
        if source.max_document_bytes != DEFAULT_MAX_DOCUMENT_BYTES:  # settings of earlier versions do not have it
            settings["max_document_bytes"] = source.max_document_bytes
        if any(need.is_name_of(source.name) for need in in_source):
            settings[SOURCE_NAME] = source.name
        return settings

    @staticmethod
    def _in_source(settings: dict[str, Any], source: str | None) -> dict[str, Any]:
        """The settings for the files of one source: those of a recipe that has this source alone."""
        rest = {key: value for key, value in settings.items() if key != SOURCES}
        return {**rest, **settings.get(SOURCES, {}).get(source, {})}


def changed_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences of an output's settings, but for sources that one of them alone has: those are new input."""
    lists = [settings.get(SOURCES) for settings in (old, new)]
    if lists == [None, None]:
        return differences(old, new)
    tables = [each if isinstance(each, dict) else {} for each in lists]
    common = tables[0].keys() & tables[1].keys()
    left_out = {SOURCES, *([] if None not in lists else _KEYS_OF_A_SOURCE)}
    return differences(
        *(
            {
                **{key: value for key, value in settings.items() if key not in left_out},
                SOURCES: {name: table[name] for name in sorted(common)},
            }
            for settings, table in zip((old, new), tables, strict=True)
        )
    )
