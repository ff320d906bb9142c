"""Training, evaluation and data sets on a run in an object store: the results are those on a local copy, to the bit.

The store is moto's S3 on loopback behind a proxy that counts requests and injects faults. The cache is far smaller than
the data, and its size is checked at every write.
"""

from __future__ import annotations

import os
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import colophon as public
from colophon.pipeline.conversion.conversion import Conversion
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import read_manifest
from colophon.shards.reader import PackedDataset as PackedReader
from colophon.shards.stores import objects
from colophon.shards.stores.cache_settings import CacheSettings
from colophon.shards.stores.objects import StoreReadError
from colophon.shards.stores.places import StorePath
from colophon.torch import PackedDataset, PackedIterableDataset, TrainingDataset
from colophon.trainer.data.packed_layout import PackedLayout
from colophon.trainer.data.rows.values import row_scores
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.evaluation.document_crops import RunDocuments
from colophon.trainer.loop import train
from tests.pipeline.servers import Fault, Proxy, proxy_before, put_object, s3_environment, s3_server
from tests.trainer.annotated import annotate
from tests.trainer.counting import METADATA, write_counting_run
from tests.trainer.courses import Killed, assert_same_end, kill_at, metrics_of, weights_of
from tests.trainer.ranks import train_on_ranks
from tests.trainer.runs import TOKENIZER, config, write_run

RUN, COUNTING = StorePath("s3://bucket/run"), StorePath("s3://bucket/counting")
BOUND = 1500
"""Bytes of the cache: 13 rows of 98 bytes, of some 70."""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our pauses, and those of botocore, which are random."""
    monkeypatch.setattr(objects, "PAUSES_SECONDS", (0.01, 0.02, 0.04))
    monkeypatch.setattr("botocore.retryhandler.random", types.SimpleNamespace(random=lambda: 0.01))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on disk: each training in it needs its own name."""
    run = write_run(tmp_path_factory.mktemp("store") / "run")
    annotate(run, score=[float(number % 7) for number in range(60)])
    return run


