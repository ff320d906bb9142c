"""The notation of packings worked out by hand.

A row has four values: its ids, and one character for each token: the role (b bos, e eos, w wrapper, m metadata, s meta
token, t text, . padding), the document, and the weight of the token *as a label* (position 0 is never a label: `-`).
Special ids: pad 0, bos 1, eos 2, boc 3, eoc 4, meta tokens 5 to 9. Metadata ids are the bytes of the string: `ab` is
97, 98.
"""

from __future__ import annotations

from typing import Any

from tests.shards.cases import Case, documents_of, make_layout, rows_of

LETTERS = {"pad": ".", "bos": "b", "eos": "e", "wrapper": "w", "metadata": "m", "meta_token": "s", "text": "t"}
Row = tuple[list[int], str, str, str]


def shown(case: Case) -> list[Row]:
    """The rows of `pack` for `case`."""
    weights = case.layout.weights()
    rows = []
    for row in rows_of(case.pack()):
        roles = "".join(LETTERS[token.role] for token in row)
        documents = "".join("." if token.document is None else str(token.document) for token in row)
        loss_weights = "-" + "".join(f"{weights[token.role]:g}" for token in row[1:])  # type: ignore[index]
        rows.append(([token.id for token in row], roles, documents, loss_weights))
    return rows


def case_of(position: str, *texts: list[int], sequence_length: int, method: Any = "concat", **settings: Any) -> Case:
    """Documents with these texts and the metadata `ab`, `cd`, `ef`, ... in column `url`; no dropout unless set."""
    urls = settings.pop("urls", ["ab", "cd", "ef", "gh"][: len(texts)])
    if position in ("prepend", "append"):
        settings = {"template": "{url}", "max_metadata_tokens": 4, "dropout": 0.0, **settings}
    return Case(
        layout=make_layout(position, **settings),
        documents=documents_of(*texts, url=urls),
        sequence_length=sequence_length,
        method=method,
    )
