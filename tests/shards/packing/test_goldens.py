"""Packings worked out by hand: every id, role, document and loss weight; the notation is that of `goldens`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from colophon.shards.metadata import DocumentMetadata
from colophon.shards.packing.pack import pack, smallest_row
from colophon.shards.schema import SpecialIds
from tests.shards.cases import Case, documents_of, make_layout, rows_of
from tests.shards.goldens import Row, case_of, shown
from tests.shards.oracle import SPECIAL


class TestPlain:
    def test_short_documents_share_a_row(self) -> None:
        # bos, three tokens, eos; bos, one token, eos; the last two ids are too few for a segment (bos text eos).
        assert shown(case_of("plain", [20, 21, 22], [30], sequence_length=9)) == [
            ([1, 20, 21, 22, 2, 1, 30, 2, 0, 0], "btttebte..", "00000111..", "-111101100"),
        ]

    def test_rows_without_padding(self) -> None:
        assert shown(case_of("plain", [20, 21], [30], sequence_length=6)) == [
            ([1, 20, 21, 2, 1, 30, 2], "bttebte", "0000111", "-111011"),
        ]

    def test_a_document_over_three_sequences(self) -> None:
        # Every segment starts with bos; eos closes the last one only. The next document does not fit in its row.
        assert shown(case_of("plain", [20, 21, 22, 23, 24, 25, 26], [30], sequence_length=3)) == [
            ([1, 20, 21, 22], "bttt", "0000", "-111"),
            ([1, 23, 24, 25], "bttt", "0000", "-111"),
            ([1, 26, 2, 0], "bte.", "000.", "-110"),
            ([1, 30, 2, 0], "bte.", "111.", "-110"),
        ]

    def test_the_second_document_begins_in_the_row_where_the_first_ends(self) -> None:
        assert shown(case_of("plain", [20, 21, 22], [30, 31, 32], sequence_length=7)) == [
            ([1, 20, 21, 22, 2, 1, 30, 31], "btttebtt", "00000111", "-1111011"),
            ([1, 32, 2, 0, 0, 0, 0, 0], "bte.....", "111.....", "-1100000"),
        ]

    def test_eos_that_does_not_fit_moves_a_token_of_text_to_the_next_row(self) -> None:
        # bos and the whole text fill the row, so eos does not fit. One token moves, so that eos has text before it.
        assert shown(case_of("plain", [20, 21, 22], sequence_length=3)) == [
            ([1, 20, 21, 0], "btt.", "000.", "-110"),
            ([1, 22, 2, 0], "bte.", "000.", "-110"),
        ]

    def test_an_empty_document_has_no_segment(self) -> None:
        case = case_of("plain", [], [30], [], [40], sequence_length=5)
        assert shown(case) == [([1, 30, 2, 1, 40, 2], "btebte", "111333", "-11011")]
        assert case.pack().counts == {"documents": 4, "documents_empty": 2, "documents_cut": 0, "segments": 2}

    def test_only_empty_documents_give_no_rows(self) -> None:
        packed = case_of("plain", [], [], sequence_length=5).pack()
        assert packed.input_ids.shape == (0, 6)
        assert len(packed.runs_per_row) == 0
        assert set(packed.num_tokens.values()) == {0}

    def test_no_documents_give_no_rows(self) -> None:
        assert shown(case_of("plain", sequence_length=5)) == []


class TestPrepend:
    """The paper: labels from boc to eoc are masked; the first text token after eoc has weight 1."""

    def test_one_document(self) -> None:
        assert shown(case_of("prepend", [20, 21], sequence_length=8)) == [
            ([1, 3, 97, 98, 4, 20, 21, 2, 0], "bwmmwtte.", "00000000.", "-00001110"),
        ]

    def test_a_document_over_three_sequences_carries_its_metadata_in_each(self) -> None:
        assert shown(case_of("prepend", [20, 21, 22, 23, 24, 25, 26, 27], [30], sequence_length=8)) == [
            ([1, 3, 97, 98, 4, 20, 21, 22, 23], "bwmmwtttt", "000000000", "-00001111"),
            # 24..27 fill the row, so eos does not fit: one token moves with it.
            ([1, 3, 97, 98, 4, 24, 25, 26, 0], "bwmmwttt.", "00000000.", "-00001110"),
            ([1, 3, 97, 98, 4, 27, 2, 0, 0], "bwmmwte..", "0000000..", "-00001100"),
            ([1, 3, 99, 100, 4, 30, 2, 0, 0], "bwmmwte..", "1111111..", "-00001100"),
        ]

    def test_metadata_in_the_first_segment_only(self) -> None:
        case = case_of("prepend", [20, 21, 22, 23, 24, 25], [30], sequence_length=8, segments="first")
        assert shown(case) == [
            ([1, 3, 97, 98, 4, 20, 21, 22, 23], "bwmmwtttt", "000000000", "-00001111"),
            # The second segment has no wrapper. Five ids are too few for document 1, whose shortest segment has 7.
            ([1, 24, 25, 2, 0, 0, 0, 0, 0], "btte.....", "0000.....", "-11100000"),
            ([1, 3, 99, 100, 4, 30, 2, 0, 0], "bwmmwte..", "1111111..", "-00001100"),
        ]

    def test_a_row_that_ends_after_the_first_token_of_a_document(self) -> None:
        # Document 1 has just room for its wrapper and one of two tokens: bos boc c d eoc 30.
        assert shown(case_of("prepend", [20], [30, 31], sequence_length=12)) == [
            (
                [1, 3, 97, 98, 4, 20, 2, 1, 3, 99, 100, 4, 30],
                "bwmmwtebwmmwt",
                "0000000111111",
                "-000011000001",
            ),
            ([1, 3, 99, 100, 4, 31, 2, 0, 0, 0, 0, 0, 0], "bwmmwte......", "1111111......", "-000011000000"),
        ]

    def test_one_id_of_room_is_padding(self) -> None:
        # After document 0 one id is left: no segment is that short.
        assert shown(case_of("prepend", [20, 21, 22], [30], sequence_length=9))[0] == (
            [1, 3, 97, 98, 4, 20, 21, 22, 2, 0],
            "bwmmwttte.",
            "000000000.",
            "-000011110",
        )

    def test_overlong_metadata_keeps_its_first_tokens_and_is_counted(self) -> None:
        case = case_of("prepend", [20], [30], sequence_length=9, urls=["abcdef", "g"], max_metadata_tokens=3)
        assert shown(case) == [
            ([1, 3, 97, 98, 99, 4, 20, 2, 0, 0], "bwmmmwte..", "00000000..", "-000001100"),
            ([1, 3, 103, 4, 30, 2, 0, 0, 0, 0], "bwmwte....", "111111....", "-000110000"),
        ]
        counts = case.pack().counts
        assert (counts["metadata_cut"], counts["metadata_tokens_cut"]) == (1, 3)

    def test_null_metadata_keeps_an_empty_wrapper_and_is_counted(self) -> None:
        case = case_of("prepend", [20], [30], sequence_length=10, urls=[None, "cd"])
        assert shown(case) == [
            ([1, 3, 4, 20, 2, 0, 0, 0, 0, 0, 0], "bwwte......", "00000......", "-0011000000"),
            ([1, 3, 99, 100, 4, 30, 2, 0, 0, 0, 0], "bwmmwte....", "1111111....", "-0000110000"),
        ]
        assert case.pack().counts["documents_without_metadata"] == 1

    def test_null_metadata_without_a_wrapper(self) -> None:
        case = case_of("prepend", [20], sequence_length=8, urls=[None], when_dropped="nothing")
        assert shown(case) == [([1, 20, 2, 0, 0, 0, 0, 0, 0], "bte......", "000......", "-11000000")]

    @pytest.mark.parametrize(
        ("when_dropped", "row"),
        [
            ("empty", ([1, 3, 4, 20, 2, 1, 3, 4, 30, 2, 0], "bwwtebwwte.", "0000011111.", "-0011000110")),
            ("nothing", ([1, 20, 2, 1, 30, 2, 0, 0, 0, 0, 0], "btebte.....", "000111.....", "-1101100000")),
        ],
    )
    def test_dropped_metadata(self, when_dropped: str, row: Row) -> None:
        case = case_of("prepend", [20], [30], sequence_length=10, dropout=1.0, when_dropped=when_dropped)
        assert shown(case) == [row]
        assert case.pack().counts["documents_dropped"] == 2

    def test_one_of_two_documents_dropped(self) -> None:
        # BLAKE2b keyed with seed 0, read as a number: `a` gives 0.2266, `c` 0.8091 (computed without this code).
        case = case_of("prepend", [20], [], [30], sequence_length=11, dropout=0.5)
        assert shown(case) == [
            ([1, 3, 4, 20, 2, 1, 3, 101, 102, 4, 30, 2], "bwwtebwmmwte", "000002222222", "-00110000011"),
        ]


class TestAppend:
    """The paper: the metadata is after the text, before eos, and has weight 1."""

    def test_one_document(self) -> None:
        assert shown(case_of("append", [20, 21], sequence_length=8)) == [
            ([1, 20, 21, 3, 97, 98, 4, 2, 0], "bttwmmwe.", "00000000.", "-11111110"),
        ]

    def test_metadata_with_a_different_weight(self) -> None:
        case = case_of("append", [20], sequence_length=8, role_weights={"metadata": 2, "wrapper": 0, "eos": 0})
        assert shown(case) == [([1, 20, 3, 97, 98, 4, 2, 0, 0], "btwmmwe..", "0000000..", "-10220000")]

    def test_every_segment_ends_with_the_metadata(self) -> None:
        assert shown(case_of("append", [20, 21, 22, 23, 24, 25], sequence_length=8)) == [
            ([1, 20, 21, 22, 23, 3, 97, 98, 4], "bttttwmmw", "000000000", "-11111111"),
            ([1, 24, 25, 3, 97, 98, 4, 2, 0], "bttwmmwe.", "00000000.", "-11111110"),
        ]

    def test_the_last_segment_only(self) -> None:
        case = case_of("append", [20, 21, 22, 23, 24, 25, 26, 27, 28], sequence_length=8, segments="last")
        assert shown(case) == [
            ([1, 20, 21, 22, 23, 24, 25, 26, 27], "btttttttt", "000000000", "-11111111"),
            ([1, 28, 3, 97, 98, 4, 2, 0, 0], "btwmmwe..", "0000000..", "-11111100"),
        ]

    def test_metadata_that_does_not_fit_after_the_text_moves_with_the_last_token(self) -> None:
        # The text alone fits, text with metadata does not: all but one token stay, the rest of the row is padding.
        case = case_of("append", [20, 21, 22, 23], sequence_length=8, segments="last")
        assert shown(case) == [
            ([1, 20, 21, 22, 0, 0, 0, 0, 0], "bttt.....", "0000.....", "-11100000"),
            ([1, 23, 3, 97, 98, 4, 2, 0, 0], "btwmmwe..", "0000000..", "-11111100"),
        ]

    def test_dropped_metadata_leaves_an_empty_wrapper_with_weight(self) -> None:
        case = case_of("append", [20], sequence_length=8, dropout=1.0)
        assert shown(case) == [([1, 20, 3, 4, 2, 0, 0, 0, 0], "btwwe....", "00000....", "-11110000")]


class TestMetaTokens:
    """The paper: BOS boc s1 ... s5 eoc text, masked like prepend, the same for every document."""

    def test_five_meta_tokens(self) -> None:
        assert shown(case_of("meta_tokens", [20, 21], [30], sequence_length=20)) == [
            (
                [1, 3, 5, 6, 7, 8, 9, 4, 20, 21, 2, 1, 3, 5, 6, 7, 8, 9, 4, 30, 2],
                "bwssssswttebwssssswte",
                "000000000001111111111",
                "-00000001110000000011",
            ),
        ]

    def test_every_segment_has_them(self) -> None:
        assert shown(case_of("meta_tokens", [20, 21, 22, 23], sequence_length=6, num_meta_tokens=2)) == [
            ([1, 3, 5, 6, 4, 20, 21], "bwsswtt", "0000000", "-000011"),
            ([1, 3, 5, 6, 4, 22, 0], "bwsswt.", "000000.", "-000010"),
            ([1, 3, 5, 6, 4, 23, 2], "bwsswte", "0000000", "-000011"),
        ]

    def test_the_first_segment_only(self) -> None:
        case = case_of("meta_tokens", [20, 21, 22, 23], sequence_length=6, num_meta_tokens=2, segments="first")
        assert shown(case) == [
            ([1, 3, 5, 6, 4, 20, 21], "bwsswtt", "0000000", "-000011"),
            ([1, 22, 23, 2, 0, 0, 0], "btte...", "0000...", "-111000"),
        ]

    def test_dropped(self) -> None:
        case = case_of("meta_tokens", [20], sequence_length=7, num_meta_tokens=2, dropout=1.0)
        assert shown(case) == [([1, 3, 4, 20, 2, 0, 0, 0], "bwwte...", "00000...", "-0011000")]

    def test_more_meta_tokens_than_the_tokenizer_has(self) -> None:
        case = case_of("meta_tokens", [20], sequence_length=20, num_meta_tokens=6)
        with pytest.raises(ValueError, match="the layout needs 6 meta tokens; the tokenizer has 5"):
            case.pack()


class TestBestFit:
    def test_concat_cuts_where_best_fit_does_not(self) -> None:
        texts = [20, 21, 22, 23, 24], [30, 31, 32], [40, 41], [50]
        assert shown(case_of("plain", *texts, sequence_length=9)) == [
            ([1, 20, 21, 22, 23, 24, 2, 1, 30, 31], "btttttebtt", "0000000111", "-111111011"),
            ([1, 32, 2, 1, 40, 41, 2, 1, 50, 2], "btebttebte", "1112222333", "-110111011"),
        ]
        # Sizes 7, 5, 4, 3 in rows of 10: 7 opens row A, 5 row B, 4 fits in B only, 3 fills A.
        # Rows are in the order of their first document.
        assert shown(case_of("plain", *texts, sequence_length=9, method="best_fit")) == [
            ([1, 20, 21, 22, 23, 24, 2, 1, 50, 2], "btttttebte", "0000000333", "-111111011"),
            ([1, 30, 31, 32, 2, 1, 40, 41, 2, 0], "btttebtte.", "111112222.", "-111101110"),
        ]

    def test_a_document_is_placed_in_the_fullest_row_with_room(self) -> None:
        # Sizes 6, 5, 4 in rows of 10: 6 and 5 open rows with 4 and 5 left; 4 goes where it leaves nothing.
        case = case_of("plain", [20, 21, 22], [30, 31], [40, 41, 42, 43], sequence_length=9, method="best_fit")
        assert shown(case) == [
            ([1, 20, 21, 22, 2, 0, 0, 0, 0, 0], "bttte.....", "00000.....", "-111100000"),
            ([1, 30, 31, 2, 1, 40, 41, 42, 43, 2], "bttebtttte", "1111222222", "-111011111"),
        ]

    def test_a_document_longer_than_a_row(self) -> None:
        # 20..27 fill a row of their own; the rest, 28 29 eos, is placed like a document: in the row of document 0.
        case = case_of(
            "plain", [30, 31], [20, 21, 22, 23, 24, 25, 26, 27, 28, 29], sequence_length=8, method="best_fit"
        )
        assert shown(case) == [
            ([1, 30, 31, 2, 1, 28, 29, 2, 0], "bttebtte.", "00001111.", "-11101110"),
            ([1, 20, 21, 22, 23, 24, 25, 26, 27], "btttttttt", "111111111", "-11111111"),
        ]
        assert case.pack().counts["documents_cut"] == 1

    def test_metadata_goes_with_the_text(self) -> None:
        case = case_of("prepend", [20, 21, 22], [30], [40], sequence_length=13, method="best_fit")
        # Sizes 9, 7, 7: the two of 7 fill a row of 14.
        assert shown(case) == [
            (
                [1, 3, 97, 98, 4, 20, 21, 22, 2, 0, 0, 0, 0, 0],
                "bwmmwttte.....",
                "000000000.....",
                "-0000111100000",
            ),
            (
                [1, 3, 99, 100, 4, 30, 2, 1, 3, 101, 102, 4, 40, 2],
                "bwmmwtebwmmwte",
                "11111112222222",
                "-0000110000011",
            ),
        ]


class TestShortRows:
    @pytest.mark.parametrize(
        ("position", "settings", "expected"),
        [
            ("plain", {}, 3),  # bos text eos
            ("prepend", {"template": "{url}", "max_metadata_tokens": 2}, 7),  # bos boc m m eoc text eos
            ("append", {"template": "{url}", "max_metadata_tokens": 2}, 7),
            ("meta_tokens", {"num_meta_tokens": 5}, 10),
        ],
    )
    def test_the_shortest_row_holds_one_token_of_text(
        self, position: str, settings: dict[str, Any], expected: int
    ) -> None:
        layout = make_layout(position, **settings)
        assert smallest_row(layout) == expected
        documents = documents_of([20, 21], url=["abc"])
        case = Case(layout=layout, documents=documents, sequence_length=expected - 1)
        texts = [[t.id for t in row if t.role == "text"] for row in rows_of(case.pack())]
        assert texts == [[20], [21]]
        with pytest.raises(ValueError, match=f"at least {expected - 1} for this layout"):
            case.where(sequence_length=expected - 2).pack()


class TestIds:
    def test_text_with_the_ids_of_markers_is_text(self) -> None:
        assert shown(case_of("plain", [1, 3, 4, 2, 0], sequence_length=6)) == [
            ([1, 1, 3, 4, 2, 0, 2], "bttttte", "0000000", "-111111"),
        ]

    def test_one_id_for_bos_eos_and_pad(self) -> None:
        special = SpecialIds(bos=9, eos=9, pad=9, boc=3, eoc=4)
        case = case_of("plain", [20], [30], sequence_length=7).where(special=special)
        assert shown(case) == [([9, 20, 9, 9, 30, 9, 9, 9], "btebte..", "000111..", "-1101100")]

    @pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
    def test_ids_keep_their_dtype(self, dtype: type[np.generic]) -> None:
        no_metadata = DocumentMetadata(
            wrapped=np.zeros(1, bool),
            starts=np.zeros(1, np.int64),
            lengths=np.zeros(1, np.int64),
            ids=np.empty(0, np.uint32),
            counts={},
        )
        packed = pack(
            make_layout("plain"),
            text_offsets=np.array([0, 2]),
            text_ids=np.array([65535, 7], dtype),
            metadata=no_metadata,
            special=SPECIAL,
            sequence_length=3,
        )
        assert packed.input_ids.dtype == dtype
        assert packed.input_ids.tolist() == [[1, 65535, 7, 2]]

    def test_special_ids_that_do_not_fit_the_dtype_are_refused(self) -> None:
        case = case_of("plain", [20], sequence_length=3).where(
            special=SpecialIds(bos=100_000, eos=100_001, pad=100_002, boc=3, eoc=4)
        )
        with pytest.raises(OverflowError):
            case.pack()
