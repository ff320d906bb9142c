"""The rules of layouts and packing, token by token, in plain Python: slow, obvious, and sharing no code with `shards`.

Written from the docstrings of `shards.layouts`, `shards.metadata` and `shards.packing`. Segments are not sized by
arithmetic: the oracle writes every candidate out as a list of tokens and takes the longest one that fits.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from colophon.shards.layouts import AppendLayout, MetaTokensLayout, PlainLayout, PrependLayout
from colophon.shards.schema import SpecialIds

AnyLayout = PlainLayout | PrependLayout | AppendLayout | MetaTokensLayout
SPECIAL = SpecialIds(bos=1, eos=2, pad=0, boc=3, eoc=4, meta=(5, 6, 7, 8, 9))
DEFAULT_WEIGHTS = {"pad": 0, "bos": 0, "eos": 1, "wrapper": 0, "metadata": 0, "meta_token": 0, "text": 1}


class Token(NamedTuple):
    """One token of a packed row."""

    id: int
    role: str
    document: int | None


@dataclass(frozen=True)
class Document:
    """One row of a partition."""

    id: str | None
    text: tuple[int, ...]
    columns: dict[str, str | int | None] = field(default_factory=dict)


def encode(text: str) -> list[int]:
    """The tests' tokenizer: UTF-8 bytes, so that `ab` is [97, 98]."""
    return list(text.encode())


