"""The resolved recipe: its parts are checked and fit together, before anything is written.

`resolve` builds the annotators (labels are loaded, models are not) and checks what needs no input. The vocabulary and
the input's footers are read when they are first needed. Nothing is started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from colophon.annotators.base import INPUT_IDS, PROVIDED, Annotator, AnnotatorConfig, AnnotatorError, explained
from colophon.annotators.plugin_files import PluginFile
from colophon.annotators.registry import contract_problem, origin_of
from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.columns import FINEWEB_TYPES
from colophon.pipeline.inputs.partition_size import ASSUMED_WORKERS
from colophon.pipeline.inputs.partitions import Inputs, plan_inputs
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.inputs.search.overlap import check_apart
from colophon.pipeline.recipe.schema import InputSection, OutputSection, Recipe
from colophon.pipeline.runs.partition_sizes import kept_sizes
from colophon.pipeline.stages.column_sources import ColumnSources
from colophon.pipeline.stages.settings import Settings
from colophon.pipeline.stages.token_ids import TokenEncoding
from colophon.pipeline.stages.tokenization import Vocabulary
from colophon.pipeline.stages.vocabulary import PlannedTokenizer
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.lock import owners_of
from colophon.pipeline.storage.shard import LOCK_NAME, SHARDS, Shard
from colophon.shards.annotations import ID
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.errors import ColophonError, did_you_mean
from colophon.shards.common.paths import why_missing
from colophon.shards.layouts import AppendLayout, Layout, PrependLayout
from colophon.shards.manifest import MANIFEST_NAME, TABLES, Manifest
from colophon.shards.outputs import Output
from colophon.shards.packing.pack import smallest_row
from colophon.shards.templates import template_of
from colophon.shards.tokenizer.tokenizer import Tokenizer

WRITTEN_NAMES = (
    *("annotations", "calibration", "duplicates", TABLES, "packed", "records", "report", SHARDS, "tokens", "training"),
    *(LOCK_NAME, "manifest.json", "quarantine.jsonl"),
)
"""The names in a run's output directory, those of its trainings included."""
REBUILD = "--rebuild replaces the outdated files; a different output.path keeps both"


