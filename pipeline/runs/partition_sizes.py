"""The sizes of partitions that `partition_bytes = "auto"` chose, kept in the output for later runs.

So files that are added to the input, or a different number of workers, change no cut and outdate no file. A number in
the recipe is used as it is, and leaves the kept size as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from colophon.pipeline.storage.commits import Store
from colophon.shards.common.errors import DamagedFileError

_PATH = "calibration/.partition_bytes.json"  # no annotator has this name
_REMEDY = "Delete it; a run chooses the sizes of partitions again"


def kept_sizes(store: Store) -> dict[str, int]:
    """The sizes in bytes that earlier runs chose, by the section of the recipe; none if the file is damaged."""
    try:
        found = store.files.read_state(_PATH, remedy=_REMEDY) or {}
    except DamagedFileError:
        return {}
    return {key: size for key, size in found.items() if type(size) is int and size > 0}


def keep_sizes(store: Store, chosen: Mapping[str, int]) -> None:
    """Write the sizes that this run chose beside those of earlier runs."""
    known = kept_sizes(store)
    if {**known, **chosen} != known:
        store.files.replace_text(_PATH, json.dumps({**known, **chosen}, sort_keys=True))
