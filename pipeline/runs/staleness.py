"""Staleness: whether the shards that a training reads are those that the recipe describes now.

`run` and `status` plan over the input, which may be missing where a model is trained. This check compares settings
alone with those in the manifest: of the packed layouts, and of the tokens and annotations they are made from. Costs
the sha256 of the classifiers whose columns a layout shows (1 to 5 s a GB) and the loading of the vocabulary.
"""

from __future__ import annotations

from typing import Any

from colophon.annotators.base import Annotator
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.schema import DEFAULT_META_TOKENS, Recipe
from colophon.pipeline.runs.calibration import calibrated, calibration_path
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe, changed_settings, resolve, without_annotators
from colophon.pipeline.stages.settings import SOURCES, changed_lines
from colophon.shards.manifest import Manifest, read_manifest
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.stores.places import run_place


def check_unchanged(recipe: Recipe, name: str, *, where: str) -> None:
    """Raise if layouts of this run that `[train.<name>]` reads, or its annotations, were written with other settings.

    A model or vocabulary that is missing on this machine counts as unchanged if the recipe describes it as it did when
    the shards were written.

    Raises:
        UsageError: one line that names the layout, what differs, and what to do.
        ShardError: there is no manifest under the recipe's output.
    """
    manifest, train = read_manifest(run_place(recipe.output.path)), recipe.train[name]
    layouts = dict.fromkeys(train.layouts_of_this_run().values())
    columns = dict.fromkeys(train.columns_of_this_run().values())
    rewrites = recipe.tokenizer is not None and recipe.tokenizer.rewritten_by
    needs_annotators = columns or rewrites or any(recipe.layouts[layout].columns for layout in layouts)
    resolved = (_resolved_if_possible if needs_annotators else without_annotators)(recipe, where=where)
    annotator_of = resolved.columns.annotator_of
    annotators = dict.fromkeys(annotator_of[column] for column in columns if column in annotator_of)
    for output in (*map(Output.packed, layouts), *map(Output.annotations, annotators)):
        for source in _with_upstream(resolved, output):
            lines = _changes(resolved, source, manifest)
            if lines:
                changed = output if source == output else f"{output} (its {source})"
                remedy = f"`colophon run {where} --rebuild` rebuilds it; or change the recipe back"
                raise changed_settings(f"{recipe.output.path}/{changed}", lines, remedy=remedy)


def _resolved_if_possible(recipe: Recipe, *, where: str) -> ResolvedRecipe:
    """The recipe with its annotators; without any if a model is missing: training needs none of them."""
    try:
        return resolve(recipe, where=where)
    except UsageError:
        return without_annotators(recipe, where=where)


def _with_upstream(resolved: ResolvedRecipe, output: Output) -> list[Output]:
    """The output and all that it is made from; all annotations of the recipe where its annotators are unknown."""
    shows_columns = output.stage == "pack" and resolved.recipe.layouts[output.name].columns
    if shows_columns and not resolved.annotators:
        return [output, TOKENS, *map(Output.annotations, resolved.recipe.annotators)]
    upstream = Plan(resolved).upstream(output)
    return list(dict.fromkeys([output, *(each for source in upstream for each in _with_upstream(resolved, source))]))


def _changes(resolved: ResolvedRecipe, output: Output, manifest: Manifest) -> list[str]:
    """The differences between an output's settings and those in the manifest, else between the two recipes."""
    if output not in manifest.outputs:
        return []
    settings = _settings(resolved, output)
    if settings is None:
        now = resolved.recipe.model_dump(mode="json")
        return changed_lines(_recipe_part(manifest.recipe, output), _recipe_part(now, output))
    return changed_lines(manifest.outputs[output].settings, settings)


def _settings(resolved: ResolvedRecipe, output: Output) -> dict[str, Any] | None:
    """The output's settings; None where this machine cannot compute them, or only with a download."""
    if output.stage == "annotate":
        annotator = next((a for a in resolved.annotators if a.name == output.name), None)
        return None if annotator is None else _annotation_settings(resolved, annotator)
    tokenizer = resolved.recipe.tokenizer
    if tokenizer is None or tokenizer.name is not None:  # a name means what it meant when the shards were written
        return None
    try:
        return resolved.settings.of(output)
    except UsageError:
        return None


def _annotation_settings(resolved: ResolvedRecipe, annotator: Annotator) -> dict[str, Any] | None:
    """The settings with the stored calibration; None if the annotator needs one and none is stored."""
    if annotator.num_calibration_documents and resolved.store.files.size(calibration_path(annotator)) is None:
        return None
    alone = resolved.with_annotators([annotator])
    (known,) = calibrated(alone, write=False, log=lambda line: None).annotators
    annotators = [known if other is annotator else other for other in resolved.annotators]
    return resolved.with_annotators(annotators).settings.of(Output.annotations(annotator.name))


def _recipe_part(recipe: dict[str, Any], output: Output) -> dict[str, Any]:
    """The part of a recipe, as JSON, that describes an output."""
    tokenizer = tokenizer_part(recipe)
    if output.stage == "annotate":
        return {"annotator": annotators_part(recipe).get(output.name), **_columns(recipe)}
    if output.stage == "tokenize":
        return {"tokenizer": tokenizer, "rewritten_by": _rewriters(recipe, tokenizer), **_columns(recipe)}
    layouts = recipe.get("layouts", {})
    num_meta_tokens = [layout["num_meta_tokens"] for layout in layouts.values() if "num_meta_tokens" in layout]
    return {
        "layout": layouts.get(output.name),
        "pack": recipe.get("pack"),
        "tokenizer": tokenizer,
        "num_meta_tokens": max([DEFAULT_META_TOKENS, *num_meta_tokens]),
    }


def _rewriters(recipe: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """The annotators whose replaced text is tokenized, as the recipe describes them."""
    names = tokenizer.get("rewritten_by") if isinstance(tokenizer, dict) else None
    return {str(name): annotators_part(recipe).get(name) for name in names or ()}


def _columns(recipe: dict[str, Any]) -> dict[str, Any]:
    """The names of the input's columns, by source where there are several, as in an output's settings."""
    if sources := columns_of_sources(recipe):
        return {SOURCES: {name: {"columns": columns} for name, columns in sources.items()}}
    return {"columns": (recipe.get("input") or {}).get("columns")}


def tokenizer_part(recipe: dict[str, Any]) -> Any:
    """`[tokenizer]` of a recipe as JSON, which may be damaged, without `allow_lossy`, which changes no ids."""
    tokenizer = recipe.get("tokenizer")
    if not isinstance(tokenizer, dict):
        return tokenizer
    return {key: value for key, value in tokenizer.items() if key != "allow_lossy"}


def annotators_part(recipe: dict[str, Any]) -> Any:
    """`[annotators]` of a recipe as JSON, which may be damaged, without the types, which older manifests lack."""
    annotators = recipe.get("annotators", {})
    if not isinstance(annotators, dict):
        return annotators
    return {
        name: {key: value for key, value in table.items() if key != "type"} if isinstance(table, dict) else table
        for name, table in annotators.items()
    }


def columns_of_sources(recipe: dict[str, Any]) -> dict[str, Any]:
    """The `columns` of each table of `[[inputs]]` in a recipe as JSON, which may be damaged, by the source's name."""
    inputs = recipe.get("inputs")
    tables = [table for table in inputs if isinstance(table, dict)] if isinstance(inputs, list) else []
    return {str(table.get("name")): table.get("columns") for table in tables}
