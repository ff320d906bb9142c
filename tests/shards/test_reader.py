"""Packed files read from disk: rows, the arrays derived from runs, several files, damaged files, other readers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.shards.arrow_files import read_table, write_table
from colophon.shards.common.errors import ShardError
from colophon.shards.reader import PackedDataset, PackedFile
from colophon.shards.schema import METADATA_KEY, NO_DOCUMENT, ROLE_NAMES, TokenizerInfo
from tests.shards import oracle
from tests.shards.cases import Case, cases, documents_of, make_layout, rows_of, table_of, written
from tests.shards.oracle import Token

CASE = Case(
    layout=make_layout("prepend", template="{url}", max_metadata_tokens=3, dropout=0.0),
    documents=documents_of([20, 21], [30], list(range(40, 60)), url=["ab", None, "c"]),
    sequence_length=9,
)


def edited(path: Path, **changes: Any) -> Path:
    """A packed file of `CASE` with `changes` of its schema metadata."""
    packed = CASE.pack()
    table = table_of(packed, CASE.info(packed).model_copy(update=changes))
    write_table(path, table)
    return path


class TestRows:
    @given(cases(min_documents=1), st.data())
    @settings(max_examples=80)
    def test_rows_equal_the_packed_rows(self, case: Case, data: st.DataObject) -> None:
        expected = rows_of(case.pack())
        with written(case) as file:
            assert len(file) == len(expected)
            dataset = PackedDataset([file.path])
            wanted = data.draw(st.lists(st.integers(0, max(len(expected) - 1, 0)), max_size=6 if expected else 0))
            rows = dataset.rows(wanted)
        tokens = [expected[row] for row in wanted]
        assert rows.input_ids.shape == (len(wanted), case.width)
        assert rows.input_ids.tolist() == [[t.id for t in row] for row in tokens]
        assert rows.roles.tolist() == [[ROLE_NAMES.index(t.role) for t in row] for row in tokens]
        assert rows.documents.tolist() == [
            [NO_DOCUMENT if t.document is None else t.document for t in row] for row in tokens
        ]

    @given(cases(min_documents=1))
    @settings(max_examples=80)
    def test_arrays_derived_from_runs(self, case: Case) -> None:
        tokens = rows_of(case.pack())
        with written(case) as file:
            dataset = PackedDataset([file.path])
            rows = dataset.rows(range(len(dataset)))
            role_weights = dataset.role_weights
        assert rows.segments.tolist() == [oracle.row_segments(row) for row in tokens]
        assert rows.positions().tolist() == [oracle.row_positions(row) for row in tokens]
        weights = oracle.weights(case.layout)
        assert rows.loss_weights(role_weights).tolist() == [[weights[t.role] for t in row[1:]] for row in tokens]
        assert rows.cu_seqlens().tolist() == brute_cu_seqlens(tokens)

    def test_dtypes(self, tmp_path: Path) -> None:
        CASE.write(tmp_path / "a.arrow")
        rows = PackedDataset([tmp_path / "a.arrow"]).rows([1, 0])
        dtypes = [a.dtype.name for a in (rows.input_ids, rows.roles, rows.segments, rows.documents)]
        assert dtypes == ["uint16", "uint8", "int32", "uint32"]
        assert [a.dtype.name for a in (rows.positions(), rows.cu_seqlens())] == ["int32", "int32"]
        assert rows.loss_weights(np.ones(7, np.float32)).dtype == np.float32

    def test_rows_worked_out_by_hand(self, tmp_path: Path) -> None:
        case = Case(
            layout=make_layout("append", template="{url}", max_metadata_tokens=1, dropout=0.0),
            documents=documents_of([20, 21], [30], url=["a", "b"]),
            sequence_length=14,
        )
        case.write(tmp_path / "a.arrow")
        rows = PackedDataset([tmp_path / "a.arrow"]).rows([0])
        # bos 20 21 boc a eoc eos | bos 30 boc b eoc eos | pad pad
        assert rows.input_ids.tolist() == [[1, 20, 21, 3, 97, 4, 2, 1, 30, 3, 98, 4, 2, 0, 0]]
        assert rows.segments.tolist() == [[0] * 7 + [1] * 6 + [2] * 2]
        assert rows.positions().tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 0, 1]]
        # Of the 14 inputs: the last padding is a label only.
        assert rows.cu_seqlens().tolist() == [0, 7, 13, 14]
        weights = rows.loss_weights(np.array([0, 0, 1, 0.5, 0.25, 0, 2], np.float32))
        assert weights.tolist() == [[2, 2, 0.5, 0.25, 0.5, 1, 0, 2, 0.5, 0.25, 0.5, 1, 0, 0]]

    def test_a_masked_row_has_no_weight(self, tmp_path: Path) -> None:
        layout = make_layout("plain", role_weights={"text": 0, "eos": 0})
        file = CASE.where(layout=layout).write(tmp_path / "a.arrow")
        dataset = PackedDataset([file.path])
        assert not dataset.rows(range(len(dataset))).loss_weights(dataset.role_weights).any()

    def test_a_change_of_rows_does_not_change_the_file(self, tmp_path: Path) -> None:
        dataset = PackedDataset([CASE.write(tmp_path / "a.arrow").path])
        dataset.rows([0]).input_ids[:] = 9
        assert dataset.rows([0]).input_ids[0, 0] == 1


def brute_cu_seqlens(rows: list[list[Token]]) -> list[int]:
    """The first positions of the segments of the inputs (rows without their last token), joined, and the end."""
    flat = [(i, n) for i, row in enumerate(rows) for n in oracle.row_segments(row)[:-1]]
    return [at for at, key in enumerate(flat) if at == 0 or flat[at - 1] != key] + [len(flat)]


class TestManyFiles:
    @given(st.lists(cases(min_documents=1), min_size=1, max_size=4), st.data())
    @settings(max_examples=40)
    def test_files_are_one_sequence_of_rows(self, many: list[Case], data: st.DataObject) -> None:
        first = many[0]
        many = [case.where(layout=first.layout, sequence_length=first.sequence_length) for case in many]
        expected = [(i, row) for i, case in enumerate(many) for row in rows_of(case.pack())]
        with TemporaryDirectory() as folder:
            paths = [case.write(Path(folder) / f"{i}.arrow").path for i, case in enumerate(many)]
            dataset = PackedDataset(paths)
            assert len(dataset) == len(expected)
            order = data.draw(st.permutations(range(len(expected))))
            assert [paths.index(dataset.locate(row)[0].path) for row in order] == [expected[row][0] for row in order]
            ids = dataset.rows(order).input_ids.tolist()
        assert ids == [[t.id for t in expected[row][1]] for row in order]

    def test_rows_outside_are_an_error(self, tmp_path: Path) -> None:
        paths = [CASE.write(tmp_path / f"{i}.arrow").path for i in range(2)]
        dataset = PackedDataset(paths)
        for row in (-1, len(dataset), len(dataset) + 100):
            with pytest.raises(IndexError):
                dataset.rows([row])

    def test_files_of_different_settings_are_refused(self, tmp_path: Path) -> None:
        CASE.write(tmp_path / "a.arrow")
        CASE.write(tmp_path / "b.arrow", fingerprint="e" * 64)
        with pytest.raises(ShardError, match=r"b\.arrow and .*a\.arrow were packed with different settings"):
            PackedDataset([tmp_path / "a.arrow", tmp_path / "b.arrow"])

    def test_no_files(self) -> None:
        with pytest.raises(ShardError, match="no packed files"):
            PackedDataset([])

    def test_the_fingerprint_depends_on_files_and_rows(self, tmp_path: Path) -> None:
        paths = [CASE.write(tmp_path / f"{i}.arrow").path for i in range(2)]
        shorter = CASE.where(documents=CASE.documents[:1]).write(tmp_path / "2.arrow").path
        prints = [PackedDataset(p).fingerprint for p in (paths, paths[::-1], paths[:1], [paths[0], shorter])]
        assert len(set(prints)) == 4
        assert PackedDataset(paths).fingerprint == prints[0]

    def test_properties_that_the_trainer_uses(self, tmp_path: Path) -> None:
        dataset = PackedDataset([CASE.write(tmp_path / "a.arrow").path])
        assert dataset.sequence_length == 9
        assert isinstance(dataset.tokenizer, TokenizerInfo)
        assert dataset.tokenizer.special == oracle.SPECIAL
        assert dataset.role_weights.tolist() == [0, 0, 1, 0, 0, 0, 1]
        assert dataset.info.layout == {"name": "test", **CASE.layout.model_dump()}


class TestDamagedFiles:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ShardError, match=r"nowhere\.arrow: not a readable Arrow file"):
            PackedFile(tmp_path / "nowhere.arrow")

    @pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
    def test_a_truncated_file(self, tmp_path: Path, keep: float) -> None:
        path = CASE.write(tmp_path / "a.arrow").path
        content = path.read_bytes()
        cut = tmp_path / "cut.arrow"
        cut.write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(ShardError, match=r"cut\.arrow: not a readable Arrow file"):
            PackedFile(cut)

    def test_a_file_that_is_not_arrow(self, tmp_path: Path) -> None:
        path = tmp_path / "a.arrow"
        path.write_text("not Arrow, but long enough to hold a footer")
        with pytest.raises(ShardError, match="not a readable Arrow file"):
            PackedFile(path)

    def test_a_token_file_is_not_a_packed_file(self, tmp_path: Path) -> None:
        write_table(tmp_path / "tokens.arrow", CASE.tokens())
        with pytest.raises(ShardError, match="not a packed shard: its schema has no metadata 'colophon'"):
            PackedFile(tmp_path / "tokens.arrow")

    def test_a_newer_format(self, tmp_path: Path) -> None:
        with pytest.raises(
            ShardError, match=r"format version 2; this Colophon reads version 1\. Use the version of Colophon that"
        ):
            PackedFile(edited(tmp_path / "a.arrow", format_version=2))

    def test_a_sequence_length_that_differs_from_the_columns(self, tmp_path: Path) -> None:
        table = read_table(edited(tmp_path / "a.arrow"))
        raw = table.schema.metadata[METADATA_KEY].replace(b'"sequence_length":9', b'"sequence_length":8')
        write_table(tmp_path / "b.arrow", table.replace_schema_metadata({METADATA_KEY: raw}))
        with pytest.raises(ShardError, match=r"column input_ids is .*, not a list of 9 ids"):
            PackedFile(tmp_path / "b.arrow")

    @pytest.mark.parametrize("raw", [b"{", b"[]", b"{}", b'{"format_version": 1}', b"\xff"])
    def test_damaged_metadata(self, tmp_path: Path, raw: bytes) -> None:
        table = read_table(edited(tmp_path / "a.arrow")).replace_schema_metadata({METADATA_KEY: raw})
        write_table(tmp_path / "b.arrow", table)
        with pytest.raises(ShardError, match=r"b\.arrow: (format version None|metadata: damaged: )") as error:
            PackedFile(tmp_path / "b.arrow")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("column", ["input_ids", "run_lengths", "run_roles", "run_documents"])
    def test_a_column_of_a_wrong_type_or_missing(self, tmp_path: Path, column: str) -> None:
        table = read_table(edited(tmp_path / "a.arrow"))
        metadata = table.schema.metadata
        at = table.schema.names.index(column)
        wrong_type = pa.list_(pa.int64(), 10) if column == "input_ids" else pa.list_(pa.int64())
        wrong = table.set_column(at, column, table.column(column).cast(wrong_type)).replace_schema_metadata(metadata)
        missing = table.drop_columns(column)
        for name, broken in (("wrong", wrong), ("missing", missing)):
            write_table(tmp_path / name, broken)
            with pytest.raises(ShardError, match=f"column {column}"):
                PackedFile(tmp_path / name)

    def test_runs_of_different_number(self, tmp_path: Path) -> None:
        table = read_table(edited(tmp_path / "a.arrow"))
        roles = pa.array([row[:-1] for row in table.column("run_roles").to_pylist()], pa.list_(pa.uint8()))
        write_table(tmp_path / "b.arrow", table.set_column(2, table.schema.field("run_roles"), roles))
        with pytest.raises(ShardError, match="differ in their number of runs"):
            PackedFile(tmp_path / "b.arrow")


class TestOtherReaders:
    """Other libraries open the files, with the same values."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> PackedFile:
        return CASE.write(tmp_path / "part.arrow")

    def expected(self) -> dict[str, list[Any]]:
        packed = CASE.pack()
        bounds = np.cumsum([0, *packed.runs_per_row]).tolist()
        columns = {name: getattr(packed, name) for name in ("run_lengths", "run_roles", "run_documents")}
        runs = {name: [values[a:b].tolist() for a, b in pairwise(bounds)] for name, values in columns.items()}
        return {"input_ids": packed.input_ids.tolist(), **runs}

    def test_pyarrow(self, file: PackedFile) -> None:
        with pa.ipc.open_file(str(file.path)) as reader:
            table = reader.read_all()
        assert table.to_pydict() == self.expected()
        assert table.schema.field("input_ids").type == pa.list_(pa.uint16(), 10)

    def test_the_mapping_is_not_a_copy(self, file: PackedFile) -> None:
        assert file.input_ids.base is not None
        assert not file.input_ids.flags.owndata
        assert not file.input_ids.flags.writeable

    def test_a_file_of_several_record_batches(self, file: PackedFile, tmp_path: Path) -> None:
        table = read_table(file.path)
        with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        batched = PackedFile(tmp_path / "b.arrow")
        assert batched.input_ids.tolist() == file.input_ids.tolist()
        assert [a.tolist() for a in batched.all_runs()] == [a.tolist() for a in file.all_runs()]

    def test_polars(self, file: PackedFile) -> None:
        frame = pl.read_ipc(file.path)
        assert frame.to_dict(as_series=False) == self.expected()
        assert frame.schema["input_ids"] == pl.Array(pl.UInt16, 10)

    def test_hugging_face_datasets(self, file: PackedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            monkeypatch.setenv(name, "1")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        import datasets  # type: ignore[import-untyped]

        loaded = datasets.load_dataset(
            "arrow", data_files=str(file.path), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert loaded.to_dict() == self.expected()


class TestInconsistentFiles:
    """Files that Arrow reads but whose columns do not fit each other; `tests/test_trust.py` has the others."""

    def inconsistent(self, path: Path, column: str, change: Any) -> Path:
        """A packed file of `CASE` with `change` of one column's rows."""
        table = read_table(edited(path.with_name("good.arrow")))
        at = table.schema.names.index(column)
        field = table.schema.field(column).with_nullable(True)
        changed = pa.array(change(table.column(column).to_pylist()), field.type)
        write_table(path, table.set_column(at, field, changed))
        return path

    @pytest.mark.parametrize("length", [0, 2, 2**32 - 1])
    def test_runs_that_do_not_fill_their_row(self, tmp_path: Path, length: int) -> None:
        """Without this check, `np.repeat` would allocate 4 GB for a run."""
        path = self.inconsistent(
            tmp_path / "a.arrow", "run_lengths", lambda rows: [rows[0], [length, *rows[1][1:]], *rows[2:]]
        )
        with pytest.raises(ShardError, match=r"a\.arrow: row 1: the runs' lengths do not sum to the row's"):
            PackedDataset([path])

    def test_a_role_that_does_not_exist(self, tmp_path: Path) -> None:
        path = self.inconsistent(tmp_path / "a.arrow", "run_roles", lambda rows: [[7, *rows[0][1:]], *rows[1:]])
        with pytest.raises(ShardError, match=r"a\.arrow: unknown role 7"):
            PackedDataset([path])

    def test_an_id_that_does_not_exist(self, tmp_path: Path) -> None:
        path = self.inconsistent(tmp_path / "a.arrow", "input_ids", lambda rows: [[1024, *rows[0][1:]], *rows[1:]])
        dataset = PackedDataset([path])
        assert dataset.rows([1]).input_ids.size
        with pytest.raises(ShardError, match="id 1024; the tokenizer has 1024 ids"):
            dataset.rows([1, 0])

    @pytest.mark.parametrize("column", ["input_ids", "run_lengths", "run_roles", "run_documents"])
    @pytest.mark.parametrize("inside", [True, False])
    def test_nulls(self, tmp_path: Path, column: str, inside: bool) -> None:
        path = self.inconsistent(
            tmp_path / "a.arrow", column, lambda rows: [[None, *rows[0][1:]] if inside else None, *rows[1:]]
        )
        with pytest.raises(ShardError, match=f"column {column} has nulls"):
            PackedFile(path)

    @pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
    def test_an_invalid_weight(self, tmp_path: Path, weight: float) -> None:
        table = read_table(edited(tmp_path / "good.arrow"))
        raw = table.schema.metadata[METADATA_KEY]
        info = json.loads(raw)
        info["role_weights"]["text"] = weight
        path = tmp_path / "a.arrow"
        write_table(path, table.replace_schema_metadata({METADATA_KEY: json.dumps(info)}))
        with pytest.raises(ShardError, match=r"weight in the schema metadata is negative|is not JSON"):
            PackedDataset([path])

    def test_a_different_tokenizer_with_the_same_fingerprint(self, tmp_path: Path) -> None:
        other = CASE.info(CASE.pack()).tokenizer.model_copy(update={"num_ids": 2000})
        paths = [edited(tmp_path / "a.arrow"), edited(tmp_path / "b.arrow", tokenizer=other)]
        with pytest.raises(ShardError, match=r"b\.arrow and .*a\.arrow were packed with different settings"):
            PackedDataset(paths)
