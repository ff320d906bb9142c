"""nanotron: the token files of datatrove, which `DatatroveFolderDataset` reads.

part-00000.ds            the rows' ids, one after the other
part-00000.ds.index      uint64: the end of each segment, in tokens; padding is a segment
part-00000.ds.loss       booleans, token by token: whether the token has loss weight as a label
part-00000.ds.metadata   the tokenizer and the bytes of an id, the number of tokens twice
"""

from __future__ import annotations

from colophon.pipeline.conversion.files import OutputFile
from colophon.pipeline.conversion.rows import Block
from colophon.pipeline.conversion.target import Format, Target


class _NanotronWriter:
    def __init__(self, target: Target) -> None:
        self._target = target
        self._is_label = target.role_weights > 0
        self._files: tuple[OutputFile, OutputFile, OutputFile] | None = None
        self._count = self._tokens = 0

    def add(self, block: Block) -> None:
        if self._files is not None and self._files[0].bytes >= self._target.file_bytes:
            self.close()
        if self._files is None:
            create = self._target.files.create
            self._files = create(self._name), create(f"{self._name}.index"), create(f"{self._name}.loss")
        ids, index, loss = self._files
        ids.write(block.input_ids)
        index.write((self._tokens + block.segments.ends).astype("<u8"))
        loss.write(block.token_weights(self._is_label))
        self._tokens += block.input_ids.size

    @property
    def _name(self) -> str:
        return f"part-{self._count:05d}.ds"

    def close(self) -> None:
        if self._files is None:
            return
        for file in self._files:
            file.close()
        tokenizer, size = self._target.dataset.tokenizer.name, self._target.id_dtype.itemsize
        with self._target.files.create(f"{self._name}.metadata") as metadata:
            metadata.write(f"{tokenizer}|{size}\n{self._tokens}\n{self._tokens:,} tokens".encode())
        self._files, self._tokens, self._count = None, 0, self._count + 1


NANOTRON = Format(
    name="nanotron",
    reader="datatrove and nanotron",
    holds_weights=False,
    lacks=(
        "loss weights other than 0 and 1 (it would not hold them; the rows as written have none)",
        "DatatroveFolderDataset does not read the .ds.loss files: examples/trainers/read_nanotron.py does",
        "ids of documents",
    ),
    writer=_NanotronWriter,
)
