"""The part of each token before a text: bos, wrapper, a meta token, or a part of the metadata.

Parts of the metadata are the template's fields and the characters between them (`template`). A `{url}` has three parts,
as in arXiv 2511.21613: `url_prefix` (scheme and `://`), `url_domain` and `url_suffix` (path, query, fragment). A token
that spans a boundary counts for the part of its first byte: `https://www.` as one token is all `url_prefix`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from colophon.shards.arrow_files import list_values
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import MetaTokensLayout, PrependLayout
from colophon.shards.templates import Field, template_of
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.codec import Codec
from colophon.trainer.inference.contexts import TrainedLayout

Span = tuple[str, str]
"""The name of a part, and its characters."""

BOS, WRAPPER, TEXT, TEMPLATE = "bos", "wrapper", "text", "template"
URL_PARTS = ("url_prefix", "url_domain", "url_suffix")
_URL = "url"


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """Ids before the texts of `n` documents, with their parts."""

    part_names: list[str]
    """Bos and wrapper first, then the wrapper's content in its order, the text last."""
    prefixes: list[NumPyArray]
    """int64: ids before each text."""
    parts: list[NumPyArray]
    """int64: the part of each of these ids, an index into `part_names`."""
    kept: NumPyArray
    """int64 [n]: numbers of the documents; the others are excluded."""
    excluded: dict[str, int]
    """Number of excluded documents, by reason."""


def required_columns(layout: TrainedLayout) -> list[str]:
    """The annotation columns from which `labelled_rows` finds the parts of a layout.

    Raises:
        TrainerError: the layout has nothing before the text.
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
    layout: TrainedLayout, columns: Mapping[str, pa.Array], *, num_documents: int, tokenizer: Codec
) -> LabelledRows:
    """Each document's ids before its text, none dropped, with their parts.

    Documents without metadata are excluded, and documents whose metadata changes when it is encoded and decoded.

    Args:
        layout: prepend or meta_tokens.
        columns: those of `required_columns`, each [num_documents].
        num_documents: length of each column.
        tokenizer: the one that the layout was packed with.
    """
    if isinstance(layout.layout, MetaTokensLayout):
        return _meta_token_rows(layout, num_documents)
    assert isinstance(layout.layout, PrependLayout)  # required_columns has refused other layouts
    documents = _metadata_spans(layout.layout.template, columns, num_documents)
    texts = pa.array(["".join(text for _, text in spans) for spans in documents], pa.string())
    offsets, pool = list_values(tokenizer.encode_batch(texts))
    names = list(dict.fromkeys([BOS, WRAPPER, *_template_parts(layout.layout.template), TEXT]))
    number = {name: i for i, name in enumerate(names)}
    prefixes, parts, kept = [], [], []
    excluded = {"without_metadata": 0, "changed_by_the_tokenizer": 0}
    for document, spans in enumerate(documents):
        ids = pool[offsets[document] : offsets[document + 1]][: layout.layout.max_metadata_tokens]
        if not spans or not len(ids):
            excluded["without_metadata"] += 1
            continue
        of_tokens = parts_of_tokens(ids, spans, tokenizer=tokenizer)
        if of_tokens is None:
            excluded["changed_by_the_tokenizer"] += 1
            continue
        inner = [number[part] for part in of_tokens]
        prefixes.append(np.array(layout.prefix(ids), np.int64))
        parts.append(np.array([number[BOS], number[WRAPPER], *inner, number[WRAPPER]]))
        kept.append(document)
    return _without_unused_parts(
        LabelledRows(part_names=names, prefixes=prefixes, parts=parts, kept=np.array(kept, np.int64), excluded=excluded)
    )


def parts_of_tokens(ids: NumPyArray, spans: Sequence[Span], *, tokenizer: Codec) -> list[str] | None:
    """The part of each token's first byte; None if the ids do not decode to the spans' text or to its start.

    Of the spans url_prefix `https://` and url_domain `a.b`, tokens `http`, `s://a`, `.b` are prefix, prefix, domain.

    Args:
        ids: ids of the joined text, or its first ids.
        spans: the parts that the text consists of, in order.
        tokenizer: the one that encoded the text.
    """
    text = "".join(part for _, part in spans)
    whole = tokenizer.decode(ids)
    if whole != text and not text.startswith(whole.rstrip("\ufffd")):
        return None
    ends = np.cumsum([len(part) for _, part in spans])
    found = []
    for i in range(len(ids)):
        before = tokenizer.decode(ids[:i]) if i else ""
        # Only complete characters count as read before: a character split over tokens is the later token's too.
        first = min(_common_prefix(before, text), len(text) - 1)
        found.append(spans[int(np.searchsorted(ends, first, side="right"))][0])
    return found


def _common_prefix(one: str, other: str) -> int:
    """Number of characters that two strings share from their start."""
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)


def _metadata_spans(template: str, columns: Mapping[str, pa.Array], num_documents: int) -> list[list[Span]]:
    """The parts of each document's metadata, as `templates.render` writes it; empty where all fields are null."""
    urls = {name: columns[name].cast(pa.string()).to_pylist() for name in URL_PARTS if name in columns}
    parts = [
        (literal, field, None if texts is None else texts.to_pylist())
        for literal, field, texts in template_of(template).values(columns)
    ]
    documents: list[list[Span]] = []
    for document in range(num_documents):
        spans: list[Span] = []
        known = all(texts is None for _, _, texts in parts)
        for literal, field, texts in parts:
            spans.append((TEMPLATE, literal))
            if field is not None and texts is not None:
                url_parts = {name: column[document] for name, column in urls.items()}
                spans += _field_spans(field, texts[document] or "", url_parts)
                known |= texts[document] is not None
        documents.append([span for span in spans if span[1]] if known else [])
    return documents


def _field_spans(field: Field, value: str, url_parts: Mapping[str, str | None]) -> list[Span]:
    prefix, domain, suffix = (url_parts.get(part) for part in URL_PARTS)
    if field.name != _URL or field.spec or prefix is None or domain is None or suffix is None:
        return [(field.name, value)]
    # Spaces around an address are in none of its parts: they count for the first and the last one.
    start = value.index(prefix + domain + suffix) + len(prefix)
    middle = start + len(domain)
    return list(zip(URL_PARTS, (value[:start], value[start:middle], value[middle:]), strict=True))


def _template_parts(template: str) -> list[str]:
    """Names of the parts that a template can have, in order."""
    parts: list[str] = []
    for literal, field in template_of(template).parts:
        parts += [TEMPLATE] if literal else []
        parts += [] if field is None else [*URL_PARTS, _URL] if field.name == _URL else [field.name]
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
        excluded={},
    )


def _without_unused_parts(rows: LabelledRows) -> LabelledRows:
    """The rows without parts that no document has: a `url` as a whole is rare."""
    used = np.unique(np.concatenate([[0, 1, len(rows.part_names) - 1], *rows.parts]))
    return replace(
        rows,
        part_names=[rows.part_names[i] for i in used],
        parts=[np.searchsorted(used, parts) for parts in rows.parts],
    )
