"""Everything that is checked before anything is written: models, vocabulary, columns, templates and their fit.

`prepare` turns a recipe into what the stages need. It loads labels and vocabularies, reads footers, and starts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from colophon.annotators.base import Annotator, AnnotatorError
from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.columns import FINEWEB_TYPES, ColumnNeed
from colophon.pipeline.inputs.files import InputFile, expand
from colophon.pipeline.inputs.partitions import Inputs, plan_inputs
from colophon.pipeline.recipe.schema import Recipe
from colophon.pipeline.stages.packing import tokenizer_info
from colophon.pipeline.storage.commits import Store
from colophon.shards.common.digests import fingerprint
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.packing import smallest_row
from colophon.shards.schema import FORMAT_VERSION
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerError, load_tokenizer

REBUILD = "--rebuild redoes what this makes stale; another output.path keeps both"


@dataclass(frozen=True)
class Prepared:
    """A recipe whose parts are known to fit together."""

    recipe: Recipe
    where: str
    """What errors call the recipe."""
    annotators: tuple[Annotator, ...]
    """In an order in which each comes after those whose columns it reads."""
    run: str = ""
    """The token of the run that holds the output's lock."""

    @property
    def store(self) -> Store:
        """The run's output directory."""
        return Store(self.recipe.output.path, run=self.run)

    def changed(self, **changes: Any) -> Prepared:
        """The same recipe with other annotators or for another run; footers and vocabulary are not read twice."""
        known = replace(self, **changes)
        kept = {name: value for name, value in self.__dict__.items() if name in ("files", "inputs", "tokenizer")}
        known.__dict__.update(kept)
        return known

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The recipe's tokenizer.

        Raises:
            UsageError: the recipe names none, or it cannot be loaded.
        """
        if self.recipe.tokenizer is None:
            raise UsageError(f"{self.where}: [tokenizer] is required to tokenize and pack")
        try:
            return load_tokenizer(self.recipe.tokenizer, num_meta_tokens=self.recipe.num_meta_tokens)
        except TokenizerError as error:
            raise UsageError(f"{self.where}: tokenizer: {error}") from error

    @cached_property
    def providers(self) -> dict[str, str]:
        """Which annotator makes each annotation column."""
        return {column: a.name for a in self.annotators for column in a.schema.names}

    @cached_property
    def files(self) -> tuple[InputFile, ...]:
        """The input files.

        Raises:
            UsageError: a path matches nothing, or has a suffix of no known format.
        """
        try:
            return tuple(expand(self.recipe.input))
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from error

    @cached_property
    def inputs(self) -> Inputs:
        """The partitions. Reads the footers of Parquet files.

        Raises:
            UsageError: there is nothing that could be read, or a column is renamed that nothing reads.
        """
        needs = {need.name: need for need in (*self.annotate_needs, *self.tokenize_needs)}
        known = [*FINEWEB_TYPES, *(name for name in needs if name not in FINEWEB_TYPES)]
        for name in self.recipe.input.columns:
            if name not in known:
                raise UsageError(f"{self.where}: input.columns.{name}: unknown column; available: {', '.join(known)}")
        files = self.files
        try:
            return plan_inputs(self.recipe.input, needs=list(needs.values()), files=files)
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from error

    @property
    def annotate_needs(self) -> tuple[ColumnNeed, ...]:
        """Input columns that the annotators read."""
        columns = dict.fromkeys(c for a in self.annotators for c in a.columns if self.provider(c) is None)
        return tuple(self._need(column) for column in columns)

    def provider(self, column: str) -> str | None:
        """The annotator that makes a column which an annotator reads; None: it is the input's."""
        return None if column in FINEWEB_TYPES else self.providers.get(column)

    @property
    def tokenize_needs(self) -> tuple[ColumnNeed, ...]:
        """The text, and the id where there is one: a row without id is named by its file and row."""
        return self._need("text"), self._need("id", required=False)

    def _need(self, column: str, *, required: bool = True) -> ColumnNeed:
        return ColumnNeed(column, self.recipe.input.columns.get(column, column), required)

    @cached_property
    def settings(self) -> dict[Output, dict[str, Any]]:
        """What each stage's files depend on besides their input, readable: annotations, tokens and packed layouts."""
        outputs = [Output.annotations(annotator.name) for annotator in self.annotators]
        if self.recipe.tokenizer is not None:
            outputs += [TOKENS, *map(Output.packed, self.recipe.layouts)]
        return {output: self.settings_of(output) for output in outputs}

    def settings_of(self, output: Output) -> dict[str, Any]:
        """`settings` of one stage; reads only the models and vocabulary that it is about.

        Raises:
            UsageError: it is about the tokenizer, which cannot be loaded.
        """
        if output == TOKENS:
            columns = {need.name: need.in_input for need in self.tokenize_needs}
            return {"tokenizer": self.tokenizer.settings, "columns": columns}
        if output.stage == "annotate":
            annotator = next(annotator for annotator in self.annotators if annotator.name == output.name)
            columns = {c: self._need(c).in_input for c in annotator.columns if self.provider(c) is None}
            return {"annotator": annotator.settings, "columns": columns}
        return {
            "layout": self.recipe.layouts[output.name].model_dump(mode="json"),
            "pack": self.recipe.pack.model_dump(mode="json"),
            "tokenizer": tokenizer_info(self.tokenizer).model_dump(mode="json"),
            "format_version": FORMAT_VERSION,
        }

    @cached_property
    def settings_fingerprints(self) -> dict[Output, str]:
        """sha256 of each output's settings."""
        return {output: fingerprint(settings) for output, settings in self.settings.items()}


