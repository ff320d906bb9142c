"""The settings that differ between two runs: of their recipes, and of what recipes do not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from colophon.shards.common.differences import changed_leaves
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import TOKENS

_NOT_SHOWN = "output.path"  # two runs always differ in it
_OF_BINS = frozenset({"bins", "bins_filled", "clip", "edges", "labels", "rename", "score"})
"""The settings that decide which label a score gets."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting that two runs differ in; None where one of them does not have it."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class Changes:
    """All settings that two runs differ in."""

    recipe: list[Change]
    """Keys of the recipe, such as `pack.sequence_length`."""
    bins: list[Change]
    """Edges of bins, calibrated ones among them, and thresholds, by annotator: `quality.edges`."""
    outputs: list[Change]
    """Other settings of annotations and tokens that a recipe does not show, such as the sha256 of a model."""


def changes(before: Manifest, after: Manifest) -> Changes:
    """The settings that two runs differ in, from their manifests."""
    recipe = [c for c in _changes(before.recipe, after.recipe) if c.key != _NOT_SHOWN]
    found = list(_changes(_of_outputs(before), _of_outputs(after)))
    return Changes(
        recipe=recipe,
        bins=[change for change in found if _OF_BINS & set(change.key.split("."))],
        outputs=[change for change in found if not _OF_BINS & set(change.key.split("."))],
    )


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for key, old, new in changed_leaves(before, after):
        yield Change(key=key, before=old, after=new)


def _of_outputs(manifest: Manifest) -> dict[str, Any]:
    """The settings of the annotators, by name, and of the tokens; those of layouts are in the recipe."""
    found = {name: output.settings.get("annotator") for name, output in manifest.annotators.items()}
    return found | (
        {"tokenizer": manifest.outputs[TOKENS].settings.get("tokenizer")} if TOKENS in manifest.outputs else {}
    )
