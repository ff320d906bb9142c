"""OLMo-core: flat arrays of ids and of label masks, and the segments' places, in files of the same numbers.

ids/part-00000.npy          the rows' ids, one after the other; raw numbers without a header, as the reader expects
ids/part-00000.csv.gz       a line for each segment: start, end (in tokens), document's row in the partition, partition
label_mask/part-00000.npy   raw booleans, token by token: whether the token has loss weight as a label
"""

from __future__ import annotations

import gzip

from colophon.pipeline.conversion.files import OutputFile
from colophon.pipeline.conversion.rows import Block
from colophon.pipeline.conversion.target import Format, Target


class _OlmoWriter:
    def __init__(self, target: Target) -> None:
        self._target = target
        self._is_label = target.role_weights > 0
        self._ids: OutputFile | None = None
        self._mask: OutputFile | None = None
        self._lines: gzip.GzipFile | None = None
        self._segments: OutputFile | None = None
        self._count = 0

    def add(self, block: Block) -> None:
        if self._ids is not None and self._ids.bytes >= self._target.file_bytes:
            self.close()
        if self._ids is None or self._mask is None or self._lines is None:
            files, part = self._target.files, f"part-{self._count:05d}"
            self._ids, self._mask = files.create(f"ids/{part}.npy"), files.create(f"label_mask/{part}.npy")
            self._segments = files.create(f"ids/{part}.csv.gz")
            # Without a time and a name, equal content has equal bytes.
            self._lines = gzip.GzipFile("", "wb", compresslevel=1, fileobj=self._segments, mtime=0)
            self._count += 1
        first = self._ids.bytes // self._target.id_dtype.itemsize
        self._ids.write(block.input_ids)
        self._mask.write(block.token_weights(self._is_label))
        self._lines.write(_segment_lines(block, first=first))

    def close(self) -> None:
        for file in (self._lines, self._segments, self._ids, self._mask):
            if file is not None:
                file.close()
        self._ids = self._mask = self._lines = self._segments = None


def _segment_lines(block: Block, *, first: int) -> bytes:
    """A line for each segment that is no padding; `first` is the place of the block's first token in the file."""
    segments = block.segments
    ends = first + segments.ends
    is_text = ~segments.is_padding
    columns = ((ends - segments.lengths)[is_text], ends[is_text], segments.documents[is_text])
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return "".join(f"{start},{end},{document},{block.partition}\n" for start, end, document in rows).encode()


NPY = Format(
    name="npy",
    reader="OLMo-core",
    holds_weights=False,
    lacks=(
        "loss weights other than 0 and 1 (it would not hold them; the rows as written have none)",
        "documents within a row: OLMo-core searches for eos, which a document that is continued lacks; the exact "
        "segments are in the .csv.gz files",
        "sequence_length of the reader is one more than that of [pack], so that it cuts where rows end",
    ),
    writer=_OlmoWriter,
)