@dataclass(frozen=True)
class PlannedInputs:
    """The partitions of a recipe's input, planned once, on first use."""

    recipe: Recipe
    columns: ColumnSources
    where: str

    @cached_property
    def inputs(self) -> Inputs:
        """The partitions and the files that cannot be read.

        Raises:
            UsageError: no file can be read, a path matches nothing or has an unknown suffix, the output would become
                input, or `[input.columns]` renames a column that nothing reads.
        """
        sources, known = self.recipe.sources, self.columns.known
        for key, name in ((f"{source.key}.columns.{name}", name) for source in sources for name in source.columns):
            if name not in known:
                guess = did_you_mean(name, known)
                listed = ", ".join(known)
                raise UsageError(f"{self.where}: {key}: unknown column; available: {listed}{guess}")
        try:
            search = find_files(*sources)
            check_apart(search, self.recipe.output.path, key="output.path", writes=WRITTEN_NAMES)
            is_chosen = any(source.partition_bytes == "auto" for source in sources)
            return plan_inputs(
                *sources,
                needs=list(self.columns.needs.values()),
                search=search,
                workers=self.recipe.ray.num_workers or ASSUMED_WORKERS,
                kept_bytes=kept_sizes(Store(self.recipe.output.path)) if is_chosen else None,
            )
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from error


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with everything that it names. `resolve` makes one."""

    recipe: Recipe
    where: str
    """The recipe's name in errors."""
    annotators: tuple[Annotator, ...]
    """Each after those whose columns it reads."""
    planned: PlannedInputs
    vocabulary: Vocabulary
    run: str = ""
    """The token of the run that holds the output's lock."""
    shard: Shard | None = None
    """The shard whose partitions are the input; None: all are."""

    def with_annotators(self, annotators: Sequence[Annotator]) -> ResolvedRecipe:
        """The same recipe with calibrated annotators; footers and vocabulary are not read a second time."""
        return replace(self, annotators=tuple(annotators))

    def for_run(self, token: str) -> ResolvedRecipe:
        """The same recipe for the run with this lock token; only its files are published."""
        return replace(self, run=token)

    def for_shard(self, shard: Shard | None) -> ResolvedRecipe:
        """The same recipe for a shard: its input is the shard's share, and it holds the shard's lock."""
        return replace(self, shard=shard)

    def over(self, section: InputSection, *, output: str) -> ResolvedRecipe:
        """The same recipe over other input, into another output; annotators and vocabulary are shared."""
        recipe = self.recipe.model_copy(update={"inputs": None, "input": section, "output": OutputSection(path=output)})
        planned = PlannedInputs(recipe, _column_sources(recipe, self.annotators), self.where)
        return replace(self, recipe=recipe, planned=planned, shard=None)

    @property
    def plugins(self) -> tuple[PluginFile, ...]:
        """The files that define some of the annotators, each once."""
        origins = (origin_of(type(config)) for config in self.recipe.annotators.values())
        return tuple(dict.fromkeys(origin.file for origin in origins if origin.file is not None))

    @property
    def store(self) -> Store:
        """The run's output directory."""
        return Store(self.recipe.output.path, run=self.run, shard=self.shard)

    @property
    def inputs(self) -> Inputs:
        """The partitions of the input, see `PlannedInputs.inputs`, or the shard's share of them."""
        return self.planned.inputs if self.shard is None else self._share

    @cached_property
    def _share(self) -> Inputs:
        """The shard's partitions. Input that cannot be read is in no share: `colophon finish` reports it."""
        assert self.shard is not None
        partitions = self.planned.inputs.partitions
        return Inputs(partitions.chosen(np.array(self.shard.share(partitions.sizes), np.int64)), quarantine=())

    @property
    def digest(self) -> str:
        """Digest of the sections that decide what is in files."""
        sections = {"inputs", "input", "annotators", "tokenizer", "pack", "layouts"}
        return fingerprint(self.recipe.model_dump(mode="json", include=sections))

    def keeps_settings(self, output: Output) -> bool:
        """Whether the stored settings of an output are those of files, or of another command's that may write some.

        Settings that a run left which failed before its first file hold for nothing. Commands with this recipe, which
        other shards are, agree on what replaces them.
        """
        store = self.store
        others = (owner for owner in owners_of(store).values() if owner.token != store.run)
        has_files = any(not name.startswith(".") for name in store.files.names(output))
        return has_files or any(owner.recipe != self.digest for owner in others)

    @property
    def tokenizer(self) -> Tokenizer:
        """The recipe's tokenizer, see `Vocabulary.tokenizer`."""
        return self.vocabulary.tokenizer

    @property
    def planned_tokenizer(self) -> PlannedTokenizer:
        """The recipe's tokenizer, for workers."""
        return PlannedTokenizer.of(self.tokenizer, num_meta_tokens=self.recipe.num_meta_tokens)

    @property
    def encoding(self) -> TokenEncoding:
        """How texts become ids, for workers."""
        rewriters = self.settings.rewriters
        return TokenEncoding(self.planned_tokenizer, rewriters, self.plugins if rewriters else ())

    @property
    def reads_ids(self) -> bool:
        """Whether an annotator reads the ids of texts."""
        return any(INPUT_IDS in annotator.columns for annotator in self.annotators)

    def check_tokenizer(self, stages: Sequence[str]) -> tuple[str, ...]:
        """Load and probe the tokenizer if one of `stages` needs it; lines to show.

        Raises:
            UsageError: the recipe has none, it cannot be loaded, or it loses text and the recipe does not allow that.
        """
        if not {"tokenize", "pack"} & {*stages} and not ("annotate" in stages and self.reads_ids):
            return ()
        return (*self.vocabulary.origin, *self.vocabulary.check_losses())

    @cached_property
    def columns(self) -> ColumnSources:
        """The source of each column."""
        return _column_sources(self.recipe, self.annotators)

    @cached_property
    def settings(self) -> Settings:
        """The settings of each output, and their fingerprints."""
        return Settings(self.recipe, self.columns, self.vocabulary)

    def manifest(self) -> Manifest | None:
        """The manifest of the last run; None before the first.

        Raises:
            ShardError: it is damaged, or was written in a different version of the format.
        """
        return self.store.manifest()

    def finished_manifest(self) -> Manifest:
        """The manifest of the last run.

        Raises:
            UsageError: the recipe has not been run.
            ShardError: see `manifest`.
        """
        manifest = self.manifest()
        if manifest is None:
            raise UsageError(f"{self.store.root} has no {MANIFEST_NAME}: run `colophon run` first")
        return manifest


def resolve(recipe: Recipe, *, where: str) -> ResolvedRecipe:
    """Check that the recipe's parts exist and fit together.

    Raises:
        UsageError: one line that names what does not fit, where, and the choices.
    """
    resolved = _resolved(recipe, where=where, annotators=_sorted(_build(recipe, where=where), where=where))
    _check_types(resolved.annotators, where=where)
    _check_ids(resolved)
    _check_templates(resolved)
    _check_rewriters(resolved)
    _check_training(resolved)
    _check_lengths(resolved)
    _check_output(resolved)
    return resolved


