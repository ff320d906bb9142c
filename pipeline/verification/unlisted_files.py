"""Files in the directories of a run's outputs that its manifest does not list: no reader opens them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.storage.head import is_head
from colophon.pipeline.storage.pass_record import RECORDS, older_path, settings_path
from colophon.pipeline.storage.segments import segment_names
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import STAGES, Output

_SHOWN = 3
_PARENTS = ("annotations", "packed")


def unlisted_notes(resolved: ResolvedRecipe, manifest: Manifest) -> Iterator[str]:
    """Lines about files that the manifest does not list, and about stages that it does not have.

    Such files are those of partitions that have left the input, or that a killed process began.
    """
    present = {output.stage for output in manifest.by_output}
    for stage in STAGES:
        if stage not in present and any(output.stage == stage for output in resolved.settings.by_output):
            yield f"nothing of the stage {stage} is in the manifest. `colophon run` completes it"
    found = sorted({*_files(resolved, manifest), *_directories(resolved, manifest)})
    if found:
        more = ", ..." if len(found) > _SHOWN else ""
        yield f"{len(found):,} files or directories that no reader opens: {', '.join(found[:_SHOWN])}{more}"


def _files(resolved: ResolvedRecipe, manifest: Manifest) -> Iterator[str]:
    files = resolved.store.files
    found = files.sizes(RECORDS)
    records = {f"{RECORDS}/{name}" for name in found.keys() - {*segment_names(found)} if not is_head(name)}
    records -= {settings_path(output) for output in manifest.outputs}
    for output, content in manifest.by_output.items():
        listed = {PurePosixPath(record.path).name for record in content.records}
        yield from (f"{output}/{name}" for name in files.names(output) if name not in listed)
        if records:  # only of an older version, or of a run that did not end
            records.difference_update(older_path(output, record.partition) for record in content.records)
    yield from records


def _directories(resolved: ResolvedRecipe, manifest: Manifest) -> Iterator[str]:
    """Directories of outputs that are not in the manifest; on an object store, which has none, their files only."""
    for parent in _PARENTS:
        listed = {output.name for output in map(Output, manifest.outputs) if output.startswith(f"{parent}/")}
        yield from (f"{parent}/{name}" for name in resolved.store.files.names(parent) if name not in listed)
