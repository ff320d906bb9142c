"""Documents, layouts and packed files for the tests of `shards`: builders and hypothesis strategies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from pydantic import TypeAdapter

from colophon.shards.arrow_files import list_values, packed_table, tokens_table, write_table
from colophon.shards.layouts import Layout
from colophon.shards.metadata import DocumentMetadata, document_metadata
from colophon.shards.packing.methods import PackingMethod
from colophon.shards.packing.pack import Packed, pack, smallest_row
from colophon.shards.reader import PackedFile
from colophon.shards.schema import ROLE_NAMES, PackedInfo, SpecialIds, TokenizerInfo
from tests.shards.oracle import SPECIAL, AnyLayout, Document, Token, encode, row_segments

TOKENIZER = TokenizerInfo(name="bytes", sha256="0" * 64, num_base_ids=256, num_ids=1024, special=SPECIAL)


class ByteTokenizer:
    """Encodes UTF-8 bytes as ids and counts the strings."""

    def __init__(self) -> None:
        self.num_texts = 0

    def encode_batch(self, texts: pa.Array) -> pa.ListArray:
        self.num_texts += len(texts)
        return pa.array([encode(text) for text in texts.to_pylist()], pa.list_(pa.uint16()))


def make_layout(position: str, **settings: Any) -> AnyLayout:
    """A layout as a recipe's parser builds it."""
    layout: AnyLayout = TypeAdapter(Layout).validate_python({"position": position, **settings})
    return layout


@dataclass(frozen=True)
class Case:
    """All arguments on which the result of `pack` depends."""

    layout: AnyLayout
    documents: tuple[Document, ...]
    sequence_length: int
    method: PackingMethod = "concat"
    seed: int = 0
    special: SpecialIds = SPECIAL
    kept: tuple[bool, ...] | None = None

    @property
    def width(self) -> int:
        return self.sequence_length + 1

    def tokens(self) -> pa.Table:
        """The partition's token file."""
        ids = pa.array([d.id for d in self.documents], pa.string())
        texts = pa.array([list(d.text) for d in self.documents], pa.list_(pa.uint16()))
        return tokens_table(ids, texts, dtype=np.dtype(np.uint16))

    def metadata(self, tokenizer: ByteTokenizer | None = None) -> DocumentMetadata:
        names = self.layout.fields
        columns = {name: pa.array([d.columns[name] for d in self.documents], _column_type(name)) for name in names}
        ids = self.tokens().column("id").combine_chunks()
        return document_metadata(
            self.layout, ids=ids, columns=columns, tokenizer=tokenizer or ByteTokenizer(), seed=self.seed
        )

    def pack(self) -> Packed:
        offsets, ids = list_values(self.tokens().column("input_ids"))
        return pack(
            self.layout,
            text_offsets=offsets,
            text_ids=ids,
            metadata=self.metadata(),
            special=self.special,
            sequence_length=self.sequence_length,
            method=self.method,
            kept=None if self.kept is None else np.array(self.kept, bool),
        )

    def info(self, packed: Packed, *, fingerprint: str = "f" * 64) -> PackedInfo:
        return PackedInfo(
            sequence_length=self.sequence_length,
            layout={"name": "test", **self.layout.model_dump()},
            role_weights=self.layout.weights(),
            tokenizer=TOKENIZER.model_copy(update={"special": self.special}),
            sources=["data/a.parquet"],
            fingerprint=fingerprint,
            num_tokens=packed.num_tokens,
        )

    def write(self, path: Path, packed: Packed | None = None, *, fingerprint: str = "f" * 64) -> PackedFile:
        """Write the result of `pack` (or `packed`) and open it."""
        packed = self.pack() if packed is None else packed
        write_table(path, table_of(packed, self.info(packed, fingerprint=fingerprint)))
        return PackedFile(path)

    def where(self, **changes: Any) -> Case:
        return replace(self, **changes)


def _column_type(name: str) -> pa.DataType:
    return pa.int64() if name == "n" else pa.string()


def table_of(packed: Packed, info: PackedInfo) -> pa.Table:
    return packed_table(
        packed.input_ids,
        run_lengths=packed.run_lengths,
        run_roles=packed.run_roles,
        run_documents=packed.run_documents,
        runs_per_row=packed.runs_per_row,
        info=info,
    )


