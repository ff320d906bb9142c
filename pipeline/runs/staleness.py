"""Whether the shards that a training reads are what today's recipe would make.

`run` and `status` plan over the input, which may be gone where a model is trained. Here the settings alone are held
against those in the manifest: of the packed layouts, and of the tokens and annotations that they are made from. Costs
the sha256 of the classifiers whose columns a layout shows (1 to 5 s a GB) and the loading of the vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colophon.annotators.base import Annotator
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.schema import DEFAULT_META_TOKENS, Recipe
from colophon.pipeline.runs.calibration import calibrated, calibration_path
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import Prepared, changed_settings, prepare
from colophon.shards.common.differences import differences
from colophon.shards.manifest import Manifest, read_manifest
from colophon.shards.outputs import TOKENS, Output


def check_unchanged(recipe: Recipe, name: str, *, where: str) -> None:
    """Refuse `[train.<name>]` whose layouts of this run, or annotations of it, were made with other settings.

    A model or vocabulary that is not on this machine is taken for the one it was, if the recipe says of it what it said
    when the shards were made.

    Raises:
        UsageError: one line that names the layout, what differs, and what to do.
        ShardError: there is no manifest under the recipe's output.
    """
    manifest, train = read_manifest(Path(recipe.output.path)), recipe.train[name]
    layouts = dict.fromkeys(train.layouts_of_this_run().values())
    columns = dict.fromkeys(train.columns_of_this_run().values())
    shown = any(recipe.layouts[layout].fields for layout in layouts)
    prepared = _prepared(recipe, where=where) if shown or columns else Prepared(recipe, where, ())
    providers = dict.fromkeys(prepared.providers[column] for column in columns if column in prepared.providers)
    for output in (*map(Output.packed, layouts), *map(Output.annotations, providers)):
        for stage in _made_from(prepared, output):
            lines = _changed(prepared, stage, manifest)
            if lines:
                made = output if stage == output else f"{output} (its {stage})"
                remedy = f"`colophon run {where} --rebuild` makes it anew; or change the recipe back"
                raise changed_settings(f"{recipe.output.path}/{made}", lines, remedy=remedy)


def _prepared(recipe: Recipe, *, where: str) -> Prepared:
    """The recipe with its annotators; without any where a model is missing, which training itself can do without."""
    try:
        return prepare(recipe, where=where)
    except UsageError:
        return Prepared(recipe, where, ())


def _made_from(prepared: Prepared, output: Output) -> list[Output]:
    """The output and all that it is made from; any annotator of the recipe where none could be built."""
    layout = prepared.recipe.layouts[output.name] if output.stage == "pack" else None
    if layout is not None and layout.fields and not prepared.annotators:
        return [output, TOKENS, *map(Output.annotations, prepared.recipe.annotators)]
    above = (stage for source in Plan(prepared).upstream(output) for stage in _made_from(prepared, source))
    return list(dict.fromkeys([output, *above]))


def _changed(prepared: Prepared, stage: Output, manifest: Manifest) -> list[str]:
    """How today's settings of a stage differ from those of its files, told from the recipes where they cannot be."""
    if stage not in manifest.outputs:
        return []
    then, now = manifest.recipe, prepared.recipe.model_dump(mode="json")
    settings = _settings(prepared, stage)
    if settings is None:
        return differences(_said(then, stage), _said(now, stage))
    return differences(manifest.outputs[stage].settings, settings)


def _settings(prepared: Prepared, stage: Output) -> dict[str, Any] | None:
    """Today's settings of a stage; None where they cannot be told on this machine, or only with a download."""
    if stage.stage == "annotate":
        annotator = next((a for a in prepared.annotators if a.name == stage.name), None)
        return None if annotator is None else _annotation_settings(prepared, annotator)
    tokenizer = prepared.recipe.tokenizer
    if tokenizer is None or tokenizer.name is not None:  # a name always means the same vocabulary
        return None
    try:
        return prepared.settings_of(stage)
    except UsageError:
        return None


def _annotation_settings(prepared: Prepared, annotator: Annotator) -> dict[str, Any] | None:
    """With the calibration that is kept; None where one is due and none is kept: without it nothing can be told."""
    if annotator.num_calibration_documents and prepared.store.read_json(calibration_path(annotator)) is None:
        return None
    alone = prepared.changed(annotators=(annotator,))
    (known,) = calibrated(alone, write=False, log=lambda line: None).annotators
    annotators = tuple(known if other is annotator else other for other in prepared.annotators)
    return prepared.changed(annotators=annotators).settings_of(Output.annotations(annotator.name))


def _said(recipe: dict[str, Any], stage: Output) -> dict[str, Any]:
    """What a recipe, as JSON, says of a stage."""
    columns, tokenizer = recipe.get("input", {}).get("columns"), recipe.get("tokenizer")
    if stage == TOKENS:
        return {"tokenizer": tokenizer, "columns": columns}
    if stage.stage == "annotate":
        annotator = recipe.get("annotators", {}).get(stage.name)
        return {"annotator": annotator, "columns": columns}
    layouts = recipe.get("layouts", {})
    asked = [layout["num_meta_tokens"] for layout in layouts.values() if "num_meta_tokens" in layout]
    return {
        "layout": layouts.get(stage.name),
        "pack": recipe.get("pack"),
        "tokenizer": tokenizer,
        "num_meta_tokens": max([DEFAULT_META_TOKENS, *asked]),
    }
