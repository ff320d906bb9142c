"""The annotators `duplicate_keys` and `duplicates`: which texts share a key, and documents in a table of clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

from colophon.annotators.base import AnnotatorError
from colophon.annotators.duplicate_keys import DuplicateKeysConfig
from colophon.annotators.duplicates import DuplicatesConfig
from colophon.annotators.lists.cluster_table import table_schema
from colophon.annotators.ngrams.signatures import band_keys, hash_functions, smallest_hashes
from colophon.annotators.ngrams.texts import Ngrams, ngrams_of


def keys_of(
    texts: list[str | None], *, groups: list[str | None] | None = None, **config: Any
) -> list[list[int] | None]:
    batch = pa.record_batch(
        {
            "text": pa.array(texts, pa.string()),
            "document_file": pa.nulls(len(texts), pa.string()),
            "document_place": pa.nulls(len(texts), pa.int64()),
            "language": pa.array(groups or [None] * len(texts), pa.string()),
        }
    )
    found: list[list[int] | None] = (
        DuplicateKeysConfig.model_validate(config).build("k").annotate(batch).column("k_keys").to_pylist()
    )
    return found


def test_exact_keys_are_those_of_the_words() -> None:
    texts = ["One, two – three", "one two\n\nTHREE", "one two four", "two one three", "one two", "", " ?", None]
    first, same, *others, empty, marks, null = keys_of(texts, method="exact")
    assert first == same
    assert len({tuple(each or ()) for each in (first, *others)}) == 4
    assert (empty, marks, null) == (None, None, None)


def test_minhash_keys_of_equal_similar_and_different_texts() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in rng.integers(0, 1000, 400)]
    text, similar, different = " ".join(words), " ".join([*words[:-4], "x"]), " ".join(rng.permutation(words))
    one, same, near, far, short, short_too, shorter = keys_of(
        [text, text.upper() + "!", similar, different, "a b", "A, B", "a"]
    )
    assert one == same
    assert one is not None
    assert near is not None
    assert far is not None
    assert len(one) == 14
    assert len({*one} & {*near}) >= 7
    assert not {*one} & {*far}
    assert short == short_too
    assert short != shorter


@pytest.mark.parametrize("method", ["exact", "minhash"])
def test_documents_of_different_groups_share_no_key(method: str) -> None:
    groups = ["en", "de", None, "en", ""]
    keys = keys_of(["a b c d e f g"] * 5, groups=groups, method=method, within="language")
    assert keys[0] == keys[3]
    assert keys[2] == keys[4]
    assert len({tuple(each or ()) for each in keys}) == 3
    assert len({key for each in keys for key in each or ()}) == 3 * len(keys[0] or ())


def test_smallest_hashes_equal_those_of_datatrove() -> None:
    """The same hash functions of the same seed, on the same n-grams."""
    ngrams = ngrams_of(pa.array(["one two three four five six seven eight", "a b c d e f"]), length=5)
    peer = MinhashDedupSignature(output_folder="memory://unused", config=MinhashConfig(seed=3))
    hashes = smallest_hashes(ngrams, hash_functions(14 * 8, seed=3))
    for row in range(2):
        shingles = ngrams.keys[ngrams.firsts[row] : ngrams.firsts[row + 1]]
        assert hashes[row].reshape(14, 8).tolist() == peer.get_signature(shingles[:, np.newaxis])


@pytest.mark.parametrize("similarity", [0.7, 0.8, 0.9])
def test_the_share_of_pairs_found_is_that_of_the_formula(similarity: float) -> None:
    """Pairs of sets with a known Jaccard similarity; four standard deviations of a binomial."""
    rng = np.random.default_rng(1)
    num_pairs, size = 1000, 180
    common = round(2 * size * similarity / (1 + similarity))
    sets = rng.integers(1, 1 << 63, (num_pairs, 2 * size - common), dtype=np.uint64)
    keys = np.concatenate([np.concatenate([each[:size], each[size - common :]]) for each in sets])
    firsts = np.arange(0, len(keys) + 1, size)
    ngrams = Ngrams(keys, firsts, np.full(2 * num_pairs, size + 4))
    bands = band_keys(smallest_hashes(ngrams, hash_functions(112, seed=1)), np.zeros(2 * num_pairs, np.uint64), rows=8)
    found = (bands[0::2] == bands[1::2]).any(axis=1).mean()
    true = common / (2 * size - common)
    expected = 1 - (1 - true**8) ** 14
    assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / num_pairs) + 1e-9


def write_table(path: Path, **settings: Any) -> DuplicatesConfig:
    config = DuplicatesConfig(path=str(path), **settings)
    rows = {"file": ["b 1", "b 1", "a 2"], "place": [40, 7, 7], "id": ["x", "x", "x"]}
    clusters = {"cluster": [0, 0, 1], "size": [2, 2, 5], "kept": [False, True, True]}
    pq.write_table(pa.table(rows | clusters, schema=table_schema(config.of_table, ["a 2", "b 1", "c 3"])), path)
    return config


def test_documents_are_found_by_file_and_place(tmp_path: Path) -> None:
    annotator = write_table(tmp_path / "d.parquet").build("d")
    files = ["b 1", "b 1", "b 1", "a 2", "c 3", "new 4", "b 2", None, "b 1"]
    places = [7, 40, 8, 7, 7, 7, 7, 7, None]
    batch = pa.record_batch({"document_file": files, "document_place": places})
    assert [tuple(row.values()) for row in annotator.annotate(batch).to_pylist()] == [
        (0, 2, True),
        (0, 2, False),
        (None, 1, True),
        (1, 5, True),
        (None, 1, True),
        (None, None, None),
        (None, None, None),
        (None, None, None),
        (None, None, None),
    ]


def test_a_table_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    config = DuplicatesConfig(path=str(path), keep="longest")
    with pytest.raises(AnnotatorError, match=r"annotators\.d\.path: .*d\.parquet: no such file. `colophon duplicates"):
        config.build("d")
    path.mkdir()
    with pytest.raises(AnnotatorError, match=r"d\.parquet: not a regular file. `colophon duplicates"):
        config.build("d")
    path.rmdir()
    write_table(path)
    with pytest.raises(
        AnnotatorError, match=r"was made with other settings: keep.*`colophon duplicates RECIPE` writes"
    ):
        config.build("d")
    annotator = DuplicatesConfig(path=str(path)).build("d")
    known = annotator.fingerprint
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(AnnotatorError, match="has changed since the run began"):
        annotator.load()
    assert DuplicatesConfig(path=str(path)).build("d").fingerprint != known
    pq.write_table(pa.table({"file": ["x"]}), path)
    with pytest.raises(AnnotatorError, match="not a table of `colophon duplicates`"):
        config.build("d")
    path.write_text("PAR1")
    with pytest.raises(AnnotatorError, match="cannot be read"):
        config.build("d")


@pytest.mark.parametrize("keys", [{"keep": "highest"}, {"score": "s"}, {"keep": "longest", "score": "s"}])
def test_score_is_for_highest(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='give score with keep = "highest"'):
        DuplicateKeysConfig.model_validate(keys)
