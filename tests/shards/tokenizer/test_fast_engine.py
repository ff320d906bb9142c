"""The fast engine's memory is bounded."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from colophon.shards.tokenizer import encoders, fast_engine
from colophon.shards.tokenizer.fast_engine import Gigatoken, used_memory
from tests.shards.tokenizer.vocabularies import CORPUS, load, random_words, reference_ids

pytest.importorskip("gigatoken.gigatoken_rs")


def test_the_engine_is_rebuilt_when_it_has_grown(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_engine, "MEMORY_BYTES", 6 << 20)
    monkeypatch.setattr(encoders, "CALL_BYTES", 512 << 10)
    tokenizer, builds, build = load(small_path), [], Gigatoken._build
    assert tokenizer.engine.startswith("gigatoken 0.10")
    monkeypatch.setattr(Gigatoken, "_build", lambda self: (builds.append(used_memory()), build(self)))
    batches = [pa.array(random_words(1 << 20, seed=seed)) for seed in range(8)]
    for batch in batches:
        ids = tokenizer.encode_batch(batch)
    assert ids.to_pylist() == reference_ids(tokenizer, batches[-1].to_pylist())
    assert len(builds) >= 3
    # Without a rebuild, eight megabytes of words that never repeat would take about 60 MB.
    assert max(builds) - min(builds) < 20 << 20


def test_an_engine_does_not_grow_on_words_that_repeat(small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Gigatoken(load(small_path).backend.engine_spec())
    monkeypatch.setattr(engine, "_build", lambda: pytest.fail("rebuilt"))
    data = np.frombuffer((CORPUS[0] * 50_000).encode(), np.uint8)
    for _ in range(5):
        engine.encode(data, np.array([0, data.size]))
    assert engine._grown < 1 << 20


def test_the_growth_of_small_calls_is_estimated(small_path: Path) -> None:
    engine = Gigatoken(load(small_path).backend.engine_spec())
    before = engine._grown
    engine.encode(np.frombuffer(b"0123456789", np.uint8), np.array([0, 4, 10]))
    assert engine._grown == before + 120


def test_without_glibc_the_memory_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: None) -> None:
        raise OSError("no C library")

    fast_engine._used_memory.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", no_library)
        resident = used_memory()
    fast_engine._used_memory.cache_clear()
    assert 0.5 < resident / psutil.Process().memory_info().rss < 2
