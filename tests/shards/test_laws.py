"""`broken_laws` returns nothing for good files, and a line for every type of damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from colophon.shards.arrow_files import packed_table, write_table
from colophon.shards.common.errors import ShardError
from colophon.shards.laws import broken_laws
from colophon.shards.layouts import parse_layout
from colophon.shards.packing.pack import Packed
from colophon.shards.reader import PackedFile
from colophon.shards.schema import NO_DOCUMENT, ROLE_NAMES, Role
from tests.shards.cases import Case, cases, documents_of, make_layout, table_of, written
from tests.shards.oracle import SPECIAL


def recounted(packed: Packed) -> Packed:
    """The packing with `num_tokens` counted from its runs, so that no damage is found by its count alone."""
    per_role = np.bincount(packed.run_roles, weights=packed.run_lengths, minlength=len(ROLE_NAMES))
    counts = {name: int(n) for name, n in zip(ROLE_NAMES, per_role, strict=False)}
    return replace(packed, num_tokens=counts)


def laws_of(case: Case, packed: Packed, *, with_metadata: bool = True) -> list[str]:
    with written(case, packed) as file:
        return broken_laws(file, case.tokens(), case.metadata() if with_metadata else None)


def changed(packed: Packed, name: str, at: Any, value: Any) -> Packed:
    """A copy whose array `name` holds `value` at `at`."""
    array = getattr(packed, name).copy()
    array[at] = value
    return recounted(replace(packed, **{name: array}))


class TestGoodFiles:
    @given(cases())
    @settings(max_examples=100)
    def test_nothing_is_reported_with_metadata_and_without(self, case: Case) -> None:
        assert laws_of(case, case.pack()) == []
        assert laws_of(case, case.pack(), with_metadata=False) == []

    @given(cases())
    @settings(max_examples=50)
    def test_the_layout_is_read_back(self, case: Case) -> None:
        with written(case) as file:
            assert parse_layout(file.info.layout, where=file.path) == case.layout

    def test_one_id_for_bos_eos_and_pad(self) -> None:
        special = replace(SPECIAL, bos=2, eos=2, pad=2)
        case = PREPEND.where(special=special)
        assert laws_of(case, case.pack()) == []


class TestAnyChangeIsFound:
    """Every change of one value in a good file is found."""

    @given(cases(min_documents=1), st.data())
    @settings(max_examples=120)
    def test_an_id(self, case: Case, data: st.DataObject) -> None:
        packed = case.pack()
        assume(packed.input_ids.size)
        row, column = data.draw(st.integers(0, len(packed.input_ids) - 1)), data.draw(st.integers(0, case.width - 1))
        other = data.draw(st.integers(0, 300).filter(lambda i: i != packed.input_ids[row, column]))
        assert laws_of(case, changed(packed, "input_ids", (row, column), other))

    @given(cases(min_documents=1), st.data())
    @settings(max_examples=120)
    def test_a_role(self, case: Case, data: st.DataObject) -> None:
        packed = case.pack()
        assume(len(packed.run_roles))
        run = data.draw(st.integers(0, len(packed.run_roles) - 1))
        role = data.draw(st.integers(0, 8).filter(lambda r: r != packed.run_roles[run]))
        broken = changed(packed, "run_roles", run, role)
        assert laws_of(case, broken)
        assert laws_of(case, broken, with_metadata=False)

    @given(cases(min_documents=1), st.data())
    @settings(max_examples=100)
    def test_a_document(self, case: Case, data: st.DataObject) -> None:
        packed = case.pack()
        assume(len(packed.run_documents))
        run = data.draw(st.integers(0, len(packed.run_documents) - 1))
        numbers = st.integers(0, len(case.documents)) | st.just(NO_DOCUMENT)
        other = data.draw(numbers.filter(lambda d: d != packed.run_documents[run]))
        assert laws_of(case, changed(packed, "run_documents", run, other), with_metadata=False)

    @given(cases(min_documents=1), st.data())
    @settings(max_examples=120)
    def test_a_boundary_between_two_runs(self, case: Case, data: st.DataObject) -> None:
        packed = case.pack()
        assume(len(packed.run_lengths))
        row = data.draw(st.integers(0, len(packed.runs_per_row) - 1))
        first = int(packed.runs_per_row[:row].sum())
        run = data.draw(st.integers(first, first + int(packed.runs_per_row[row]) - 2))
        by = data.draw(st.sampled_from([-1, 1]))
        lengths = packed.run_lengths[[run, run + 1]] + [by, -by]
        assert laws_of(case, changed(packed, "run_lengths", [run, run + 1], lengths))

    @given(cases(min_documents=1), st.data())
    @settings(max_examples=100)
    def test_a_length(self, case: Case, data: st.DataObject) -> None:
        packed = case.pack()
        assume(len(packed.run_lengths))
        run = data.draw(st.integers(0, len(packed.run_lengths) - 1))
        length = data.draw(st.integers(0, 100).filter(lambda n: n != packed.run_lengths[run]))
        assert laws_of(case, changed(packed, "run_lengths", run, length), with_metadata=False)

    @given(cases(min_documents=1), st.data())
    @settings(max_examples=100)
    def test_a_lost_or_repeated_row(self, case: Case, data: st.DataObject) -> None:
        packed = case.pack()
        assume(len(packed.input_ids))
        row = data.draw(st.integers(0, len(packed.input_ids) - 1))
        times = np.ones(len(packed.input_ids), int)
        times[row] = data.draw(st.sampled_from([0, 2]))
        assert laws_of(case, with_rows(packed, np.repeat(np.arange(len(times)), times)), with_metadata=False)


def with_rows(packed: Packed, rows: Any) -> Packed:
    """A packing of the rows numbered `rows`."""
    starts = np.cumsum(packed.runs_per_row) - packed.runs_per_row
    runs = [i for row in rows for i in range(starts[row], starts[row] + packed.runs_per_row[row])]
    index = np.array(runs, int)
    return recounted(
        replace(
            packed,
            input_ids=packed.input_ids[rows],
            run_lengths=packed.run_lengths[index],
            run_roles=packed.run_roles[index],
            run_documents=packed.run_documents[index],
            runs_per_row=packed.runs_per_row[rows],
        )
    )


# One row for each document: bos boc m m eoc text text text eos pad pad; the third document continues in a fourth row.
PREPEND = Case(
    layout=make_layout("prepend", template="{url}", max_metadata_tokens=2, dropout=0.0),
    documents=documents_of([20, 21, 22], [30, 31, 32], list(range(40, 47)), url=["ab", "cd", "ef"]),
    sequence_length=10,
)
META = PREPEND.where(layout=make_layout("meta_tokens", num_meta_tokens=2))
# One document over three rows of four.
CUT = Case(layout=make_layout("plain"), documents=documents_of(list(range(40, 47))), sequence_length=3)


def swap_documents(packed: Packed) -> Packed:
    documents = packed.run_documents.copy()
    documents[packed.run_documents == 0], documents[packed.run_documents == 1] = 1, 0
    return recounted(replace(packed, run_documents=documents))


def swap_ids(packed: Packed) -> Packed:
    ids = packed.input_ids.copy()
    ids[0, 5], ids[0, 6] = ids[0, 6], ids[0, 5]
    return replace(packed, input_ids=ids)


def drop_eos(packed: Packed) -> Packed:
    """Row 0 with padding in place of eos."""
    run = int(np.flatnonzero(packed.run_roles == Role.EOS)[0])
    kept = np.arange(len(packed.run_roles)) != run
    lengths, runs_per_row = packed.run_lengths.copy(), packed.runs_per_row.copy()
    lengths[run + 1] += 1
    runs_per_row[0] -= 1
    ids = packed.input_ids.copy()
    ids[0, 8] = SPECIAL.pad
    return recounted(
        replace(
            packed,
            input_ids=ids,
            run_lengths=lengths[kept],
            run_roles=packed.run_roles[kept],
            run_documents=packed.run_documents[kept],
            runs_per_row=runs_per_row,
        )
    )


def drop_last_token(packed: Packed) -> Packed:
    """Row 0 without its last token of text; everything else is valid."""
    ids, lengths = packed.input_ids.copy(), packed.run_lengths.copy()
    ids[0] = [1, 3, 97, 98, 4, 20, 21, 2, 0, 0, 0]
    lengths[:6] = [1, 1, 2, 1, 2, 1]
    lengths[6] += 1
    return recounted(replace(packed, input_ids=ids, run_lengths=lengths))


def metadata_of_another(packed: Packed) -> Packed:
    return changed(packed, "input_ids", (0, slice(2, 4)), [99, 100])


def shorter_metadata(packed: Packed) -> Packed:
    """Row 0 with one id of metadata instead of two."""
    ids, lengths = packed.input_ids.copy(), packed.run_lengths.copy()
    ids[0] = [1, 3, 97, 4, 20, 21, 22, 2, 0, 0, 0]
    lengths[2] -= 1
    lengths[6] += 1
    return recounted(replace(packed, input_ids=ids, run_lengths=lengths))


def without_wrapper(packed: Packed) -> Packed:
    """Row 0 as in the layout plain."""
    ids = packed.input_ids.copy()
    ids[0] = [1, 20, 21, 22, 2, 0, 0, 0, 0, 0, 0]
    index = np.array([0, *range(4, len(packed.run_roles))])
    lengths = packed.run_lengths[index]
    lengths[3] = 6
    per_row = packed.runs_per_row.copy()
    per_row[0] -= 3
    return recounted(
        replace(
            packed,
            input_ids=ids,
            run_lengths=lengths,
            run_roles=packed.run_roles[index],
            run_documents=packed.run_documents[index],
            runs_per_row=per_row,
        )
    )


NAMED: list[tuple[str, Case, Callable[[Packed], Packed], str]] = [
    ("a text id changed", PREPEND, lambda p: changed(p, "input_ids", (0, 5), 99), "text tokens differ"),
    ("two text ids swapped", PREPEND, swap_ids, "text tokens differ"),
    ("a missing token", PREPEND, drop_last_token, "text tokens differ"),
    ("a missing row", PREPEND, lambda p: with_rows(p, [0, 1, 3]), "text tokens differ"),
    ("a repeated row", PREPEND, lambda p: with_rows(p, [0, 0, 1, 2, 3]), "eos does not close each document"),
    ("the parts of a document swapped", CUT, lambda p: with_rows(p, [1, 0, 2]), "text tokens differ"),
    ("swapped documents", PREPEND, swap_documents, "text tokens differ"),
    ("text as metadata", PREPEND, lambda p: changed(p, "run_roles", 4, Role.METADATA), "a segment has the roles bos"),
    ("metadata as text", PREPEND, lambda p: changed(p, "run_roles", 2, Role.TEXT), "a segment has the roles bos"),
    ("an unknown role", PREPEND, lambda p: changed(p, "run_roles", 2, 9), "unknown role 9"),
    ("wrong boc", PREPEND, lambda p: changed(p, "input_ids", (0, 1), 4), "a wrapper is not boc 3 and eoc 4"),
    ("wrong eoc", PREPEND, lambda p: changed(p, "input_ids", (0, 4), 3), "a wrapper is not boc 3 and eoc 4"),
    ("wrong bos", PREPEND, lambda p: changed(p, "input_ids", (0, 0), 2), "a token of role bos is not id 1"),
    ("wrong eos", PREPEND, lambda p: changed(p, "input_ids", (0, 8), 1), "a token of role eos is not id 2"),
    ("wrong padding", PREPEND, lambda p: changed(p, "input_ids", (0, 10), 1), "a token of role pad is not id 0"),
    ("wrong meta token", META, lambda p: changed(p, "input_ids", (0, 3), 5), "meta tokens are not those of"),
    ("metadata of another document", PREPEND, metadata_of_another, "a segment's metadata is not that of its document"),
    ("metadata cut", PREPEND, shorter_metadata, "a segment's metadata has the wrong length"),
    ("no wrapper", PREPEND, without_wrapper, "a segment lacks its wrapper"),
    ("missing eos", PREPEND, drop_eos, "eos does not close each document with text exactly once"),
    ("bos missing at a row's start", PREPEND, lambda p: changed(p, "run_roles", 0, Role.TEXT), "row 0 does not start"),
    ("a run too long", PREPEND, lambda p: changed(p, "run_lengths", 4, 5), "row 0: the runs' lengths do not sum"),
    ("an empty run", PREPEND, lambda p: changed(p, "run_lengths", [4, 5], [4, 0]), "a run is empty"),
    ("a run of two eos", PREPEND, lambda p: changed(p, "run_lengths", [5, 6], [2, 1]), "a run of role eos is longer"),
    ("padding inside a row", PREPEND, lambda p: changed(p, "run_roles", 4, Role.PAD), "padding before the end"),
    ("padding with a document", PREPEND, lambda p: changed(p, "run_documents", 6, 0), "padding has one"),
    ("two documents in a segment", PREPEND, lambda p: changed(p, "run_documents", 2, 1), "more than one document"),
    ("a document too many", PREPEND, lambda p: with_documents(p, 3), "is not in the token file"),
]


def with_documents(packed: Packed, number: int) -> Packed:
    """The packing with document `number` in place of document 2."""
    return changed(packed, "run_documents", packed.run_documents == 2, number)


class TestDamageIsNamed:
    @pytest.mark.parametrize(("case", "damage", "line"), [row[1:] for row in NAMED], ids=[row[0] for row in NAMED])
    def test_damage(self, case: Case, damage: Callable[[Packed], Packed], line: str) -> None:
        assert laws_of(case, case.pack()) == []
        assert line in "\n".join(laws_of(case, damage(case.pack())))

    def test_half_a_wrapper_is_found_without_the_metadata(self) -> None:
        """A dropped document without its eoc: bos boc text text text eos pad."""
        dropping = PREPEND.layout.model_copy(update={"dropout": 1.0})
        case = PREPEND.where(layout=dropping, documents=PREPEND.documents[:1])
        packed = case.pack()
        row = packed.input_ids[0].tolist()
        assert row[:6] == [1, 3, 4, 20, 21, 22]
        ids, lengths, last = packed.input_ids.copy(), packed.run_lengths.copy(), int(packed.runs_per_row[0]) - 1
        ids[0] = [*row[:2], *row[3:], SPECIAL.pad]
        lengths[1] -= 1
        lengths[last] += 1
        broken = recounted(replace(packed, input_ids=ids, run_lengths=lengths))
        assert laws_of(case, broken, with_metadata=False) == ["a wrapper is not one boc and one eoc"]

    def test_wrong_num_tokens(self) -> None:
        packed = PREPEND.pack()
        wrong = replace(packed, num_tokens={**packed.num_tokens, "text": 14})
        assert laws_of(PREPEND, wrong) == ["13 tokens of role text; the schema metadata has 14"]

    def test_wrong_weights(self, tmp_path: Path) -> None:
        packed = PREPEND.pack()
        info = PREPEND.info(packed)
        weighted = info.model_copy(update={"role_weights": {**info.role_weights, "metadata": 1.0}})
        write_table(tmp_path / "x.arrow", table_of(packed, weighted))
        assert broken_laws(PackedFile(tmp_path / "x.arrow"), PREPEND.tokens()) == [
            "labels of role metadata have loss weight 1; the layout's is 0"
        ]

    def test_a_row_without_runs(self, tmp_path: Path) -> None:
        packed = PREPEND.pack()
        per_row = packed.runs_per_row.copy()
        per_row[0], per_row[1] = 0, per_row[0] + per_row[1]
        assert laws_of(PREPEND, replace(packed, runs_per_row=per_row)) == ["a row has no runs"]

    def test_tokens_of_another_partition(self) -> None:
        other = PREPEND.where(documents=PREPEND.documents[:2])
        with written(PREPEND) as file:
            assert broken_laws(file, other.tokens()) == ["a run's document is not in the token file"]

    def test_a_document_that_was_not_packed(self) -> None:
        more = PREPEND.where(documents=(*PREPEND.documents, *documents_of([90], url=["x"])))
        with written(PREPEND) as file:
            assert broken_laws(file, more.tokens(), more.metadata()) == [
                "eos does not close each document with text exactly once",
                "text tokens differ from the token file: missing, repeated or out of order",
            ]

    def test_metadata_kept_in_a_document_that_should_be_dropped(self) -> None:
        dropping = PREPEND.where(layout=PREPEND.layout.model_copy(update={"dropout": 1.0}))
        with written(PREPEND) as file:
            lines = broken_laws(file, PREPEND.tokens(), dropping.metadata())
        assert lines == ["a segment's metadata has the wrong length"]

    def test_an_unknown_layout(self, tmp_path: Path) -> None:
        packed = PREPEND.pack()
        info = PREPEND.info(packed).model_copy(update={"layout": {"name": "x", "position": "sideways"}})
        table = packed_table(
            packed.input_ids,
            run_lengths=packed.run_lengths,
            run_roles=packed.run_roles,
            run_documents=packed.run_documents,
            runs_per_row=packed.runs_per_row,
            info=info,
        )
        write_table(tmp_path / "x.arrow", table)
        with pytest.raises(ShardError, match=r"x\.arrow: damaged layout: Input tag 'sideways'"):
            broken_laws(PackedFile(tmp_path / "x.arrow"), PREPEND.tokens())
