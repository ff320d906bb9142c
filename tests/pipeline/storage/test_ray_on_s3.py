"""Ray with two workers from S3 to S3, through faults of the store, of a worker and of the driver."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from colophon.pipeline.storage.commits import Store
from colophon.shards.manifest import Manifest
from tests.pipeline.project import colophon, manifest, run
from tests.pipeline.runs.test_faults import TWO_WORKERS, call, ended, fault, start, wait_for
from tests.pipeline.servers import Fault, Proxy, proxy_before, put_object, s3_environment, s3_server
from tests.pipeline.storage.test_object_store import RECIPE, heads, json_lines, lists, reads, settings, writes

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray"), pytest.mark.slow]
RAY = ("--executor", "ray")
SHORT_TIMEOUT = {"FSSPEC_S3": '{"config_kwargs": {"read_timeout": 3}}'}
"""The time in seconds after which a client sends a request again that has no answer; 60 by default."""
OUTPUTS = 4


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """A proxy before an S3 with files of JSON lines in `bucket/in-3` and `bucket/in-9`."""
    with s3_server() as server, proxy_before(server) as proxy, s3_environment(proxy.address):
        fsspec.filesystem("s3").mkdir("bucket")
        for number in (3, 9):
            for file in range(number):
                put_object("bucket", f"in-{number}/part-{file}.jsonl", json_lines(file))
        yield proxy
        proxy.reset()


@pytest.fixture(autouse=True)
def small(project: Path, proxy: Proxy) -> None:
    """The project with few outputs, since each costs requests."""
    Path("recipe.toml").write_text(RECIPE)
    proxy.reset()


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where a fault counts how often its step was reached."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def stored(root: str) -> Manifest:
    """The manifest of a run on S3."""
    found = Store(root).manifest()
    assert found is not None
    return found


def without_paths(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON, without the paths that differ between a disk and a store, and its checksum."""
    value = manifest.model_dump(mode="json", exclude={"checksum"})
    value["recipe"]["output"]["path"] = ""
    for output in value["outputs"].values():
        output["records"] = [{**record, "path": ""} for record in output["records"]]
    return value


def assert_equal_to_a_local_run(root: str, *, paths: str) -> None:
    """Each file has the bytes of that of a run into a local directory, and the manifest is the same but for paths."""
    called = run(*settings(paths, "out"), *TWO_WORKERS)
    assert (called.code, called.err) == (0, "")
    there, here = stored(root), manifest()
    assert without_paths(there) == without_paths(here)
    filesystem = fsspec.filesystem("s3")
    for output in here.outputs:
        for remote, local in zip(there.outputs[output].records, here.outputs[output].records, strict=True):
            content = filesystem.cat_file(f"{root}/{remote.path}")
            assert content == Path("out", local.path).read_bytes(), (output, local.partition)


def test_ray_through_faults_of_the_store_and_a_killed_worker(proxy: Proxy, marks: Path) -> None:
    root = "s3://bucket/through-faults"
    where = [*settings("s3://bucket/in-3/*.jsonl", root), *TWO_WORKERS]
    faults = [
        Fault("503", reads, every=6, limit=6),
        Fault("500", lists, every=4, limit=3),
        Fault("cut", reads, every=7, limit=6),
        Fault("503", writes, every=5, limit=6),
        Fault("lost", writes, every=6, limit=4),
        Fault("500", heads, every=4, limit=3),
        Fault("silent", writes, every=15, limit=2),
    ]
    proxy.faults = faults
    killed = fault(marks, "before record", "kill", stage="tokens", at=2)
    code, out, err = call("run", "recipe.toml", *RAY, *where, env={**killed, **SHORT_TIMEOUT})
    assert (code, err) == (0, ""), out
    assert [each.struck for each in faults] == [each.limit for each in faults]
    assert len(list(marks.iterdir())) >= 4, "three partitions, one of them twice"
    proxy.reset()
    called = run(*where)
    assert called.code == 0
    assert "nothing to do" in called.out
    assert len(proxy.requests) <= 60, "few for any number of partitions, see docs/reliability.md"
    assert_equal_to_a_local_run(root, paths="s3://bucket/in-3/*.jsonl")


def test_the_driver_killed_on_s3_and_the_run_resumed(proxy: Proxy, marks: Path) -> None:
    """A worker hangs before its record; the others have published when the driver is killed."""
    root = "s3://bucket/driver-killed"
    where = [*settings("s3://bucket/in-9/*.jsonl", root), *TWO_WORKERS]
    hanging = fault(marks, "before record", "hang", stage="tokens", at=4)
    process = start("run", "recipe.toml", *RAY, *where, env=hanging)
    try:
        wait_for((marks / "6").exists, process)
    finally:
        process.send_signal(signal.SIGKILL)
        ended(process)
    before = {record.path for record in Store(root).ledger().sound("tokens")}
    assert len(before) >= 4
    code, out, err = call("run", "recipe.toml", *RAY, *where)
    assert (code, err) == (0, ""), out
    assert "taking over the lock" in out
    assert before <= {record.path for record in stored(root).outputs["tokens"].records}, "no committed file is rebuilt"
    verified = colophon("verify", "recipe.toml", *where)
    assert (verified.code, verified.err) == (0, "")
    assert_equal_to_a_local_run(root, paths="s3://bucket/in-9/*.jsonl")


def test_a_new_partition_costs_the_same_requests_on_ray_as_in_one_process(proxy: Proxy) -> None:
    """Those that the time of a run does not change; all are counted in test_object_store.py."""
    counted = {}
    for number in (3, 9):
        proxy.reset()
        where = settings(f"s3://bucket/in-{number}/*.jsonl", f"s3://bucket/counted-{number}")
        code, _, err = call("run", "recipe.toml", *RAY, *where, *TWO_WORKERS)
        assert (code, err) == (0, "")
        kinds = [(method, place) for method, path in proxy.requests if (place := place_of(path, number))]
        counted[number] = Counter(kinds)
    more = {kind: (counted[9][kind] - counted[3][kind]) / 6 for kind in counted[9]}
    expected = {("PUT", "output"): OUTPUTS, ("PUT", "record"): 2, ("GET", "output"): 2}  # packing reads two files
    assert {kind: count for kind, count in more.items() if count} == expected


def place_of(path: str, number: int) -> str | None:
    """The kind of an object in a run's output that belongs to one partition; None for others, and for listings."""
    _, found, name = path.partition(f"/bucket/counted-{number}/")
    if not found:
        return None
    if name.startswith("records/pending/"):
        return "record"
    return "output" if name.startswith(("annotations/", "tokens/", "packed/")) else None
