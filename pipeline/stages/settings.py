"""The settings of an output: everything but the input that its files depend on.

They are stored beside the commit records and in the manifest, and are part of each file's fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from colophon.annotators.registry import recorded_settings
from colophon.pipeline.recipe.schema import DEFAULT_MAX_DOCUMENT_BYTES, Recipe
from colophon.pipeline.stages.column_sources import ColumnSources
from colophon.pipeline.stages.packing import tokenizer_info
from colophon.pipeline.stages.tokenization import Vocabulary
from colophon.shards.common.digests import fingerprint
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.schema import FORMAT_VERSION


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

    def of(self, output: Output) -> dict[str, Any]:
        """The settings of one output. Reads only the models and the vocabulary that they name.

        Raises:
            UsageError: they name the tokenizer, which cannot be loaded.
        """
        if output.stage == "annotate":
            return self._of_annotations(output.name)
        if output.stage == "tokenize":
            columns = {need.name: need.in_input for need in self.columns.tokenize_needs}
            return {"tokenizer": self.vocabulary.tokenizer.settings, "columns": columns, **self._of_input}
        return {
            "layout": self.recipe.layouts[output.name].model_dump(mode="json"),
            "pack": self.recipe.pack.model_dump(mode="json"),
            "tokenizer": tokenizer_info(self.vocabulary.tokenizer).model_dump(mode="json"),
            "format_version": FORMAT_VERSION,
        }

    def _of_annotations(self, name: str) -> dict[str, Any]:
        annotator = next(annotator for annotator in self.columns.annotators if annotator.name == name)
        from_input = [column for column in annotator.columns if self.columns.source(column) is None]
        columns = {column: self.columns.need(column).in_input for column in from_input}
        settings = recorded_settings(annotator, self.recipe.annotators.get(name))
        return {"annotator": settings, "columns": columns, **self._of_input}

    @property
    def _of_input(self) -> dict[str, int]:
        """The settings of the input that decide which lines are documents."""
        most = self.recipe.input.max_document_bytes
        # Settings of earlier versions do not have it.
        return {} if most == DEFAULT_MAX_DOCUMENT_BYTES else {"max_document_bytes": most}
