"""The units of a vocabulary: ids that a `pooled` model reads as one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from colophon.shards.tokenizer.tokenizer import Tokenizer


def token_units(tokenizer: Tokenizer, *, fold_case: bool) -> tuple[npt.NDArray[np.int32], int]:
    """int32 [num_ids]: the unit of each id, -1 for one that is skipped; and the number of units.

    Ids that no text can give are skipped. With `fold_case`, tokens that differ in case and in the white space around
    them are one unit (` The`, `the`), and tokens of white space alone are skipped: on small training sets that is worth
    what lower case is worth to fastText.

    Costs a second for 100,000 ids.
    """
    units = np.full(tokenizer.num_ids, -1, np.int32)
    known: dict[bytes, int] = {}
    for token_id in np.flatnonzero(tokenizer.text_ids()).tolist():
        token = tokenizer.backend.token_bytes(token_id)
        key = _folded(token) if fold_case else token
        if key:
            units[token_id] = known.setdefault(key, len(known))
    return units, len(known)


def _folded(token: bytes) -> bytes:
    """A token in lower case without white space around it; one that is not UTF-8, a part of a character, as it is."""
    try:
        return token.decode().strip().lower().encode()
    except UnicodeDecodeError:
        return token