@pytest.fixture(scope="module")
def proxy(local: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy before an S3 with both runs."""
    counting = write_counting_run(tmp_path_factory.mktemp("counting") / "run", num_documents=60)
    with s3_server() as server, proxy_before(server) as proxy, s3_environment(proxy.address):
        fsspec.filesystem("s3").mkdir("bucket")
        for run, name in ((local, "run"), (counting, "counting")):
            for path in run.rglob("*"):
                if path.is_file():
                    put_object("bucket", f"{name}/{path.relative_to(run)}", path.read_bytes())
        proxy.counting = counting  # type: ignore[attr-defined]
        yield proxy


@pytest.fixture(autouse=True)
def fresh(proxy: Proxy) -> Iterator[None]:
    fsspec.filesystem("s3").clear_instance_cache()
    proxy.reset()
    yield
    proxy.reset()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache's directory, whose size is checked at every write of this process."""
    directory, write = tmp_path / "cache", os.pwrite

    def watched(handle: int, data: Any, at: int) -> int:
        written = write(handle, data, at)
        assert sum(path.stat().st_size for path in directory.iterdir()) <= BOUND
        return written

    monkeypatch.setattr(os, "pwrite", watched)
    return directory


def cached(directory: Path, layout: str = "prepend", **settings: Any) -> Any:
    return config(layout, cache_bytes=BOUND, cache_directory=str(directory), **settings)


def is_row(method: str, path: str) -> bool:
    return method == "GET" and "/packed/" in path


def same_training(local: Path, directory: Path, name: str) -> None:
    """Metrics and weights of a run of this name in two directories."""
    assert metrics_of(local, name) == metrics_of(directory, name)
    expected, found = weights_of(local, name), weights_of(directory, name)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_training_of_two_epochs_through_faults_has_the_losses_of_the_disk(
    local: Path, proxy: Proxy, cache: Path, tmp_path: Path
) -> None:
    settings = cached(cache, steps=16, validation_every=8)
    data = TrainingData(settings, output=local)
    assert 2 * data.num_rows < 16 * 8  # it begins a third epoch
    train(settings, name="epochs", output=local)
    proxy.faults = [Fault("503", is_row, every=9), Fault("cut", is_row, every=11, after=5)]
    lines: list[str] = []
    train(settings, name="epochs", output=RUN, directory=tmp_path, report=lines.append)
    same_training(local, tmp_path, "epochs")
    assert min(fault.struck for fault in proxy.faults) > 3
    assert sum(path.stat().st_size for path in cache.iterdir()) > BOUND - 2 * 114
    pattern = re.compile(r"s3://bucket/run/packed/\w+: (\d+) rows requested .*, (\d+) from the cache")
    requested, hits = (sum(int(found[n]) for found in map(pattern.fullmatch, lines) if found) for n in (1, 2))
    assert requested + hits == 17 * 8 + 2 * len(data.validation_rows)  # a batch is read ahead
    assert hits > 0


def test_a_training_in_the_order_of_documents_has_the_losses_of_the_disk(
    local: Path, cache: Path, tmp_path: Path
) -> None:
    settings = cached(cache, order="documents", steps=4, log_every=1, validation_every=4)
    train(settings, name="documents", output=local)
    train(settings, name="documents", output=RUN, directory=tmp_path)
    same_training(local, tmp_path, "documents")
    assert len(list(cache.iterdir())) > 0  # rows came through the cache of the store


def test_a_resumed_training_is_the_unbroken_one_from_the_store_and_from_the_disk(
    local: Path, cache: Path, tmp_path: Path
) -> None:
    settings = cached(cache, checkpoint_every=4, log_every=1)
    train(settings, name="resumed", output=local)
    with pytest.raises(Killed):
        train(settings, name="resumed", output=RUN, directory=tmp_path, report=kill_at(5))
    train(settings, name="resumed", output=RUN, directory=tmp_path, resume=True)
    same_training(local, tmp_path, "resumed")
    with pytest.raises(Killed):
        train(settings, name="moved", output=RUN, directory=local, report=kill_at(5))
    train(settings, name="moved", output=local, resume=True)
    assert_same_end(local, "resumed", "moved")


def test_a_conversion_has_the_bytes_of_one_of_the_disk(local: Path, tmp_path: Path) -> None:
    written = [tmp_path / "disk", tmp_path / "store"]
    for run, directory in zip((local, RUN), written, strict=True):
        Conversion(run, layout="prepend", to="megatron").write(directory)
    disk, store = ({path.name: path.read_bytes() for path in directory.iterdir()} for directory in written)
    assert len(disk) > 2
    assert store == disk


@pytest.mark.slow
def test_two_processes_share_the_cache_and_its_bound(local: Path, proxy: Proxy, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    settings = cached(cache, steps=18, validation_every=6)
    train_on_ranks(settings, num_ranks=2, name="ranks", output=local)
    watched = f"""
import os
from colophon.shards.stores.places import StorePath
write, directory = os.pwrite, {str(cache)!r}
def pwrite(handle, data, at):
    written = write(handle, data, at)
    assert sum(os.path.getsize(os.path.join(directory, name)) for name in os.listdir(directory)) <= {BOUND}
    return written
os.pwrite = pwrite
directory_of_run, output = Path(output), {RUN.url!r}
Path = lambda url: StorePath(url)
on_disk = train
train = lambda *arguments, **options: on_disk(*arguments, directory=directory_of_run, **options)
"""
    train_on_ranks(settings, num_ranks=2, name="ranks", output=tmp_path, first=watched)
    same_training(local, tmp_path, "ranks")
    assert sum(path.stat().st_size for path in cache.iterdir()) > BOUND - 2 * 114


def test_requests_are_one_for_each_row_and_three_for_each_small_file(proxy: Proxy, cache: Path) -> None:
    layout = PackedReader.open(RUN, "plain", cache=CacheSettings(max_bytes=BOUND, directory=cache))
    of_files = [request for request in proxy.requests if "/packed/" in request[1]]
    assert len(of_files) == 2 * len(layout.files)  # a HEAD, and a GET of a file of less than 80 KiB
    proxy.reset()
    rows = np.arange(len(layout))
    layout.rows(rows)
    assert proxy.methods == {"GET": len(layout)}
    layout.rows(rows)
    assert proxy.methods == {"GET": 2 * len(layout) - 13}


def test_rows_and_runs_are_those_of_the_disk(local: Path, cache: Path) -> None:
    stored = public.open(RUN.url).packed("append", cache=CacheSettings(max_bytes=BOUND, directory=cache))
    packed = public.open(local).packed("append")
    assert (stored.fingerprint, stored.info) == (packed.fingerprint, packed.info)
    rows = [5, 0, len(packed) - 1, 5]
    for found, expected in zip(vars(stored.rows(rows)).values(), vars(packed.rows(rows)).values(), strict=True):
        assert np.array_equal(found, expected)
    assert np.array_equal(stored.files[1].input_ids[2:5], packed.files[1].input_ids[2:5])
    with pytest.raises(ShardError, match="s3://bucket/run is in an object store"):
        public.open(RUN.url).annotations()


def test_annotations_of_rows_are_read_from_the_store(local: Path, cache: Path) -> None:
    settings = CacheSettings(directory=cache)
    stored, packed = PackedLayout.open(RUN, "plain", cache=settings), PackedLayout.open(local, "plain")
    assert np.array_equal(row_scores(stored, "score"), row_scores(packed, "score"))


def test_data_sets_of_other_loops_read_the_store(local: Path, cache: Path) -> None:
    settings = {"layout": "prepend", "steps": 3, "batch_size": 4, "cache_bytes": BOUND, "cache_directory": str(cache)}
    stored, packed = TrainingDataset(RUN.url, settings), TrainingDataset(local, settings)
    for found, expected in zip(stored.__getitems__(range(12)), packed.__getitems__(range(12)), strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    stream = PackedIterableDataset(RUN.url, settings)
    batches = list(DataLoader(stream, batch_size=4, num_workers=2))  # forked: connections are opened again
    expected_batches = list(DataLoader(PackedIterableDataset(local, settings), batch_size=4))
    for found, expected in zip(batches, expected_batches, strict=True):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    rows = PackedDataset(RUN.url, "plain", cache=CacheSettings(max_bytes=0))
    assert torch.equal(rows[3]["input_ids"], PackedDataset(local, "plain")[3]["input_ids"])


def test_documents_of_an_evaluation_are_those_of_the_disk(proxy: Proxy) -> None:
    counting: Path = proxy.counting  # type: ignore[attr-defined]
    asked: dict[str, Any] = {"count": 20, "crop": 30, "seed": 1, "columns": ["step"], "tokenizer": TOKENIZER}
    crops = [RunDocuments(run).crops(**asked, decode=lambda ids: "x" * len(ids)) for run in (COUNTING, counting)]
    assert [ids.tolist() for ids in crops[0].text] == [ids.tolist() for ids in crops[1].text]
    assert crops[0].columns == crops[1].columns
    tokens = [path for method, path in proxy.requests if method == "GET" and "/tokens/" in path]
    assert len(tokens) == 20 + 2  # a document each, and the rest of both files
    assert METADATA  # the run's metadata


def test_an_object_that_is_replaced_or_deleted_ends_with_one_line(local: Path, proxy: Proxy) -> None:
    no_cache = CacheSettings(max_bytes=0)
    name = read_manifest(local).packed_records(local, "masked")[0].path
    content = (local / name).read_bytes()
    layout = PackedReader.open(RUN, "masked", cache=no_cache)
    put_object("bucket", f"run/{name}", content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ShardError, match=f"^{RUN}/{name} has been replaced since it was opened"):
        layout.rows([0])
    put_object("bucket", f"run/{name}", content + b"x")
    with pytest.raises(ShardError, match=f"{name} has {len(content) + 1} bytes; its record states {len(content)}"):
        PackedReader.open(RUN, "masked", cache=no_cache)
    put_object("bucket", f"run/{name}", bytes(len(content)))
    with pytest.raises(ShardError, match=f"{name}: not a readable Arrow file"):
        PackedReader.open(RUN, "masked", cache=no_cache)
    put_object("bucket", f"run/{name}", content)
    with pytest.raises(ShardError, match=r"has no layout 'plane'; .*Did you mean 'plain'"):
        PackedReader.open(RUN, "plane", cache=no_cache)
    with pytest.raises(ShardError, match=r"s3://bucket/none/manifest.json does not exist"):
        PackedReader.open(StorePath("s3://bucket/none"), "plain")


@pytest.mark.slow
def test_a_store_that_stays_away_ends_a_training_with_one_line(
    proxy: Proxy, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.faults = [Fault("503", is_row, after=30)]
    settings = cached(cache, "plain", checkpoint_every=1, validation_rows=0)
    with pytest.raises(StoreReadError, match=r"^s3://bucket/run/packed/plain/\d.arrow: .*\(retries exhausted\)$"):
        train(settings, name="away", output=RUN, directory=tmp_path)
    proxy.reset()
    train(settings, name="away", output=RUN, directory=tmp_path, resume=True)
    assert metrics_of(tmp_path, "away")[-1]["step"] == 8
