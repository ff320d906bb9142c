"""Directories that `save_to_disk` of Hugging Face `datasets` wrote: Arrow streams, and `state.json`, which lists them.

Saving to a directory again leaves the files of the earlier save in it if their number differs: `datasets` does not
read them, and neither does a search.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

_STATE = "state.json"
_SHARD = re.compile(r"data-[0-9]{5}-of-([0-9]{5})\.arrow")
EARLIER_SAVE = "file of an earlier save_to_disk"


def earlier_saves(names: Iterable[str], *, read_state: Callable[[], bytes]) -> frozenset[str]:
    """The files in a directory that its `state.json` does not list.

    Args:
        names: the directory's entries.
        read_state: reads its `state.json`; called only if there are files of several saves.

    Raises:
        ValueError: `state.json` lists no files.
    """
    names = set(names)
    shards = {name: found[1] for name in names if (found := _SHARD.fullmatch(name)) is not None}
    if len(set(shards.values())) < 2 or _STATE not in names:
        return frozenset()
    try:
        listed = {str(file["filename"]) for file in json.loads(read_state())["_data_files"]}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError("it lists no files") from error
    return frozenset(shards.keys() - listed)
