"""Clusters against plain Python: for any keys, any cut into files, and any number of ranges on disk."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.duplicates.clusters import Clusters, find_clusters
from colophon.pipeline.duplicates.keys import KeyFiles
from colophon.pipeline.storage.commits import Store
from colophon.shards.records import Record

Documents = tuple[list[list[int] | None], list[float | None]]
"""The keys and the rank of each document."""


def written(root: Path, documents: Documents, cuts: list[int]) -> KeyFiles:
    """Files with these documents, cut before these rows."""
    root.mkdir(parents=True)
    keys, ranks = documents
    ends = [0, *cuts, len(keys)]
    records = []
    for number, (first, last) in enumerate(pairwise(ends)):
        lists = pa.array(keys[first:last], pa.list_(pa.uint64()))
        table = pa.table({"k_keys": lists, "k_rank": pa.array(ranks[first:last], pa.float64())})
        pq.write_table(table, root / f"{number}.parquet", write_page_checksum=True)
        fields = {"output": "annotations/k", "partition": str(number), "path": f"{number}.parquet", "bytes": 1}
        records.append(Record(**fields, rows=last - first, sha256="", fingerprint=""))
    return KeyFiles(Store(str(root)), "k", records)


def clustered(
    root: Path, documents: Documents, *, cuts: list[int], ranked: bool = True, range_bytes: int = 1 << 20
) -> Clusters:
    files, scratch = written(root / "files", documents, cuts), root / "scratch"
    scratch.mkdir()
    return find_clusters(files, num_keys=4, ranked=ranked, scratch=scratch, range_bytes=range_bytes)


def in_python(documents: Documents) -> tuple[list[int], list[int], list[int]]:
    """The cluster of each document, and the size and the kept document of each cluster."""
    keys, ranks = documents
    trees = [{document} for document in range(len(keys))]
    for one, of_one in enumerate(keys):
        for other in range(one):
            if {*(of_one or ())} & {*(keys[other] or ())} and trees[one] is not trees[other]:
                joined = trees[one] | trees[other]
                for member in joined:
                    trees[member] = joined
    clusters = sorted({min(tree) for tree in trees if len(tree) > 1})
    numbers = [clusters.index(min(tree)) if len(tree) > 1 else -1 for tree in trees]
    members = [sorted(trees[first]) for first in clusters]
    best = [max(each, key=lambda d: (-np.inf if ranks[d] is None else ranks[d], -d)) for each in members]
    return numbers, [len(each) for each in members], best


def random_documents(seed: int, *, number: int = 120) -> Documents:
    rng = np.random.default_rng(seed)
    pool = rng.integers(0, 1 << 64, 250, dtype=np.uint64, endpoint=False)
    keys = [rng.choice(pool, rng.integers(0, 4)).tolist() or None for _ in range(number)]
    return keys, [None if rank == 0 else float(rank) for rank in rng.integers(0, 4, number)]


@pytest.mark.parametrize(("seed", "cuts", "range_bytes"), [(0, [], 1 << 20), (1, [1, 60], 256), (2, [7, 7, 100], 64)])
def test_clusters_equal_those_of_plain_python(seed: int, cuts: list[int], range_bytes: int, tmp_path: Path) -> None:
    documents = random_documents(seed)
    numbers, sizes, best = in_python(documents)
    found = clustered(tmp_path, documents, cuts=cuts, range_bytes=range_bytes)
    assert min(len(sizes), max(sizes)) > 3
    assert (found.of_document.tolist(), found.sizes.tolist(), found.kept.tolist()) == (numbers, sizes, best)


def test_without_ranks_the_first_is_kept(tmp_path: Path) -> None:
    documents = random_documents(3)
    found = clustered(tmp_path, documents, cuts=[50], ranked=False)
    assert found.kept.tolist() == [found.of_document.tolist().index(number) for number in range(len(found.sizes))]


@pytest.mark.parametrize("keys", [[], [None, None], [[1], [2], None]])
def test_documents_without_duplicates(keys: list[list[int] | None], tmp_path: Path) -> None:
    found = clustered(tmp_path, (keys, [None] * len(keys)), cuts=[])
    assert found.of_document.tolist() == [-1] * len(keys)
    assert (len(found.sizes), len(found.kept), found.num_documents) == (0, 0, 0)


def test_a_million_documents_of_one_text_are_one_cluster(tmp_path: Path) -> None:
    """A chain through all of them, and no recursion."""
    number = 1_000_000
    lists = pa.ListArray.from_arrays(np.arange(number + 1, dtype=np.int32), np.full(number, 5, np.uint64))
    files = written(tmp_path / "files", ([[5]], [None]), [])
    pq.write_table(pa.table({"k_keys": lists, "k_rank": pa.nulls(number, pa.float64())}), tmp_path / "files/0.parquet")
    files = KeyFiles(files.store, "k", [files.records[0].model_copy(update={"rows": number})])
    (tmp_path / "scratch").mkdir()
    found = find_clusters(files, num_keys=1, ranked=False, scratch=tmp_path / "scratch", range_bytes=1 << 22)
    assert (found.sizes.tolist(), found.kept.tolist()) == ([number], [0])