def prepare(recipe: Recipe, *, where: str) -> Prepared:
    """Check that the recipe's parts exist and fit together.

    Raises:
        UsageError: one line that names what does not fit, where, and the choices.
    """
    prepared = Prepared(recipe, where, _sorted(_build(recipe, where=where), where=where))
    _check_templates(prepared)
    _check_training(prepared)
    _check_lengths(prepared)
    _check_output(prepared)
    return prepared


def _build(recipe: Recipe, *, where: str) -> list[Annotator]:
    built: list[Annotator] = []
    owners: dict[str, str] = {}
    for name, config in recipe.annotators.items():
        try:
            annotator = config.build(name)
        except AnnotatorError as error:
            raise UsageError(f"{where}: {error}") from error
        for column in annotator.schema.names:
            if column in owners:
                raise UsageError(f"{where}: annotators {owners[column]} and {name} both make the column {column!r}")
            owners[column] = name
        built.append(annotator)
    return built


def _sorted(annotators: Sequence[Annotator], *, where: str) -> tuple[Annotator, ...]:
    """Each annotator after those whose columns it reads; otherwise in the recipe's order."""
    made = {column for annotator in annotators for column in annotator.schema.names} - set(FINEWEB_TYPES)
    waiting, order, known = list(annotators), [], set[str]()
    while waiting:
        ready = [a for a in waiting if all(c in known or c not in made for c in a.columns)]
        if not ready:
            raise UsageError(f"{where}: annotators need each other's columns: {', '.join(a.name for a in waiting)}")
        order.append(ready[0])
        waiting.remove(ready[0])
        known.update(ready[0].schema.names)
    return tuple(order)


def _check_templates(prepared: Prepared) -> None:
    for name, layout in prepared.recipe.layouts.items():
        for field in layout.fields:
            _check_made(prepared, field, key=f"layouts.{name}.template")


def _check_training(prepared: Prepared) -> None:
    for name, train in prepared.recipe.train.items():
        for key, column in train.columns_of_this_run().items():
            _check_made(prepared, column, key=f"train.{name}.{key}")


def _check_made(prepared: Prepared, column: str, *, key: str) -> None:
    if column not in prepared.providers:
        available = ", ".join(sorted(prepared.providers)) or "none (the recipe has no [annotators.*])"
        raise UsageError(f"{prepared.where}: {key}: no annotator makes {column!r}; available: {available}")


def _check_lengths(prepared: Prepared) -> None:
    length = prepared.recipe.pack.sequence_length
    for name, layout in prepared.recipe.layouts.items():
        needed = smallest_row(layout) - 1
        if length < needed:
            raise UsageError(
                f"{prepared.where}: pack.sequence_length is {length}, layouts.{name} needs at least {needed}: "
                "bos, wrapper, its longest metadata (max_metadata_tokens), one text token and eos must fit"
            )


def _check_output(prepared: Prepared) -> None:
    if prepared.store.is_local:
        path = prepared.store.path
        there = next((place for place in (path, *path.parents) if place.exists()), None)
        if there is not None and not there.is_dir():
            raise UsageError(f"{prepared.where}: output.path: {there} is a file; a run's output is a directory")


def changed_settings(path: str, lines: Sequence[str], *, remedy: str = REBUILD) -> UsageError:
    """The error for output at `path` that was made with other settings; `lines` are the differences."""
    return UsageError(f"{path} was made with other settings: {'; '.join(lines[:4])} ({remedy})")
