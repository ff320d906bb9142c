"""An annotation file read in step with the input."""

from __future__ import annotations

from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq

from colophon.pipeline.errors import InputError
from colophon.pipeline.storage.commits import Store
from colophon.shards.records import Record

_BATCH_ROWS = 1 << 14


class AnnotationRows:
    """The rows of one partition's annotations, in order, in memory that does not depend on their number."""

    def __init__(self, store: Store, record: Record, stack: ExitStack) -> None:
        """Open the file of a record until `stack` is closed."""
        path = stack.enter_context(store.files.local_copy(record.path))
        parquet = stack.enter_context(pq.ParquetFile(path, page_checksum_verification=True))
        self._name = record.output
        self._batches = parquet.iter_batches(_BATCH_ROWS, use_threads=False)
        self._rest = pa.Table.from_batches([], parquet.schema_arrow)
        self.rows = parquet.metadata.num_rows

    def take(self, num_rows: int) -> pa.RecordBatch:
        """The next rows.

        Raises:
            InputError: the file has fewer.
        """
        while self._rest.num_rows < num_rows:
            batch = next(self._batches, None)
            if batch is None:
                raise InputError(f"{self._name} has {self.rows} rows; the input has more")
            self._rest = pa.concat_tables([self._rest, pa.Table.from_batches([batch])])
        taken, self._rest = self._rest.slice(0, num_rows).combine_chunks(), self._rest.slice(num_rows)
        return taken.to_batches()[0] if num_rows else pa.RecordBatch.from_pylist([], taken.schema)