def without_annotators(recipe: Recipe, *, where: str) -> ResolvedRecipe:
    """The recipe with no annotators and unchecked: for a machine that lacks their models."""
    return _resolved(recipe, where=where, annotators=())


def _resolved(recipe: Recipe, *, where: str, annotators: tuple[Annotator, ...]) -> ResolvedRecipe:
    return ResolvedRecipe(
        recipe,
        where,
        annotators,
        planned=PlannedInputs(recipe, _column_sources(recipe, annotators), where),
        vocabulary=Vocabulary(recipe.tokenizer, recipe.num_meta_tokens, where),
    )


def _column_sources(recipe: Recipe, annotators: tuple[Annotator, ...]) -> ColumnSources:
    if recipe.input is not None:
        return ColumnSources(annotators, recipe.input.columns)
    return ColumnSources(annotators, {}, {source.name: source.columns for source in recipe.inputs or ()})


def _build(recipe: Recipe, *, where: str) -> list[Annotator]:
    built: list[Annotator] = []
    owners: dict[str, str] = {}
    for name, config in recipe.annotators.items():
        annotator = _built(name, config, where=where)
        for column in annotator.schema.names:
            if column in PROVIDED:
                what = "the ids of texts" if column == INPUT_IDS else "where a document is"
                raise UsageError(
                    f"{where}: annotators.{name} writes a column {column!r}, the name of {what}. "
                    "Give the column a different name"
                )
            if column == ID:
                raise UsageError(
                    f"{where}: annotators.{name} writes a column {ID!r}; every annotation file has the documents' ids "
                    "under this name. Give the column a different name"
                )
            if column in owners:
                raise UsageError(
                    f"{where}: annotators {owners[column]} and {name} both write the column {column!r}. "
                    "Give one of them a different name"
                )
            owners[column] = name
        built.append(annotator)
    return built


def _built(name: str, config: AnnotatorConfig, *, where: str) -> Annotator:
    try:
        annotator = config.with_absolute_paths().build(name)
    except ColophonError as error:
        raise UsageError(f"{where}: {error}") from error
    except Exception as error:
        raise UsageError(f"{where}: {explained(error, by=config, name=name)}") from error
    if problem := contract_problem(annotator, config, name=name):
        raise UsageError(f"{where}: annotators.{name}: {problem}")
    return annotator


def _sorted(annotators: Sequence[Annotator], *, where: str) -> tuple[Annotator, ...]:
    """Each annotator after those whose columns it reads; otherwise in the recipe's order."""
    written = {column for annotator in annotators for column in annotator.schema.names} - set(FINEWEB_TYPES)
    waiting, order, known = list(annotators), [], set[str]()
    while waiting:
        ready = [a for a in waiting if all(c in known or c not in written for c in a.columns)]
        if not ready:
            raise UsageError(f"{where}: annotators need each other's columns: {', '.join(a.name for a in waiting)}")
        order.append(ready[0])
        waiting.remove(ready[0])
        known.update(ready[0].schema.names)
    return tuple(order)


def _check_types(annotators: Sequence[Annotator], *, where: str) -> None:
    """Check that annotators can read the types of the columns that others write."""
    written = {field.name: field.type for annotator in annotators for field in annotator.schema}
    for annotator in annotators:
        for column in sorted(annotator.read_by.keys() & (written.keys() - FINEWEB_TYPES.keys())):
            try:
                annotator.read_by[column](pa.record_batch([pa.array([], written[column])], [column]), column)
            except AnnotatorError as error:
                raise UsageError(f"{where}: annotators.{annotator.name}: {error}") from None


def _check_ids(resolved: ResolvedRecipe) -> None:
    """Check that annotators which read ids read those of the vocabulary that they need; loads it for them alone."""
    for annotator in resolved.annotators:
        if INPUT_IDS not in annotator.columns:
            continue
        if resolved.recipe.tokenizer is None:
            raise UsageError(
                f"{resolved.where}: annotators.{annotator.name} reads the ids of texts: a [tokenizer] is required"
            )
        needed, tokenizer = annotator.tokenizer_sha256, resolved.tokenizer
        if needed is not None and tokenizer.sha256 != needed:
            raise UsageError(
                f"{resolved.where}: annotators.{annotator.name}: its model reads the ids of a different vocabulary "
                f"(sha256 {needed[:12]}…) than [tokenizer] {tokenizer.name} (sha256 {tokenizer.sha256[:12]}…). "
                "Train the model with this tokenizer"
            )


