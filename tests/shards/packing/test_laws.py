"""Laws of packing, on random documents, layouts and lengths: by comparison with the oracle, and one by one."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import colophon.shards.packing.pack
from colophon.shards.arrow_files import list_values
from colophon.shards.laws import broken_laws
from colophon.shards.packing.pack import Packed
from tests.shards import oracle
from tests.shards.cases import (
    ByteTokenizer,
    Case,
    cases,
    documents,
    layouts,
    make_layout,
    rows_of,
    segments_of,
    table_of,
    written,
)
from tests.shards.oracle import SPECIAL, Document, Token


def used(row: list[Token]) -> int:
    return sum(token.role != "pad" for token in row)


def text_of(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens if token.role == "text"]


def body_by_document(rows: list[list[Token]]) -> dict[int, list[int]]:
    """Text ids of each document, its segments joined: those without eos in their order, then the one with eos."""
    segments = [tokens for _, tokens in segments_of(rows)]
    segments.sort(key=lambda tokens: any(token.role == "eos" for token in tokens))
    body: dict[int, list[int]] = {}
    for tokens in segments:
        assert tokens[0].document is not None
        body.setdefault(tokens[0].document, []).extend(text_of(tokens))
    return body


def expected_body(case: Case) -> dict[int, list[int]]:
    return {i: list(d.text) for i, d in enumerate(case.documents) if d.text}


class TestAgainstTheOracle:
    @given(cases(methods=["concat"]))
    @settings(max_examples=250)
    def test_concat_is_the_oracle(self, case: Case) -> None:
        expected = oracle.concat(
            case.layout, list(case.documents), sequence_length=case.sequence_length, seed=case.seed
        )
        assert rows_of(case.pack()) == expected

    @given(cases(methods=["best_fit"]))
    @settings(max_examples=120)
    def test_best_fit_fills_rows_like_a_naive_best_fit_decreasing(self, case: Case) -> None:
        expected = oracle.best_fit_sizes(
            case.layout, list(case.documents), sequence_length=case.sequence_length, seed=case.seed
        )
        assert sorted(used(row) for row in rows_of(case.pack())) == expected

    @given(cases(methods=["best_fit"]))
    @settings(max_examples=120)
    def test_best_fit_writes_the_segments_that_the_oracle_writes(self, case: Case) -> None:
        expected = []
        for number, document in enumerate(case.documents):
            inside, start = oracle.metadata_ids(case.layout, document, seed=case.seed), 0
            while start < len(document.text):
                start, tokens = oracle.longest_segment(
                    case.layout, number, document, start=start, room=case.width, inside=inside
                )
                expected.append(tokens)
        assert sorted(tokens for _, tokens in segments_of(rows_of(case.pack()))) == sorted(expected)

    @given(cases())
    def test_counts(self, case: Case) -> None:
        packed = case.pack()
        rows = rows_of(packed)
        segments = Counter(tokens[0].document for _, tokens in segments_of(rows))
        counts = {
            "documents": len(case.documents),
            "documents_empty": sum(not d.text for d in case.documents),
            "documents_cut": sum(n > 1 for n in segments.values()),
            "segments": segments.total(),
        }
        metadata = oracle.metadata_counts(case.layout, list(case.documents), seed=case.seed)
        assert {name: n for name, n in packed.counts.items() if n} == {
            name: n for name, n in {**counts, **metadata}.items() if n
        }
        by_role = Counter(token.role for row in rows for token in row)
        assert {role: n for role, n in packed.num_tokens.items() if n} == dict(by_role)


class TestLaws:
    @given(cases())
    @settings(max_examples=120)
    def test_every_body_token_is_a_label_exactly_once_in_order(self, case: Case) -> None:
        rows = rows_of(case.pack())
        # A label is a token after position 0 of its row.
        labels = Counter((token.document, token.id) for row in rows for token in row[1:] if token.role == "text")
        assert labels == Counter((i, token) for i, d in enumerate(case.documents) for token in d.text)
        assert body_by_document(rows) == expected_body(case)

    @given(cases(), st.lists(layouts(), min_size=1, max_size=3))
    def test_the_body_is_the_same_in_every_layout(self, case: Case, others: list[oracle.AnyLayout]) -> None:
        body = body_by_document(rows_of(case.pack()))
        for layout in others:
            other = case.where(layout=layout, sequence_length=case.sequence_length + 20)
            assert body_by_document(rows_of(other.pack())) == body

    @given(cases())
    def test_rows_are_full_and_begin_with_bos(self, case: Case) -> None:
        packed = case.pack()
        assert packed.input_ids.shape == (len(packed.runs_per_row), case.width)
        assert (packed.run_lengths > 0).all()
        for row in rows_of(packed):
            assert len(row) == case.width
            assert row[0] == Token(SPECIAL.bos, "bos", row[1].document)
            assert all(token.role == "pad" for token in row[used(row) :])

    @given(cases(layout=layouts(positions=["prepend", "append", "meta_tokens"])))
    @settings(max_examples=120)
    def test_a_segment_contains_its_own_metadata(self, case: Case) -> None:
        seen: Counter[int] = Counter()
        for _, tokens in segments_of(rows_of(case.pack())):
            number = tokens[0].document
            assert number is not None
            assert {token.document for token in tokens} == {number}
            inside = oracle.metadata_ids(case.layout, case.documents[number], seed=case.seed)
            last = tokens[-1].role == "eos"
            first = not seen[number]
            every = case.layout.segments == "every"  # type: ignore[union-attr]
            if every and inside is not None:
                wrapped = [token.id for token in tokens if token.role in ("wrapper", "metadata", "meta_token")]
                assert wrapped == [SPECIAL.boc, *inside, SPECIAL.eoc]
            if inside is None:
                assert not any(token.role in ("wrapper", "metadata", "meta_token") for token in tokens)
            if case.method == "concat" and not every and inside is not None:
                carries = last if case.layout.position == "append" else first
                assert any(token.role == "wrapper" for token in tokens) == carries
            seen[number] += 1

    @given(cases(layout=layouts(positions=["prepend", "meta_tokens"])))
    def test_the_first_text_token_after_the_wrapper_has_weight(self, case: Case) -> None:
        weights = case.layout.model_copy(update={"role_weights": {}}).weights()
        for row in rows_of(case.pack()):
            for before, label in pairwise(row):
                if before.role == "wrapper" and before.id == SPECIAL.eoc and label.role != "wrapper":
                    assert (label.role, weights["text"]) == ("text", 1)
                if label.role in ("wrapper", "metadata", "meta_token", "bos", "pad"):
                    assert weights[label.role] == 0  # type: ignore[index]

    @given(cases())
    def test_eos_closes_each_document_once_and_has_text_in_its_segment(self, case: Case) -> None:
        segments = [tokens for _, tokens in segments_of(rows_of(case.pack()))]
        closed = Counter(tokens[-1].document for tokens in segments if tokens[-1].role == "eos")
        assert closed == Counter({i: 1 for i, d in enumerate(case.documents) if d.text})
        assert all(text_of(tokens) for tokens in segments)

    @given(cases())
    def test_a_document_has_one_segment_a_row(self, case: Case) -> None:
        segments = Counter((row, tokens[0].document) for row, tokens in segments_of(rows_of(case.pack())))
        assert set(segments.values()) <= {1}

    @given(cases(methods=["concat"]))
    def test_concat_keeps_the_order_of_documents(self, case: Case) -> None:
        order = [tokens[0].document for _, tokens in segments_of(rows_of(case.pack()))]
        assert order == sorted(order)  # type: ignore[type-var]

    @given(cases(methods=["best_fit"]))
    @settings(max_examples=120)
    def test_best_fit_cuts_no_document_that_fits_in_a_row(self, case: Case) -> None:
        segments = Counter(tokens[0].document for _, tokens in segments_of(rows_of(case.pack())))
        for number, document in enumerate(case.documents):
            inside = oracle.metadata_ids(case.layout, document, seed=case.seed)
            whole = oracle.segment(case.layout, number, document, start=0, stop=len(document.text), inside=inside)
            if document.text and len(whole) <= case.width:
                assert segments[number] == 1

    @given(cases(methods=["best_fit"]))
    @settings(max_examples=120)
    def test_no_two_best_fit_rows_of_whole_pieces_fit_in_one(self, case: Case) -> None:
        """A row is opened only for a piece that fits in no open row, so any two rows hold more ids than one row.

        Rows that a long document fills alone are excluded: no piece is added to them. The bound gives a utilisation
        above one half, which first fit also guarantees.
        """
        rows = rows_of(case.pack())
        open_rows = [used(row) for row in rows if any(token.role == "eos" for token in row)]
        assert all(a + b > case.width for a, b in combinations(open_rows, 2))

    @given(cases(methods=["concat"]))
    def test_concat_pads_only_where_the_next_segment_does_not_fit(self, case: Case) -> None:
        segments = segments_of(rows_of(case.pack()))
        rows = rows_of(case.pack())
        starts: Counter[int] = Counter()
        for (row, tokens), (following, after) in pairwise(segments):
            assert tokens[0].document is not None
            assert after[0].document is not None
            starts[tokens[0].document] += len(text_of(tokens))
            if following == row:
                continue
            number = after[0].document
            document = case.documents[number]
            inside = oracle.metadata_ids(case.layout, document, seed=case.seed)
            room = case.width - used(rows[row])
            stop, _ = oracle.longest_segment(
                case.layout, number, document, start=starts[number], room=room, inside=inside
            )
            assert stop == starts[number]

    @given(cases())
    @settings(max_examples=30)
    def test_packing_twice_gives_the_same_bytes(self, case: Case) -> None:
        with written(case) as first, written(case) as second:
            assert first.path.read_bytes() == second.path.read_bytes()

    @given(cases(min_documents=2))
    def test_documents_are_packed_by_position_not_by_id(self, case: Case) -> None:
        """Two documents with one id remain two documents."""
        twins = case.where(documents=tuple(Document("same", d.text, d.columns) for d in case.documents))
        assert body_by_document(rows_of(twins.pack())) == expected_body(case)

    @given(cases(), st.integers(1, 40))
    @settings(max_examples=100)
    def test_the_rows_do_not_depend_on_the_block_size_of_the_gather(self, case: Case, block: int) -> None:
        whole = case.pack()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(colophon.shards.packing.pack, "_GATHER_TOKENS", block)
            assert (case.pack().input_ids == whole.input_ids).all()


@given(st.lists(documents, max_size=20))
@settings(max_examples=30)
def test_distinct_metadata_is_tokenized_once(many: list[Document]) -> None:
    layout = make_layout("prepend", template="{topic}", dropout=0.0)
    tokenizer = ByteTokenizer()
    Case(layout=layout, documents=tuple(many), sequence_length=200).metadata(tokenizer)
    assert tokenizer.num_texts == len({d.columns["topic"] for d in many} - {None})


def test_tokens_of_one_partition_are_packed_like_those_of_a_sliced_table() -> None:
    """A slice of a token file, whose offsets do not begin at 0, is packed like a whole file."""
    values = pa.array([[1, 2], [3], [], [4, 5, 6]], pa.list_(pa.uint16()))
    offsets, ids = list_values(values.slice(1))
    assert offsets.tolist() == [0, 1, 1, 4]
    assert ids.tolist() == [3, 4, 5, 6]
    offsets, ids = list_values(pa.chunked_array([values.slice(0, 2), values.slice(3)]))
    assert offsets.tolist() == [0, 2, 3, 6]
    assert ids.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.shared
def test_real_text_and_urls_obey_the_laws(shared_data: Path) -> None:
    """200 real documents: text as bytes, the URL as metadata, both methods, three layouts, one body."""
    file = min(shared_data.glob("web/*.parquet"))
    table = next(pq.ParquetFile(file).iter_batches(200, columns=["id", "url", "text"]))
    real = tuple(
        Document(row["id"], tuple(row["text"].encode()[:3000]), {"url": row["url"]}) for row in table.to_pylist()
    )
    for position in ("prepend", "append", "meta_tokens"):
        template = {} if position == "meta_tokens" else {"template": "{url}", "max_metadata_tokens": 64}
        for method in ("concat", "best_fit"):
            case = Case(layout=make_layout(position, **template), documents=real, sequence_length=512, method=method)
            with written(case) as packed:
                assert broken_laws(packed, case.tokens(), case.metadata()) == []


def test_a_table_without_rows_has_the_columns(tmp_path: Path) -> None:
    case = Case(layout=make_layout("plain"), documents=(), sequence_length=4)
    packed: Packed = case.pack()
    assert table_of(packed, case.info(packed)).num_rows == 0
    file = case.write(tmp_path / "empty.arrow")
    assert len(file) == 0
    assert file.input_ids.shape == (0, 5)
    assert np.array_equal(file.all_runs()[0], [0])
