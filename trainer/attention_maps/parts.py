"""What each token before a text is: bos, wrapper, a meta token, or a part of the metadata.

Parts of the metadata are the template's fields and what stands between them (`template`); a `{url}` has three of its
own, as in arXiv 2511.21613: `url_prefix` (scheme and `://`), `url_domain` and `url_suffix` (path, query, fragment). A
token that spans a boundary counts for the part of its first byte: of `https://www.` as one token, the prefix has all.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from colophon.shards.arrow_files import list_values
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import MetaTokensLayout, PrependLayout
from colophon.shards.metadata import Encoder
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.contexts import TrainedLayout

Span = tuple[str, str]
"""Name of a part, and its characters."""

BOS, WRAPPER, TEXT, TEMPLATE = "bos", "wrapper", "text", "template"
URL_PARTS = ("url_prefix", "url_domain", "url_suffix")
_URL = "url"


class Vocabulary(Encoder, Protocol):
    """What naming parts needs of a tokenizer."""

    def decode(self, ids: NumPyArray) -> str:
        """Text of ids; bytes that are no UTF-8 become U+FFFD."""
        ...


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """What stands before texts, and their ids; `n` documents."""

    part_names: list[str]
    """Bos and wrapper first, then what the wrapper holds in its order, the text last."""
    prefixes: list[NumPyArray]
    """int64 ids before each text."""
    parts: list[NumPyArray]
    """int64: the part of each of them, an index into `part_names`."""
    kept: NumPyArray
    """int64 [n]: which documents they are; the others are left out."""
    left_out: dict[str, int]
    """Documents that are not among them, by reason."""


def columns_of(layout: TrainedLayout) -> list[str]:
    """The annotation columns that naming the parts of a layout needs.

    Raises:
        TrainerError: nothing stands before the text in this layout.
    """
    if isinstance(layout.layout, MetaTokensLayout):
        return []
    if not isinstance(layout.layout, PrependLayout):
        raise TrainerError(
            f"layout {layout.name!r} ({layout.layout.position}) has nothing before the text to attend to; "
            "a prepend or meta_tokens layout has"
        )
    fields = layout.layout.fields
    return [*fields, *(part for part in URL_PARTS if _URL in fields and part not in fields)]


def labelled_rows(
    layout: TrainedLayout, columns: Mapping[str, pa.Array], *, num_documents: int, tokenizer: Vocabulary
) -> LabelledRows:
    """Each document's ids before its text, none dropped, with their parts.

    Documents without metadata are left out, and so are those whose metadata the tokenizer does not give back as it was.

    Args:
        layout: prepend or meta_tokens.
        columns: those of `columns_of`, each [num_documents].
        num_documents: how many there are.
        tokenizer: the one that the layout was packed with.
    """
    if isinstance(layout.layout, MetaTokensLayout):
        return _meta_token_rows(layout, num_documents)
    assert isinstance(layout.layout, PrependLayout)  # columns_of has said so
    documents = _spans(layout.layout.template, columns, num_documents)
    texts = pa.array(["".join(text for _, text in spans) for spans in documents], pa.string())
    offsets, pool = list_values(tokenizer.encode_batch(texts))
    names = list(dict.fromkeys([BOS, WRAPPER, *_template_parts(layout.layout.template), TEXT]))
    number = {name: i for i, name in enumerate(names)}
    prefixes, parts, kept = [], [], []
    left_out = {"without_metadata": 0, "not_given_back_by_the_tokenizer": 0}
    for document, spans in enumerate(documents):
        ids = pool[offsets[document] : offsets[document + 1]][: layout.layout.max_metadata_tokens]
        if not spans or not len(ids):
            left_out["without_metadata"] += 1
            continue
        of_tokens = parts_of_tokens(ids, spans, tokenizer=tokenizer)
        if of_tokens is None:
            left_out["not_given_back_by_the_tokenizer"] += 1
            continue
        inner = [number[part] for part in of_tokens]
        prefixes.append(np.array(layout.prefix(ids), np.int64))
        parts.append(np.array([number[BOS], number[WRAPPER], *inner, number[WRAPPER]]))
        kept.append(document)
    return _without_unused(
        LabelledRows(part_names=names, prefixes=prefixes, parts=parts, kept=np.array(kept, np.int64), left_out=left_out)
    )


def parts_of_tokens(ids: NumPyArray, spans: Sequence[Span], *, tokenizer: Vocabulary) -> list[str] | None:
    """The part of each token's first byte; None where the ids are not those of the spans' text or of its beginning.

    Args:
        ids: of the joined text, or of its first tokens.
        spans: the parts that make the text up, in order.
        tokenizer: the one that made the ids.
    """
    text = "".join(part for _, part in spans)
    whole = tokenizer.decode(ids)
    if whole != text and not text.startswith(whole.rstrip("\ufffd")):
        return None
    ends = np.cumsum([len(part) for _, part in spans])
    found = []
    for i in range(len(ids)):
        before = tokenizer.decode(ids[:i]) if i else ""
        # Of a character of which only some bytes came before, the rest is the token's: complete ones are counted.
        first = min(_common_prefix(before, text), len(text) - 1)
        found.append(spans[int(np.searchsorted(ends, first, side="right"))][0])
    return found


def _common_prefix(one: str, other: str) -> int:
    """Characters that two strings share from their start."""
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)


def _spans(template: str, columns: Mapping[str, pa.Array], num_documents: int) -> list[list[Span]]:
    """The parts of each document's metadata, as `shards.layouts.render` writes it; none where all fields are null."""
    values = {name: column.cast(pa.string()).to_pylist() for name, column in columns.items()}
    fields = list(string.Formatter().parse(template))
    names = [name for _, name, _, _ in fields if name is not None]
    documents: list[list[Span]] = []
    for document in range(num_documents):
        spans: list[Span] = []
        for literal, name, _, _ in fields:
            spans.append((TEMPLATE, literal))
            if name is not None:
                spans += _field(name, {key: column[document] for key, column in values.items()})
        known = not names or any(values[name][document] is not None for name in names)
        documents.append([span for span in spans if span[1]] if known else [])
    return documents


