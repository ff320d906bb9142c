"""`colophon verify --deep`: files computed again from those that they are made from, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.annotators.base import Annotator
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.stages.packing import LayoutFile, PackStage
from colophon.pipeline.stages.tokenization import token_counts
from colophon.shards.arrow_files import read_table
from colophon.shards.common.differences import differences
from colophon.shards.manifest import Record
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.schema import packed_info


class Recomputation:
    """The recipe's stages, held ready to compute files of a run again."""

    def __init__(self, resolved: ResolvedRecipe) -> None:
        self._resolved = resolved
        self._annotators = {annotator.name: annotator for annotator in resolved.annotators}

    def differences(self, output: Output, records: Mapping[Output, Record]) -> list[str]:
        """One line for each difference between a file of a partition and what the partition's other files give.

        A packed file is packed again from tokens and annotations. Of tokens and annotations, the counts in the record
        and the columns are compared.

        Raises:
            InputError, ShardError, pa.ArrowException, OSError: a file cannot be read.
        """
        with self._resolved.store.files.local_copy(records[output].path) as path:
            if output.stage == "pack":
                return self._packed(read_table(path), output, records)
            if output == TOKENS:
                return _counts(records[output], token_counts(read_table(path)))
            annotator = self._annotators.get(output.name)
            return [] if annotator is None else _annotations(annotator, pq.read_table(path), records[output])

    def _packed(self, found: pa.Table, output: Output, records: Mapping[Output, Record]) -> list[str]:
        if output.name not in self._stage.layouts:
            return []
        layout = LayoutFile(self._stage, self._resolved.tokenizer, output.name, records=records)
        with self._resolved.store.files.local_copy(records[TOKENS].path) as path:
            tokens = read_table(path)
            packed = layout.pack(tokens, layout.columns(tokens))
            expected = layout.table(packed, source="")
        # The source is named as the recipe spelled it when the file was written.
        info, its_info = (packed_info(t.schema, path=output).model_dump(exclude={"sources"}) for t in (expected, found))
        return [
            *_counts(records[output], layout.counts(packed)),
            *(f"its metadata: {line}" for line in differences(info, its_info)),
            *_columns(expected, found),
        ]

    @cached_property
    def _stage(self) -> PackStage:
        stage = Plan(self._resolved).stage(["pack"])
        assert isinstance(stage, PackStage)
        return stage


def _columns(expected: pa.Table, found: pa.Table) -> list[str]:
    if found.schema != expected.schema:
        return [f"its columns are {found.schema.names}, not {expected.schema.names}, or have other types"]
    if found.num_rows != expected.num_rows:
        return [f"has {found.num_rows} rows; packing its tokens again gives {expected.num_rows}"]
    names = [name for name in expected.column_names if not found.column(name).equals(expected.column(name))]
    return [f"its {name} are not those that packing its tokens again gives" for name in names]


def _annotations(annotator: Annotator, table: pa.Table, record: Record) -> list[str]:
    if not table.schema.equals(annotator.schema):
        return [f"its columns are not those that the annotator writes: {', '.join(annotator.schema.names)}"]
    return _counts(record, {f"{name}_null": table.column(name).null_count for name in table.column_names})


def _counts(record: Record, found: Mapping[str, int]) -> list[str]:
    """The counts that differ from those in the record; a count that the file cannot give is not compared."""
    recorded = {name: record.counts.get(name) for name in found}
    return [f"its record counts {line}" for line in differences(recorded, dict(found))]
