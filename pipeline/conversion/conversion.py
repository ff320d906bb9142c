"""`colophon convert`: one packed layout of a finished run, in the format of a different trainer.

rows of the layout → blocks → writer of the format → files, read back → the directory, under its own name
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from colophon.pipeline.conversion.directory import DESCRIPTION_NAME, Description, check_directory, new_directory
from colophon.pipeline.conversion.files import OutputFiles
from colophon.pipeline.conversion.megatron import MEGATRON
from colophon.pipeline.conversion.mosaic import MDS
from colophon.pipeline.conversion.nanotron import NANOTRON
from colophon.pipeline.conversion.olmo import NPY
from colophon.pipeline.conversion.parquet import PARQUET
from colophon.pipeline.conversion.rows import blocks
from colophon.pipeline.conversion.target import Format, Target
from colophon.pipeline.errors import UsageError
from colophon.pipeline.runs.progress import duration
from colophon.pipeline.storage.run_files import disk_full_as_store_error
from colophon.shards.common.paths import real_path
from colophon.shards.reader import PackedDataset
from colophon.shards.run_output import open_run
from colophon.shards.schema import ROLE_NAMES
from colophon.shards.stores.cache_settings import CacheSettings
from colophon.shards.stores.places import RunPlace

FORMATS: dict[str, Format] = {each.name: each for each in (MEGATRON, MDS, NPY, NANOTRON, PARQUET)}
_FILE_BYTES = 1 << 30
_LINE_EVERY_SECONDS = 5.0


class Conversion:
    """One conversion, checked before anything is written."""

    def __init__(self, run: RunPlace, *, layout: str, to: str, binarize: bool = False) -> None:
        """Open the layout.

        Args:
            run: the output directory of a finished run, or its place in an object store, of which rows are read once
                and not kept.
            layout: the name of a packed layout.
            to: the name of a format.
            binarize: whether every loss weight above 0 becomes 1.

        Raises:
            ShardError: the run or the layout is missing, or a file is not as recorded.
            StoreReadError: the object store fails.
            UsageError: `run` is a file, or the format cannot hold the layout's weights.
        """
        if isinstance(run, Path) and run.is_file():
            raise UsageError(f"{run}: is a file. Give the output directory of a run, `output.path` of its recipe")
        opened = open_run(run)
        self.format = FORMATS[to]
        self.layout = layout
        self.dataset: PackedDataset = opened.packed(layout, cache=CacheSettings(max_bytes=0))
        self._run = run
        self._partitions = [record.partition for record in opened.manifest.layouts[layout].records if record.rows]
        self.role_weights = self.dataset.role_weights
        self.is_binarized = binarize
        if binarize:
            self.role_weights = (self.role_weights > 0).astype(np.float32)
        elif not self.format.holds_weights:
            self._refuse_weights()

    def _refuse_weights(self) -> None:
        weights = zip(ROLE_NAMES, self.role_weights.tolist(), strict=True)
        others = [f"{name} {weight:g}" for name, weight in weights if weight not in (0.0, 1.0)]
        if others:
            holding = ", ".join(name for name, each in FORMATS.items() if each.holds_weights)
            raise UsageError(
                f"layout {self.layout!r} has loss weights other than 0 and 1 ({', '.join(others)}), and "
                f"{self.format.name} holds booleans. --binarize trains on every label with a weight above 0; "
                f"{holding} hold the weights"
            )

    def write(
        self,
        directory: Path,
        *,
        overwrite: bool = False,
        log: Callable[[str], None] = lambda line: None,
        file_bytes: int = _FILE_BYTES,
    ) -> Description:
        """Write all rows to `directory`, which appears when its files have been read back.

        Args:
            directory: it must not exist, or be empty.
            overwrite: it may hold a different conversion, which is replaced.
            log: gets lines about the progress.
            file_bytes: bytes of ids after which formats with several files begin a new one.

        Raises:
            UsageError: the directory has other content, or is in the run's output.
            StoreError: the disk is full, or returned other bytes than were written.
            ShardError: a row has an id that the tokenizer does not have.
            StoreReadError: the object store of the run fails.
        """
        if isinstance(self._run, Path) and real_path(directory).is_relative_to(real_path(self._run)):
            raise UsageError(
                f"--output {directory}: is in the run's output {self._run}. Give a directory outside of it"
            )
        check_directory(directory, overwrite=overwrite)
        with (
            disk_full_as_store_error(str(directory)),
            new_directory(directory, overwrite=overwrite) as temporary,
        ):
            files = OutputFiles(temporary)
            target = Target(dataset=self.dataset, role_weights=self.role_weights, files=files, file_bytes=file_bytes)
            try:
                self._write_rows(target, log)
            finally:
                files.close()
            description = self._description(files)
            with OutputFiles(temporary).create(DESCRIPTION_NAME) as file:
                file.write(description.model_dump_json(indent=1).encode())
        return description

    def _write_rows(self, target: Target, log: Callable[[str], None]) -> None:
        writer, rows, begun = self.format.writer(target), 0, time.monotonic()
        shown = begun
        for block in blocks(self.dataset, self._partitions):
            writer.add(block)
            rows += len(block)
            now = time.monotonic()
            if now - shown >= _LINE_EVERY_SECONDS:
                shown, seconds = now, now - begun
                left = duration(seconds * (len(self.dataset) - rows) / rows)
                log(f"convert: {rows:,} of {len(self.dataset):,} rows, {rows / seconds:,.0f} rows/s, {left} left")
        writer.close()

    def _description(self, files: OutputFiles) -> Description:
        info, rows = self.dataset.info, len(self.dataset)
        return Description(
            format=self.format.name,
            reader=self.format.reader,
            lacks=list(self.format.lacks),
            layout=info.layout,
            fingerprint=self.dataset.fingerprint,
            tokenizer=info.tokenizer.model_dump(mode="json"),
            sequence_length=info.sequence_length,
            id_dtype=self.dataset.id_dtype.name,
            role_weights=dict(zip(ROLE_NAMES, self.role_weights.tolist(), strict=True)),
            is_binarized=self.is_binarized,
            rows=rows,
            tokens=rows * (info.sequence_length + 1),
            files=files.check(),
        )
