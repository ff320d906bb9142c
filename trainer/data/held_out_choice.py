"""The choice of the rows that a training holds out.

Documents are drawn in the order of a hash of their place and the seed, and all rows of a drawn document are held out.
So these documents are unseen as a whole, and all layouts of a run hold out the same ones, up to the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.reader import PackedFile
from colophon.shards.schema import NO_DOCUMENT
from colophon.trainer.data.documents.text_line import TextLine
from colophon.trainer.data.packed_layout import PackedLayout

FEWEST_DOCUMENTS, MOST_ROWS_OF_A_DOCUMENT = 16, 4
_STREAM = 1  # of random numbers under the run's seed; `trainer.data.rows.mixture` has streams 0 and 2


def choose_rows(num_rows: int, *, count: int, seed: int) -> NumPyArray:
    """int64 [count], ascending: rows drawn without replacement. They depend on `num_rows` and `seed` alone, and a
    smaller `count` gives a part of the rows of a larger one."""
    return np.sort(np.random.default_rng([seed, _STREAM]).permutation(num_rows)[:count])


def choose_documents(packed: PackedLayout, *, count: int, seed: int) -> tuple[NumPyArray, dict[str, NumPyArray]]:
    """`count` rows of a layout, int64, ascending; and by partition the drawn documents, all of whose rows they are.

    A document with more than a sixteenth of the rows, and more than four, is never drawn, so that few long documents do
    not make up the validation. Random rows fill the number where no further document fits. Costs a hash for each
    document of the layout.
    """
    most_rows = max(MOST_ROWS_OF_A_DOCUMENT, count // FEWEST_DOCUMENTS)
    rows, documents = set[int](), dict[str, list[int]]()
    for file, document, of_document in _by_hash(packed, count=count, seed=seed):
        added = [row for row in of_document if row not in rows]
        if len(of_document) <= most_rows and len(rows) + len(added) <= count:
            rows.update(added)
            documents.setdefault(packed.partitions[file], []).append(document)
    others = np.setdiff1d(np.arange(len(packed.dataset)), list(rows))
    filling = others[choose_rows(len(others), count=count - len(rows), seed=seed)]
    by_partition = {partition: np.sort(np.array(found, np.int64)) for partition, found in documents.items()}
    return np.sort(np.array([*rows, *filling], np.int64)), by_partition


def choose_by_text(line: TextLine, *, num_tokens: int, seed: int, most: int | None) -> NumPyArray:
    """bool [num_documents] of a line: documents in the order of their hashes, until they have `num_tokens` of text.

    They depend on the documents' places and lengths and on the seed, and a smaller number gives a part of the documents
    of a larger one.

    Args:
        line: the documents to choose from.
        num_tokens: of text; the last document may exceed it.
        seed: of the run.
        most: documents with more tokens are never drawn; None: any may be.
    """
    lengths, partitions = line.lengths, line.by_partition()
    hashes = [document_hashes(documents, partition=name, seed=seed) for name, documents in partitions.items()]
    order = np.argsort(np.concatenate([np.empty(0, np.uint64), *hashes]), kind="stable")
    drawn = order if most is None else order[lengths[order] <= most]
    before = np.cumsum(lengths[drawn]) - lengths[drawn]
    chosen = np.zeros(len(lengths), bool)
    chosen[drawn[before < num_tokens]] = True
    return chosen


def _by_hash(packed: PackedLayout, *, count: int, seed: int) -> Iterator[tuple[int, int, list[int]]]:
    """Yield file, document and rows of the `count` documents with the lowest hashes, in their order."""
    files, documents = _lowest_hashes(packed, count=count, seed=seed)
    first_rows = np.cumsum([0, *map(len, packed.dataset.files)])
    rows: dict[tuple[int, int], list[int]] = {}
    for number in np.unique(files).tolist():
        for document, of_document in _rows_by_document(packed.dataset.files[number], documents[files == number]):
            rows[number, document] = (first_rows[number] + of_document).tolist()
    for number, document in zip(files.tolist(), documents.tolist(), strict=True):
        yield number, document, rows[number, document]


def _lowest_hashes(packed: PackedLayout, *, count: int, seed: int) -> tuple[NumPyArray, NumPyArray]:
    """Files and documents, int64 [count] each or fewer, in the order of their hashes."""
    hashes, files, documents = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number, (file, partition) in enumerate(zip(packed.dataset.files, packed.partitions, strict=True)):
        own = np.unique(file.all_runs()[3])
        own = own[own != NO_DOCUMENT]
        keys = document_hashes(own, partition=partition, seed=seed)
        lowest = np.argsort(keys, kind="stable")[:count]
        hashes.append(keys[lowest])
        files.append(np.full(len(lowest), number))
        documents.append(own[lowest].astype(np.int64))
    order = np.argsort(np.concatenate(hashes), kind="stable")[:count]
    return np.concatenate(files)[order], np.concatenate(documents)[order]


def document_hashes(documents: NumPyArray, *, partition: str, seed: int) -> NumPyArray:
    """uint64 [n]: a hash of (seed, partition, document), by the finalizer of SplitMix64 (Steele et al., 2014)."""
    key = int.from_bytes(blake2b(f"{seed} {partition}".encode(), digest_size=8).digest(), "little")
    mixed: NumPyArray = documents.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)  # modulo 2^64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    hashes: NumPyArray = mixed ^ (mixed >> np.uint64(31))
    return hashes


def _rows_by_document(file: PackedFile, documents: NumPyArray) -> Iterator[tuple[int, NumPyArray]]:
    """Yield each of `documents` with its rows of the file, int64, ascending."""
    offsets, _, _, run_documents = file.all_runs()
    found = np.isin(run_documents, documents)
    rows, of_runs = np.repeat(np.arange(len(file)), np.diff(offsets))[found], run_documents[found]
    order = np.argsort(of_runs, kind="stable")
    numbers, starts = np.unique(of_runs[order], return_index=True)
    for document, part in zip(numbers.tolist(), np.split(rows[order], starts[1:]), strict=True):
        yield document, np.unique(part)
