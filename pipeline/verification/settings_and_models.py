"""The stored settings of each output, the recipe in the manifest, and the bytes of the models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colophon.annotators.registry import model_files
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.runs.staleness import annotators_part, columns_of_sources, tokenizer_part
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.pass_record import settings_path
from colophon.pipeline.verification.findings import Finding
from colophon.shards.common.differences import differences
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.common.paths import absolute_path
from colophon.shards.manifest import MANIFEST_NAME, Manifest

_SHOWN_DIFFERENCES = 4


def settings_findings(store: Store, manifest: Manifest) -> Iterator[Finding]:
    """The `.settings.json` that are missing, damaged, or not those that the manifest has for the output."""
    for output, content in manifest.by_output.items():
        path = settings_path(output)
        try:
            stored = store.files.read_state(path, remedy="`colophon run` writes it")
        except DamagedFileError as error:
            yield Finding(path, str(error).removeprefix(f"{store.root}/{path}: "))
            continue
        if stored is None:
            yield Finding(path, "is missing. `colophon run` writes it")
        elif stored != content.settings:
            lines = differences(content.settings, stored)
            yield Finding(path, f"differs from the settings in the manifest: {'; '.join(lines[:4])}")


def recipe_findings(resolved: ResolvedRecipe, manifest: Manifest) -> Iterator[Finding]:
    """The differences of the manifest's recipe, in what files are made from, from the recipe that is verified.

    What is in one of them alone, such as a new layout, is none; nor is a different spelling of a path.
    """
    recipe = resolved.recipe.model_dump(mode="json")
    lines = differences(_respelled(_compared(manifest.recipe, recipe)), _respelled(_compared(recipe, manifest.recipe)))
    if lines:
        message = f"its recipe differs from the one that is verified: {'; '.join(lines[:_SHOWN_DIFFERENCES])}"
        yield Finding(MANIFEST_NAME, f"{message}. `colophon run` writes it")


def _compared(recipe: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The sections on which files depend, without annotators and layouts that the other recipe does not have."""
    sections = {"pack": recipe.get("pack")}
    if other.get("tokenizer"):
        sections["tokenizer"] = tokenizer_part(recipe)
    for key in ("annotators", "layouts"):
        mine, others = (annotators_part(of) if key == "annotators" else of.get(key) for of in (recipe, other))
        is_table = isinstance(mine, dict) and isinstance(others, dict)
        sections[key] = {name: mine[name] for name in mine if name in others} if is_table else mine  # type: ignore
    columns = None if recipe.get("inputs") or other.get("inputs") else recipe.get("input")
    sections["input"] = {"columns": columns.get("columns")} if isinstance(columns, dict) else columns
    mine, others = columns_of_sources(recipe), columns_of_sources(other)
    if mine and others:
        sections["inputs"] = {name: columns for name, columns in mine.items() if name in others}
    return sections


def _respelled(value: Any) -> Any:
    """The value with absolute paths in place of the strings that name files of this machine."""
    if isinstance(value, dict):
        return {key: _respelled(inner) for key, inner in value.items()}
    return absolute_path(value) if isinstance(value, str) and os.path.exists(value) else value  # noqa: PTH110 - False for any string


def model_findings(resolved: ResolvedRecipe) -> Iterator[Finding]:
    """The model files whose bytes are not those that the settings name. Cost: 0.5 to 2 s a GB.

    A run computes a model's sha256 once and remembers it while size, times and inode stay the same.
    """
    for annotator in resolved.annotators:
        for path, sha256 in model_files(annotator, resolved.recipe.annotators.get(annotator.name)).items():
            if file_sha256(Path(path)) != sha256:
                yield Finding(
                    path, f"was edited in place: its sha256 is not {sha256[:12]}…. `touch` it, then run again"
                )
