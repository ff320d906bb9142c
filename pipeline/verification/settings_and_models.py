"""The stored settings of each output, and the bytes of the models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from colophon.annotators.registry import model_files
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.storage.commits import Store, settings_path
from colophon.pipeline.verification.findings import Finding
from colophon.shards.common.differences import differences
from colophon.shards.common.digests import file_sha256
from colophon.shards.manifest import Manifest


def settings_findings(store: Store, manifest: Manifest) -> Iterator[Finding]:
    """The `.settings.json` that are missing, damaged, or not those that the manifest has for the output."""
    for output, content in manifest.by_output.items():
        path = settings_path(output)
        try:
            stored = store.files.read_json(path)
        except ValueError:
            yield Finding(path, "is damaged: it is not JSON. `colophon run` writes it")
            continue
        if stored is None:
            yield Finding(path, "is missing. `colophon run` writes it")
        elif stored != content.settings:
            lines = differences(content.settings, stored)
            yield Finding(path, f"differs from the settings in the manifest: {'; '.join(lines[:4])}")


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
