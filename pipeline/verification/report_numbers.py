"""The files under `report/` against the manifest and the annotations that they count."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from colophon.pipeline.reports.summary import RUN, SUMMARY, counted
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.verification.findings import Finding
from colophon.shards.common.differences import differences
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.common.state_files import is_as_written, parse_state
from colophon.shards.manifest import Manifest

_REMEDY = "`colophon run` writes it"
_SHOWN_DIFFERENCES = 4
_NOT_IN_OLDER = ("null_in_sources",)
"""Keys that a summary of an older version does not have."""


def report_findings(store: Store, manifest: Manifest) -> Iterator[Finding]:
    """The reports that are missing, edited, or do not count what the manifest has. Reads at most a million rows."""
    for path in (SUMMARY, RUN):
        text = store.files.read_text(path)
        if text is None:
            yield Finding(path, f"is missing. {_REMEDY}")
        elif not is_as_written(text):
            message = "its checksum is wrong: it was edited or damaged, or an older version wrote it"
            yield Finding(path, f"{message}. {_REMEDY}")
        elif path == SUMMARY:
            yield from (Finding(path, message) for message in _summary(text, store, manifest))


def _summary(text: str, store: Store, manifest: Manifest) -> Iterator[str]:
    try:
        found = parse_state(text, where=SUMMARY, remedy=_REMEDY)
        expected = counted(manifest, store=store)
    except (DamagedFileError, pl.exceptions.PolarsError, OSError):
        return  # a damaged file that it counts has a finding of its own
    expected = {key: value for key, value in expected.items() if key in found or key not in _NOT_IN_OLDER}
    lines = differences(expected, {key: found.get(key) for key in expected})
    if lines:
        yield f"differs from the manifest and its files: {'; '.join(lines[:_SHOWN_DIFFERENCES])}. {_REMEDY}"