def _field(name: str, values: Mapping[str, str | None]) -> list[Span]:
    value = values[name] or ""
    prefix, domain, suffix = (values.get(part) for part in URL_PARTS)
    if name != _URL or prefix is None or domain is None or suffix is None:
        return [(name, value)]
    # Spaces around an address belong to none of its parts: they go to the first and the last one.
    start = value.index(prefix + domain + suffix) + len(prefix)
    middle = start + len(domain)
    return list(zip(URL_PARTS, (value[:start], value[start:middle], value[middle:]), strict=True))


def _template_parts(template: str) -> list[str]:
    """Names of the parts that a template can have, in order."""
    parts: list[str] = []
    for literal, name, _, _ in string.Formatter().parse(template):
        parts += [TEMPLATE] if literal else []
        parts += [] if name is None else [*URL_PARTS, _URL] if name == _URL else [name]
    return parts


def _meta_token_rows(layout: TrainedLayout, num_documents: int) -> LabelledRows:
    names = [BOS, WRAPPER, *(f"meta_token_{i + 1}" for i in range(len(layout.meta_tokens))), TEXT]
    prefix = np.array(layout.prefix(layout.meta_tokens), np.int64)
    parts = np.array([0, 1, *range(2, len(names) - 1), 1])
    return LabelledRows(
        part_names=names,
        prefixes=[prefix] * num_documents,
        parts=[parts] * num_documents,
        kept=np.arange(num_documents),
        left_out={},
    )


def _without_unused(rows: LabelledRows) -> LabelledRows:
    """The rows with the parts that some document has: a `url` without parts of its own is rare."""
    used = np.unique(np.concatenate([[0, 1, len(rows.part_names) - 1], *rows.parts]))
    return replace(
        rows,
        part_names=[rows.part_names[i] for i in used],
        parts=[np.searchsorted(used, parts) for parts in rows.parts],
    )
