"""Laws of packing, on random documents, layouts and lengths: against the token-by-token oracle, and one by one."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import colophon.shards.packing
from colophon.shards.arrow_files import list_values
from colophon.shards.laws import broken_laws
from colophon.shards.layouts import dropped
from colophon.shards.packing import Packed
from tests.shards import oracle
from tests.shards.cases import (
    ByteTokenizer,
    Case,
    cases,
    documents,
    layouts,
    make_layout,
    rows_of,
    table_of,
    written,
)
from tests.shards.oracle import SPECIAL, Document, Token


def segments_of(rows: list[list[Token]]) -> list[tuple[int, list[Token]]]:
    """(row, tokens) of each segment, without padding."""
    found = []
    for number, row in enumerate(rows):
        numbers = oracle.row_segments(row)
        for wanted in range(numbers[-1] + 1):
            tokens = [token for token, n in zip(row, numbers, strict=True) if n == wanted]
            if tokens[0].role != "pad":
                found.append((number, tokens))
    return found


def used(row: list[Token]) -> int:
    return sum(token.role != "pad" for token in row)


def text_of(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens if token.role == "text"]


def body_by_document(rows: list[list[Token]]) -> dict[int, list[int]]:
    """Text ids of each document, its segments in order: those without eos as they stand, then the one with eos."""
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
        # A label is a token behind position 0 of its row.
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
    def test_the_metadata_of_a_segment_stands_in_that_segment(self, case: Case) -> None:
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
    def test_the_first_text_token_after_the_wrapper_is_paid(self, case: Case) -> None:
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
        """A row is opened only for a piece that no open row has room for, so any two hold more than one row's ids.

        Rows that a long document fills by itself are not filled further, so they stand outside this bound. It gives
        a utilisation above one half, which first fit also guarantees and no more.
        """
        rows = rows_of(case.pack())
        open_rows = [used(row) for row in rows if any(token.role == "eos" for token in row)]
        assert all(a + b > case.width for a, b in combinations(open_rows, 2))

    @given(cases(methods=["concat"]))
    def test_concat_pads_only_what_no_segment_fits_in(self, case: Case) -> None:
        """The next segment would have fitted in no row that concat left: utilisation has no other loss."""
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
        """Two documents with one id stay two documents."""
        twins = case.where(documents=tuple(Document("same", d.text, d.columns) for d in case.documents))
        assert body_by_document(rows_of(twins.pack())) == expected_body(case)

    @given(cases(), st.integers(1, 40))
    @settings(max_examples=100)
    def test_the_block_size_of_the_gather_changes_nothing(self, case: Case, block: int) -> None:
        whole = case.pack()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(colophon.shards.packing, "_GATHER_TOKENS", block)
            assert (case.pack().input_ids == whole.input_ids).all()


class TestDropout:
    def kept(self, case: Case) -> dict[str | None, bool]:
        """Document id → whether its metadata is there (a document with metadata `x` and one token of text)."""
        found = {}
        for _, tokens in segments_of(rows_of(case.pack())):
            assert tokens[0].document is not None
            has = any(token.role in ("metadata", "meta_token") for token in tokens)
            found[case.documents[tokens[0].document].id] = has
        return found

    def case(self, names: list[str], *, position: str = "prepend", dropout: float = 0.3, seed: int = 0) -> Case:
        template = {"template": "x"} if position != "meta_tokens" else {}
        return Case(
            layout=make_layout(position, dropout=dropout, **template),
            documents=tuple(Document(name, (20,)) for name in names),
            sequence_length=200,
            seed=seed,
        )

    @given(st.lists(st.text(max_size=5), unique=True, min_size=1, max_size=30), st.data())
    @settings(max_examples=50)
    def test_order_and_division_change_nothing(self, names: list[str], data: st.DataObject) -> None:
        together = self.kept(self.case(names))
        cut = data.draw(st.integers(0, len(names)))
        shuffled = data.draw(st.permutations(names))
        parts = {**self.kept(self.case(shuffled[:cut])), **self.kept(self.case(shuffled[cut:]))}
        assert parts == together

    @given(st.lists(st.text(max_size=5), unique=True, min_size=1, max_size=30), st.integers(-(2**63), 2**63 - 1))
    @settings(max_examples=50)
    def test_layout_and_method_change_nothing(self, names: list[str], seed: int) -> None:
        first = self.kept(self.case(names, seed=seed))
        assert self.kept(self.case(names, position="append", seed=seed)) == first
        assert self.kept(self.case(names, position="meta_tokens", seed=seed)) == first
        assert self.kept(self.case(names, seed=seed).where(method="best_fit")) == first
        assert first == {name: not oracle.is_dropped(name, dropout=0.3, seed=seed) for name in names}

    def test_seeds_drop_different_documents(self) -> None:
        names = [f"doc-{i}" for i in range(200)]
        assert self.kept(self.case(names, seed=0)) != self.kept(self.case(names, seed=1))

    def test_more_dropout_drops_the_same_documents_and_more(self) -> None:
        names = [f"doc-{i}" for i in range(500)]
        lost = [
            {name for name, kept in self.kept(self.case(names, dropout=rate)).items() if not kept}
            for rate in (0.0, 0.1, 0.5, 1.0)
        ]
        assert lost[0] == set()
        assert lost[3] == set(names)
        assert lost[0] < lost[1] < lost[2] < lost[3]

    @pytest.mark.parametrize("rate", [0.1, 0.5])
    @pytest.mark.parametrize("seed", [0, 1, 12345])
    def test_the_share_is_close_to_the_rate(self, rate: float, seed: int) -> None:
        # Six standard deviations of a binomial: one wrong alarm in 500 million, were the ids drawn anew.
        num_documents = 20_000
        names = [f"<urn:uuid:{i:08x}>" for i in range(num_documents)]
        num_dropped = self.case(names, dropout=rate, seed=seed).metadata().counts["documents_dropped"]
        deviation = math.sqrt(num_documents * rate * (1 - rate))
        assert abs(num_dropped - num_documents * rate) < 6 * deviation

    def test_seeds_are_independent(self) -> None:
        """Half of what one seed drops at 50 %, another drops too: six standard deviations of that share."""
        names = [f"doc-{i}" for i in range(20_000)]
        masks = [dropped(names, dropout=0.5, seed=seed) for seed in (0, 1, -1, 256)]
        for a, b in combinations(masks, 2):
            assert abs((a & b).sum() - 5_000) < 6 * math.sqrt(20_000 * 0.25 * 0.75)


@given(st.lists(documents, max_size=20))
@settings(max_examples=30)
def test_distinct_metadata_is_tokenized_once(many: list[Document]) -> None:
    layout = make_layout("prepend", template="{topic}", dropout=0.0)
    tokenizer = ByteTokenizer()
    Case(layout=layout, documents=tuple(many), sequence_length=200).metadata(tokenizer)
    assert tokenizer.num_texts == len({d.columns["topic"] for d in many} - {None})


def test_tokens_of_one_partition_are_packed_like_those_of_a_sliced_table() -> None:
    """Offsets that do not begin at 0, as a slice of a token file has them, change nothing."""
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
