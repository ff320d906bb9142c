"""MinHash against brute force, and its cost by size.

    python -m benchmarks.duplicates measure --texts "data/*.parquet"     write benchmarks/results/duplicates.json
    python -m benchmarks.duplicates table                                print the tables of docs/annotators.md

Recall: originals from the files and edited copies of them, with the Jaccard similarity that plain Python counts for
each pair; beside them the similar pairs that the files have anyway. Cost: clusters of documents with keys at random,
of which three in ten are copies, each size in a process of its own, in rounds.
"""

from __future__ import annotations

import argparse
import glob
import json
import math
import multiprocessing
import re
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import machine
from colophon.annotators.duplicate_keys import DuplicateKeysConfig
from colophon.pipeline.duplicates.clusters import find_clusters
from colophon.pipeline.duplicates.keys import KeyFiles
from colophon.pipeline.storage.commits import Store
from colophon.shards.records import Record

RESULTS = Path(__file__).parent / "results" / "duplicates.json"
_WORD = re.compile(r"[^\W_]+")
_NGRAM = 5
_SIMILARITIES = (0.7, 0.8, 0.9)
_TOLERANCE = 0.02
_FEWEST_WORDS = 100
_MOST_DOCUMENTS_OF_NGRAM = 50
"""n-grams of more documents, such as a site's menu, propose no pairs."""
_FILE_DOCUMENTS = 50_000