def is_dropped(document_id: str | None, *, dropout: float, seed: int) -> bool:
    """The first 8 bytes of BLAKE2b(id, key = seed), read as a number in [0, 1), are below `dropout`."""
    key = (seed % 2**64).to_bytes(8, "little")
    digest = hashlib.blake2b((document_id or "").encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little") < dropout * 2**64


def metadata_text(template: str, columns: dict[str, str | int | None]) -> str | None:
    """The template with its fields filled in; None if it has fields and all of them are null."""
    names = re.findall(r"{(\w+)}", template)
    if names and all(columns[name] is None for name in names):
        return None
    return re.sub(r"{(\w+)}", lambda m: "" if columns[m[1]] is None else str(columns[m[1]]), template)


def metadata_ids(layout: AnyLayout, document: Document, *, seed: int) -> list[int] | None:
    """The ids in the document's wrapper; None if it has no wrapper."""
    if isinstance(layout, PlainLayout):
        return None
    if isinstance(layout, MetaTokensLayout):
        inside: list[int] | None = list(SPECIAL.meta[: layout.num_meta_tokens])
    else:
        text = metadata_text(layout.template, document.columns)
        inside = None if text is None else encode(text)[: layout.max_metadata_tokens]
    if inside is None or is_dropped(document.id, dropout=layout.dropout, seed=seed):
        return [] if layout.when_dropped == "empty" else None
    return inside


def metadata_counts(layout: AnyLayout, documents: list[Document], *, seed: int) -> dict[str, int]:
    """The expected `DocumentMetadata.counts`. Only metadata that is used can be cut."""
    counts: Counter[str] = Counter()
    for document in documents:
        if isinstance(layout, PlainLayout):
            return {}
        drop = is_dropped(document.id, dropout=layout.dropout, seed=seed)
        counts["documents_dropped"] += drop
        if isinstance(layout, MetaTokensLayout):
            continue
        text = metadata_text(layout.template, document.columns)
        counts["documents_without_metadata"] += text is None
        over = len(encode(text or "")) - layout.max_metadata_tokens
        if over > 0 and not drop:
            counts["metadata_cut"] += 1
            counts["metadata_tokens_cut"] += over
    return dict(counts)


def carries_metadata(layout: AnyLayout, *, first: bool, last: bool) -> bool:
    """True if a segment has the wrapper."""
    if isinstance(layout, PlainLayout):
        return False
    return {"every": True, "first": first, "last": last}[layout.segments]


def segment(
    layout: AnyLayout, document: int, content: Document, *, start: int, stop: int, inside: list[int] | None
) -> list[Token]:
    """The tokens of the segment that holds text tokens start..stop."""
    first, last = start == 0, stop == len(content.text)
    wrapper: list[Token] = []
    if inside is not None and carries_metadata(layout, first=first, last=last):
        role = "meta_token" if isinstance(layout, MetaTokensLayout) else "metadata"
        wrapper = [
            Token(SPECIAL.boc, "wrapper", document),
            *[Token(i, role, document) for i in inside],
            Token(SPECIAL.eoc, "wrapper", document),
        ]
    text = [Token(i, "text", document) for i in content.text[start:stop]]
    body = text + wrapper if isinstance(layout, AppendLayout) else wrapper + text
    end = [Token(SPECIAL.eos, "eos", document)] if last else []
    return [Token(SPECIAL.bos, "bos", document), *body, *end]


def longest_segment(
    layout: AnyLayout, document: int, content: Document, *, start: int, room: int, inside: list[int] | None
) -> tuple[int, list[Token]]:
    """The end of the longest next segment that fits in `room` ids, and its tokens; none if no text token fits."""
    for stop in range(len(content.text), start, -1):
        tokens = segment(layout, document, content, start=start, stop=stop, inside=inside)
        if len(tokens) <= room:
            return stop, tokens
    return start, []


def padded(rows: list[list[Token]], *, width: int) -> list[list[Token]]:
    """Rows filled with padding to `width`."""
    return [row + [Token(SPECIAL.pad, "pad", None)] * (width - len(row)) for row in rows]


def concat(layout: AnyLayout, documents: list[Document], *, sequence_length: int, seed: int) -> list[list[Token]]:
    """All rows of method `concat`."""
    width = sequence_length + 1
    rows: list[list[Token]] = []
    for number, document in enumerate(documents):
        inside = metadata_ids(layout, document, seed=seed)
        start = 0
        while start < len(document.text):
            room = width - len(rows[-1]) if rows else 0
            stop, tokens = longest_segment(layout, number, document, start=start, room=room, inside=inside)
            if stop == start:
                assert rows == [] or rows[-1], "a row has no room for one token"
                rows.append([])
                continue
            rows[-1].extend(tokens)
            start = stop
    return padded(rows, width=width)


def best_fit_sizes(layout: AnyLayout, documents: list[Document], *, sequence_length: int, seed: int) -> list[int]:
    """The number of ids in each row by method `best_fit`, sorted, by a naive best-fit decreasing.

    The choice between two equally full rows does not change this list, so every tie rule must give it.
    """
    width = sequence_length + 1
    sizes: list[int] = []
    rest: list[int] = []
    for number, document in enumerate(documents):
        inside = metadata_ids(layout, document, seed=seed)
        start = 0
        while start < len(document.text):
            start, tokens = longest_segment(layout, number, document, start=start, room=width, inside=inside)
            (rest if start == len(document.text) else sizes).append(len(tokens))
    bins: list[int] = []
    for size in sorted(rest, reverse=True):
        fitting = [i for i, used in enumerate(bins) if used + size <= width]
        if fitting:
            bins[max(fitting, key=lambda i: bins[i])] += size
        else:
            bins.append(size)
    return sorted(sizes + bins)


def weights(layout: AnyLayout) -> dict[str, float]:
    """Loss weight of a label by role."""
    own = {"wrapper": 1.0, "metadata": 1.0} if isinstance(layout, AppendLayout) else {}
    return {**DEFAULT_WEIGHTS, **own, **{str(role): weight for role, weight in layout.role_weights.items()}}


def row_segments(row: list[Token]) -> list[int]:
    """The segment number of each token: bos opens one, and so does the padding at the end."""
    numbers: list[int] = []
    for i, token in enumerate(row):
        opens = token.role == "bos" or (token.role == "pad" and row[i - 1].role != "pad")
        numbers.append((numbers[-1] if numbers else -1) + opens)
    return numbers


def row_positions(row: list[Token]) -> list[int]:
    """Position of each token in its segment."""
    numbers = row_segments(row)
    return [i - numbers.index(n) for i, n in enumerate(numbers)]