@contextmanager
def written(case: Case, packed: Packed | None = None) -> Iterator[PackedFile]:
    """A packed file on disk for as long as the context lasts; hypothesis runs many in one test."""
    with TemporaryDirectory() as folder:
        yield case.write(Path(folder) / "part.arrow", packed)


def rows_of(packed: Packed) -> list[list[Token]]:
    """A packing as rows of tokens, by plain loops over its runs."""
    rows, run = [], 0
    for ids, num_runs in zip(packed.input_ids.tolist(), packed.runs_per_row.tolist(), strict=True):
        row: list[Token] = []
        for i in range(run, run + num_runs):
            document = int(packed.run_documents[i])
            for _ in range(int(packed.run_lengths[i])):
                name = ROLE_NAMES[int(packed.run_roles[i])]
                row.append(Token(ids[len(row)], name, None if document == 2**32 - 1 else document))
        rows.append(row)
        run += num_runs
    return rows


def segments_of(rows: list[list[Token]]) -> list[tuple[int, list[Token]]]:
    """(row, tokens) of each segment, without padding."""
    found = []
    for number, row in enumerate(rows):
        numbers = row_segments(row)
        for wanted in range(numbers[-1] + 1):
            tokens = [token for token, n in zip(row, numbers, strict=True) if n == wanted]
            if tokens[0].role != "pad":
                found.append((number, tokens))
    return found


def documents_of(*texts: Sequence[int], **columns: Sequence[str | int | None]) -> tuple[Document, ...]:
    """Documents named a, b, c ... with these texts, and columns of as many values."""
    return tuple(
        Document(chr(ord("a") + i), tuple(text), {name: values[i] for name, values in columns.items()})
        for i, text in enumerate(texts)
    )


# Ids up to 9 are those of special tokens: text may contain them, and nothing may be inferred from them.
text_ids = st.integers(0, 40)
texts = st.one_of(st.lists(text_ids, max_size=6), st.lists(text_ids, max_size=60)).map(tuple)
column_values = st.fixed_dictionaries(
    {
        "url": st.none() | st.text(max_size=8),
        "topic": st.none() | st.sampled_from(["", "Art", "Sport"]),
        "n": st.none() | st.integers(-5, 50),
    }
)
documents = st.builds(Document, st.none() | st.text("abc", max_size=3), texts, column_values)
templates = st.sampled_from(["{url}", "{topic}, {n}", "{n}", "u={url}", "always", "{url}{url}"])
dropouts = st.sampled_from([0.0, 0.3, 1.0])
role_weights = st.dictionaries(
    st.sampled_from([name for name in ROLE_NAMES if name != "pad"]), st.sampled_from([0.0, 0.5, 1.0]), max_size=2
)


@st.composite
def layouts(draw: st.DrawFn, positions: Sequence[str] = ("plain", "prepend", "append", "meta_tokens")) -> AnyLayout:
    position = draw(st.sampled_from(list(positions)))
    settings: dict[str, Any] = {"role_weights": draw(role_weights)}
    if position != "plain":
        partial = "last" if position == "append" else "first"
        settings |= {
            "dropout": draw(dropouts),
            "when_dropped": draw(st.sampled_from(["empty", "nothing"])),
            "segments": draw(st.sampled_from(["every", partial])),
        }
    if position == "meta_tokens":
        settings["num_meta_tokens"] = draw(st.integers(1, len(SPECIAL.meta)))
    elif position != "plain":
        settings |= {"template": draw(templates), "max_metadata_tokens": draw(st.integers(1, 8))}
    return make_layout(position, **settings)


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    layout: st.SearchStrategy[AnyLayout] | None = None,
    methods: Sequence[PackingMethod] = ("concat", "best_fit"),
    min_documents: int = 0,
) -> Case:
    chosen = draw(layout if layout is not None else layouts())
    shortest = max(smallest_row(chosen) - 1, 2)
    return Case(
        layout=chosen,
        documents=tuple(draw(st.lists(documents, min_size=min_documents, max_size=8))),
        sequence_length=draw(st.integers(shortest, shortest + 24)),
        method=draw(st.sampled_from(list(methods))),
        seed=draw(st.integers(-3, 3)),
    )