Shingles = frozenset[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Pairs of about one similarity, and those of them that share a key."""

    similarity: float
    pairs: int
    found: int
    expected: float
    """The mean of 1 - (1 - s^8)^14 over the pairs' own similarities."""

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share that is found."""
        z, n, share = 1.96, self.pairs, self.found / self.pairs
        middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One clustering."""

    documents: int
    seconds: float
    """CPU time."""
    peak_bytes: int


def shingles_of(text: str) -> Shingles:
    """The n-grams of words of a text, in plain Python."""
    words = _WORD.findall(text.lower())
    return frozenset(zip(*(words[place:] for place in range(_NGRAM)), strict=False))


def jaccard(one: Shingles, other: Shingles) -> float:
    """Elements in common over all elements."""
    return len(one & other) / len(one | other)


def edited(text: str, similarity: float, rng: np.random.Generator) -> str:
    """A copy in which words are replaced, dropped and inserted at random, so that about this similarity is left.

    A share q of n-grams in both sets is a similarity of q / (2 - q), and q of n-grams are whole if each word is left
    with the probability q^(1/n).
    """
    words = text.split()
    left = (2 * similarity / (1 + similarity)) ** (1 / _NGRAM)
    changed = rng.random(len(words)) > left
    kinds = rng.integers(0, 3, len(words))
    parts = []
    for word, is_changed, kind in zip(words, changed, kinds, strict=True):
        if not is_changed:
            parts.append(word)
        elif kind:
            parts += [f"w{rng.integers(1 << 30)}", *([word] if kind == 2 else [])]
    return " ".join(parts)


def recalls(texts: Sequence[str], *, copies: int, seed: int) -> tuple[list[Recall], list[Recall]]:
    """Recall among edited copies of the texts, and among the similar pairs that the texts have themselves."""
    rng = np.random.default_rng(seed)
    sets = [shingles_of(text) for text in texts]
    keys = _keys(texts)
    long = [number for number, each in enumerate(sets) if len(each) >= _FEWEST_WORDS]
    of_copies: list[tuple[float, bool]] = []
    for similarity in _SIMILARITIES:
        chosen = rng.choice(long, copies, replace=len(long) < copies).tolist()
        made = [edited(texts[number], similarity, rng) for number in chosen]
        for number, text, own in zip(chosen, made, _keys(made), strict=True):
            of_copies.append((jaccard(sets[number], shingles_of(text)), bool(keys[number] & own)))
    natural = [(jaccard(sets[one], sets[other]), bool(keys[one] & keys[other])) for one, other in _candidates(sets)]
    return _by_similarity(of_copies), _by_similarity(natural)


def _keys(texts: Sequence[str]) -> list[set[int]]:
    annotator = DuplicateKeysConfig().build("k")
    places = {"document_file": ["f"] * len(texts), "document_place": range(len(texts))}
    table = pa.table({"text": pa.array(texts, pa.large_string()), **places})
    batches = [annotator.annotate(batch) for batch in table.to_batches(max_chunksize=1024)]
    return [set(keys or ()) for batch in batches for keys in batch.column("k_keys").to_pylist()]


def _candidates(sets: Sequence[Shingles]) -> set[tuple[int, int]]:
    """Pairs with an n-gram in common that is not of very many documents."""
    documents: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, each in enumerate(sets):
        for shingle in each:
            documents[shingle].append(number)
    few = (numbers for numbers in documents.values() if 1 < len(numbers) <= _MOST_DOCUMENTS_OF_NGRAM)
    return {pair for numbers in few for pair in combinations(numbers, 2)}


def _by_similarity(pairs: Sequence[tuple[float, bool]]) -> list[Recall]:
    rows = []
    for similarity in _SIMILARITIES:
        near = [(own, found) for own, found in pairs if abs(own - similarity) <= _TOLERANCE]
        if near:
            expected = sum(1 - (1 - own**8) ** 14 for own, _ in near) / len(near)
            found = sum(found for _, found in near)
            rows.append(Recall(similarity=similarity, pairs=len(near), found=found, expected=expected))
    return rows


def costs(sizes: Sequence[int], *, rounds: int, work: Path | None = None) -> Iterator[Cost]:
    """Clusterings of these numbers of documents, each round with all sizes."""
    for _ in range(rounds):
        for number in sizes:
            with multiprocessing.get_context("spawn").Pool(1) as pool, tempfile.TemporaryDirectory(dir=work) as place:
                yield pool.apply(_cost, (number, place))


def _cost(number: int, place: str) -> Cost:
    root = Path(place)
    files = _written(root, number)
    (root / "scratch").mkdir()
    _clustered(_written(root / "warm", 100), root / "warm")  # numba compiles, or loads what it has compiled
    begun = time.process_time()
    _clustered(files, root)
    seconds = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(documents=number, seconds=seconds, peak_bytes=peak)


def _clustered(files: KeyFiles, root: Path) -> None:
    scratch = root / "scratch"
    scratch.mkdir(exist_ok=True)
    find_clusters(files, num_keys=14, ranked=True, scratch=scratch)


def _written(root: Path, number: int) -> KeyFiles:
    """Key files of documents, of which three in ten have the keys of an earlier one."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    records = []
    for first in range(0, number, _FILE_DOCUMENTS):
        size = min(_FILE_DOCUMENTS, number - first)
        keys = rng.integers(0, 1 << 64, (size, 14), dtype=np.uint64)
        copies = np.flatnonzero(rng.random(size) < 0.3)
        keys[copies] = keys[rng.integers(0, size, len(copies))]
        lists = pa.ListArray.from_arrays(np.arange(0, size * 14 + 1, 14, dtype=np.int32), keys.ravel())
        path = f"{first}.parquet"
        pq.write_table(
            pa.table({"k_keys": lists, "k_rank": rng.random(size)}),
            root / path,
            compression="zstd",
            write_page_checksum=True,
        )
        fields = {
            "output": "annotations/k",
            "partition": path,
            "path": path,
            "bytes": 1,
            "sha256": "",
            "fingerprint": "",
        }
        records.append(Record(**fields, rows=size))
    return KeyFiles(Store(str(root)), "k", records)


def measure(
    texts: Sequence[str], *, copies: int, seed: int, sizes: Sequence[int], rounds: int, work: Path | None = None
) -> dict[str, Any]:
    """The content of the file of results: recall among the texts, and clusterings of these numbers of documents."""
    # Costs come first: the peak of a forked process counts the memory of this one.
    clusterings = [asdict(row) for row in costs(sizes, rounds=rounds, work=work)]
    of_copies, natural = recalls(texts, copies=copies, seed=seed)
    return {
        "machine": machine(),
        "settings": {"texts": len(texts), "copies": copies, "seed": seed, "rounds": rounds},
        "recalls": {
            "edited copies": [asdict(row) for row in of_copies],
            "the documents themselves": [asdict(row) for row in natural],
        },
        "costs": clusterings,
    }


def recall_table(results: Mapping[str, Any]) -> str:
    """A table of Markdown."""
    lines = [
        "| similarity | of | pairs | formula | found | 95 % interval |",
        "| ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for kind, rows in results["recalls"].items():
        for row in (Recall(**row) for row in rows):
            low, high = row.interval
            shares = f"{row.expected:.4f} | {row.found / row.pairs:.4f} | {low:.3f} to {high:.3f}"
            lines.append(f"| {row.similarity} | {kind} | {row.pairs:,} | {shares} |")
    return "\n".join(lines)


def cost_table(results: Mapping[str, Any]) -> str:
    """A table of Markdown; of the rounds the median."""
    lines = ["| documents | CPU seconds | µs a document | peak memory, MB |", "| ---: | ---: | ---: | ---: |"]
    rows = [Cost(**row) for row in results["costs"]]
    for number in dict.fromkeys(row.documents for row in rows):
        seconds = float(np.median([row.seconds for row in rows if row.documents == number]))
        peak = float(np.median([row.peak_bytes for row in rows if row.documents == number]))
        lines.append(f"| {number:,} | {seconds:.2f} | {seconds / number * 1e6:.2f} | {peak / 1e6:,.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both, or print their tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.duplicates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["measure", "table"])
    parser.add_argument("--texts", default="../shared/data/web/*.parquet", help="Parquet files with a column text.")
    parser.add_argument("--most", type=int, default=4000, help="Texts that are read. [default: 4000]")
    parser.add_argument("--copies", type=int, default=800, help="Edited copies for each similarity. [default: 800]")
    parser.add_argument("--seed", type=int, default=0, help="Random seed of the edits. [default: 0]")
    parser.add_argument("--sizes", default="250000,500000,1000000,2000000,4000000", help="Documents to cluster.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds of all sizes. [default: 3]")
    parser.add_argument("--results", type=Path, default=RESULTS, help="File of the results.")
    options = parser.parse_args(arguments)
    if options.command == "measure":
        results = measure(
            _texts(options.texts, most=options.most),
            copies=options.copies,
            seed=options.seed,
            sizes=[int(size) for size in options.sizes.split(",")],
            rounds=options.rounds,
        )
        options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results = json.loads(options.results.read_text(encoding="utf-8"))
    print(f"{recall_table(results)}\n\n{cost_table(results)}")


def _texts(pattern: str, *, most: int) -> list[str]:
    """The first texts of the files."""
    tables = (pq.read_table(path, columns=["text"]) for path in sorted(glob.glob(pattern)))
    texts = (text for table in tables for text in table.column(0).to_pylist() if text)
    return list(islice(texts, most))


if __name__ == "__main__":
    main()