def _check_templates(resolved: ResolvedRecipe) -> None:
    writers = {field.name: (annotator, field.type) for annotator in resolved.annotators for field in annotator.schema}
    types = {column: kind for column, (_, kind) in writers.items()}
    for name, layout in resolved.recipe.layouts.items():
        for field in layout.fields:
            _check_annotated(resolved, field, key=f"layouts.{name}.template")
        for column, condition in layout.where.items():
            key = f"layouts.{name}.where.{column}"
            _check_annotated(resolved, column, key=key)
            if problem := condition.misfit(types[column]):
                raise UsageError(f"{resolved.where}: {key}: {problem}")
        if not isinstance(layout, PrependLayout | AppendLayout):
            continue
        for column, problem in template_of(layout.template).misfits(types):
            key = f"annotators.{writers[column][0].name}.columns.{column}"
            has_type = key in {typed.key for typed in writers[column][0].typed.values()}
            remedy = f". Set {key}.type" if has_type else ""
            raise UsageError(f"{resolved.where}: layouts.{name}.template: {problem}{remedy}")


def _check_rewriters(resolved: ResolvedRecipe) -> None:
    try:
        rewriters = resolved.settings.rewriters
    except UsageError as error:
        raise UsageError(f"{resolved.where}: {error}") from None
    for each in rewriters:
        if each.columns != ("text",) or each.num_calibration_documents is not None:
            raise UsageError(
                f"{resolved.where}: tokenizer.rewritten_by: annotators.{each.name} needs other columns than the text, "
                "or a sample; tokens must depend on the text alone"
            )


def _check_training(resolved: ResolvedRecipe) -> None:
    types = {field.name: field.type for annotator in resolved.annotators for field in annotator.schema}
    for name, train in resolved.recipe.train.items():
        for key, column in train.columns_of_this_run().items():
            _check_annotated(resolved, column, key=f"train.{name}.{key}")
            if pa.types.is_nested(types[column]):
                single = ", ".join(sorted(column for column, kind in types.items() if not pa.types.is_nested(kind)))
                raise UsageError(
                    f"{resolved.where}: train.{name}.{key}: {column} is {types[column]}, not one value; "
                    f"available: {single or 'none'}"
                )


def _check_annotated(resolved: ResolvedRecipe, column: str, *, key: str) -> None:
    if column not in resolved.columns.annotator_of:
        available = ", ".join(sorted(resolved.columns.annotator_of)) or "none (the recipe has no [annotators.*])"
        guess = did_you_mean(column, resolved.columns.annotator_of)
        raise UsageError(f"{resolved.where}: {key}: no annotator writes {column!r}; available: {available}{guess}")


def _check_lengths(resolved: ResolvedRecipe) -> None:
    length = resolved.recipe.pack.sequence_length
    for name, layout in resolved.recipe.layouts.items():
        needed = smallest_row(layout) - 1
        if length < needed:
            raise UsageError(
                f"{resolved.where}: pack.sequence_length: must be at least {needed} for layouts.{name}, whose bos, "
                f"wrapper, longest metadata, one text token and eos must fit; got {length}. Set it to {needed}"
                + _smaller_metadata(name, layout, excess=needed - length)
            )


def _smaller_metadata(name: str, layout: Layout, *, excess: int) -> str:
    """The other remedy for a sequence that is too short: by so many tokens less metadata, if the layout has as many."""
    key = next((key for key in ("max_metadata_tokens", "num_meta_tokens") if key in type(layout).model_fields), None)
    most = getattr(layout, key) - excess if key is not None else 0
    return f", or layouts.{name}.{key} to at most {most}" if most > 0 else ""


def _check_output(resolved: ResolvedRecipe) -> None:
    if resolved.store.files.is_local:
        path = resolved.store.files.path
        if link := why_missing(path, otherwise=""):
            raise UsageError(
                f"{resolved.where}: output.path: {path}: {link}. Create its target, or choose another place"
            )
        existing = next((place for place in (path, *path.parents) if place.exists()), None)
        if existing is not None and not existing.is_dir():
            raise UsageError(f"{resolved.where}: output.path: {existing} is a file; a run's output is a directory")


def changed_settings(path: str, lines: Sequence[str], *, remedy: str = REBUILD) -> UsageError:
    """The error for output at `path` that was written with other settings; `lines` are the differences."""
    return UsageError(f"{path} was written with other settings: {'; '.join(lines[:4])} ({remedy})")
