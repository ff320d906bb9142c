"""The commit protocol: a crash at any point leaves nothing that looks finished. Locally and on an object store."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from colophon.pipeline.errors import StoreError
from colophon.pipeline.storage import commits, publication
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.files import LocalFiles
from colophon.pipeline.storage.pass_record import pending_path
from colophon.shards.common import durable
from colophon.shards.common.digests import file_sha256, fingerprint
from colophon.shards.common.errors import ColophonError
from colophon.shards.manifest import Manifest, OutputManifest
from colophon.shards.records import PartitionInfo, Record
from tests.pipeline.commit_records import committed_record
from tests.pipeline.project import colophon, execute, hashes, manifest, run
from tests.pipeline.servers import s3_environment, s3_server
from tests.pipeline.storage.test_lock import other_owner, write_lock

CONTENT = b"the content of the file"


class Crash(BaseException):
    """The process dies here: only the test may catch it."""


def commit(
    store: Store,
    *,
    content: bytes = CONTENT,
    check: Callable[[Path], None] = lambda path: None,
    fingerprint: str = "f",
) -> Record:
    with store.draft(output="packed/plain", partition="part", suffix=".arrow") as draft:
        draft.path.write_bytes(content)
        finished = draft.finish(check=check, rows=3, fingerprint=fingerprint, counts={"documents": 3})
        (record,) = store.publish([finished])
        return record


def visible(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_commit_leaves_the_file_and_its_record_and_nothing_else(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record = commit(store, check=lambda path: None)
    assert visible(tmp_path) == {"packed/plain/part.arrow", "records/pending/part.json"}
    assert (tmp_path / record.path).read_bytes() == CONTENT
    assert record.bytes == len(CONTENT)
    assert record.sha256 == file_sha256(tmp_path / record.path)
    assert committed_record(store.root, "packed/plain", "part") == record


def test_the_check_sees_the_whole_file_under_a_temporary_name(tmp_path: Path) -> None:
    seen: list[Path] = []

    def check(path: Path) -> None:
        assert path.read_bytes() == CONTENT
        seen.append(path)

    commit(Store(str(tmp_path)), check=check)
    assert seen[0].name.startswith(".")
    assert seen[0].parent == tmp_path / "packed/plain"


def test_a_second_commit_replaces_the_file_and_its_record(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    commit(store)
    record = commit(store, content=b"another", fingerprint="g")
    assert (tmp_path / record.path).read_bytes() == b"another"
    assert committed_record(store.root, "packed/plain", "part") == record
    assert len(visible(tmp_path)) == 2


def test_a_late_attempt_at_the_same_file_touches_nothing(tmp_path: Path) -> None:
    """A worker that outlived its run must not replace a file that the next run has committed."""
    store = Store(str(tmp_path))
    first = commit(store)
    before = (tmp_path / first.path).stat()
    assert commit(store) == first
    assert (tmp_path / first.path).stat() == before
    assert len(visible(tmp_path)) == 2
    (tmp_path / first.path).unlink()
    assert commit(store) == first
    assert (tmp_path / first.path).read_bytes() == CONTENT


@contextlib.contextmanager
def crash_before(call: int) -> Iterator[None]:
    """The process dies before the `call`-th call (from 0) that changes or syncs a file."""
    remaining = call
    with pytest.MonkeyPatch.context() as patch:

        def deadly(target: Any, name: str) -> None:
            real = getattr(target, name)

            def counted(*arguments: Any, **options: Any) -> Any:
                nonlocal remaining
                if remaining == 0:
                    raise Crash
                remaining -= 1
                return real(*arguments, **options)

            patch.setattr(target, name, counted)

        for name in ("write_bytes", "write_text", "replace", "mkdir"):
            deadly(Path, name)
        for module, name in ((publication, "sync"), (durable, "sync"), (commits, "file_sha256")):
            deadly(module, name)
        yield


@pytest.mark.parametrize("is_in_a_segment", [False, True])
@pytest.mark.parametrize(
    "before", [None, b"something shorter"[:5], b"x" * len(CONTENT)], ids=["new", "another size", "the same size"]
)
def test_a_crash_at_any_step_leaves_nothing_that_looks_finished(
    tmp_path: Path, before: bytes | None, is_in_a_segment: bool
) -> None:
    """Also if a segment has the record of the old file: a recipe that is changed back must not trust the new file."""
    steps = 0
    while True:
        root = tmp_path / str(steps)
        root.mkdir()
        store = Store(str(root))
        old = commit(store, content=before, fingerprint="old") if before is not None else None
        if is_in_a_segment:
            store.ledger().compact()
        num_files = len(visible(root)) + (2 if old is None else is_in_a_segment)
        try:
            with crash_before(steps):
                commit(store)
            break
        except Crash:
            found = committed_record(store.root, "packed/plain", "part")
            # No record; the old record and file; or, when only the last sync is missing, the new record and file.
            assert found is None or file_sha256(root / found.path) == found.sha256
            assert found in (None, old) or (root / found.path).read_bytes() == CONTENT
            assert not [path for path in visible(root) if path.endswith(".tmp")]
        again = commit(store)
        assert committed_record(store.root, "packed/plain", "part") == again
        assert (root / again.path).read_bytes() == CONTENT
        assert len(visible(root)) == num_files
        steps += 1
    assert steps >= 8


def test_an_error_of_writing_or_checking_leaves_nothing(tmp_path: Path) -> None:
    def failing_check(path: Path) -> None:
        raise ColophonError("a damaged file")

    with pytest.raises(ColophonError, match="a damaged file"):
        commit(Store(str(tmp_path)), check=failing_check)
    assert visible(tmp_path) == set()


def test_the_file_is_synced_before_it_is_renamed_and_the_record_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = Path.replace
    for module in (publication, durable):
        monkeypatch.setattr(module, "sync", lambda path: order.append(f"sync {'d' if path.is_dir() else 'f'}"))
    monkeypatch.setattr(
        Path, "replace", lambda path, to: (order.append(f"rename {Path(to).suffix}"), real(path, to))[1]
    )
    commit(Store(str(tmp_path)))
    assert order == ["sync f", "rename .arrow", "rename .json"]
    order.clear()
    commit(Store(str(tmp_path)), fingerprint="g")
    record = ["sync f", "rename .json", "sync d"]
    assert order == ["sync f", *record, "rename .arrow", "sync d", *record], "it is withdrawn before it is replaced"
    order.clear()
    Store(str(tmp_path)).ledger().compact()
    assert order == ["sync d", "sync f", "rename .parquet", "sync d", "sync d"], "files, then the segment, then records"


@pytest.mark.parametrize("damage", ["truncate", "append", "delete", "no record", "broken record", "other record"])
def test_a_record_is_trusted_only_with_its_file_in_full_size(tmp_path: Path, damage: str) -> None:
    store = Store(str(tmp_path))
    file, record = tmp_path / commit(store).path, tmp_path / pending_path("part")
    if damage == "truncate":
        os.truncate(file, len(CONTENT) - 1)
    elif damage == "append":
        file.write_bytes(CONTENT + b"!")
    elif damage == "delete":
        file.unlink()
    elif damage == "no record":
        record.unlink()
    elif damage == "broken record":
        record.write_bytes(record.read_bytes()[:-20])
    else:
        record.write_text(record.read_text().replace("packed/plain/part.arrow", "../elsewhere.arrow"))
    assert committed_record(store.root, "packed/plain", "part") is None


def test_small_files_are_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert store.files.read_text("a/b.json") is None
    store.files.replace_text("a/b.json", '{"é": 1}')
    assert store.files.read_state("a/b.json", remedy="") == {"é": 1}
    for step in range(4):
        with pytest.raises(Crash), crash_before(step):
            store.files.replace_text("a/b.json", "{}")
        assert store.files.read_state("a/b.json", remedy="") == {"é": 1}
    assert visible(tmp_path) == {"a/b.json"}


def test_the_tables_of_the_manifest_before_are_deleted(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record = commit(store)

    def manifest_of(*outputs: str) -> Manifest:
        records = {output: [record.model_copy(update={"output": output})] for output in outputs}
        contents = {output: OutputManifest(settings={}, records=of_one) for output, of_one in records.items()}
        return Manifest(colophon_version="0", recipe={}, partitions=[], outputs=contents)

    first = store.write_manifest(manifest_of("packed/plain", "packed/other"))
    assert store.manifest() == first
    assert len([*tmp_path.glob("manifest/**/*.parquet")]) == 3
    second = store.write_manifest(manifest_of("packed/plain"))
    assert store.manifest() == second != first
    assert [path.name.split("-")[0] for path in tmp_path.glob("manifest/packed/*")] == ["plain"]


def test_a_run_that_has_lost_its_lock_deletes_no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path), run="ours")
    write_lock(store, other_owner(token="ours"))
    empty = Manifest(colophon_version="0", recipe={}, partitions=[], outputs={})
    store.write_manifest(empty)
    exclusive = LocalFiles.exclusive

    def late(files: LocalFiles, directory: str) -> contextlib.AbstractContextManager[bool]:
        write_lock(store, other_owner(token="theirs"))
        return exclusive(files, directory)

    monkeypatch.setattr(LocalFiles, "exclusive", late)
    partition = PartitionInfo(name="a", source="", rows=1, bytes=1)
    with pytest.raises(StoreError, match="another run has taken over the lock"):
        store.write_manifest(empty.model_copy(update={"partitions": [partition]}))
    assert len([*tmp_path.glob("manifest/*.parquet")]) == 2


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1, "b": [2]}) != fingerprint({"a": 1, "b": [3]})


# An object store: moto's server, a real HTTP server on loopback.


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A file system of an empty S3 with the bucket `bucket`."""
    with s3_server() as address, s3_environment(address):
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
        filesystem.mkdir("bucket")
        yield filesystem


def s3_files(s3: Any, root: str) -> set[str]:
    s3.invalidate_cache()
    return {path.removeprefix(f"{root}/") for path in s3.find(root)}


def test_on_s3_each_attempt_has_its_own_name_and_the_record_names_the_winner(s3: Any) -> None:
    store = Store("s3://bucket/attempts")
    first, second = commit(store), commit(store, content=b"another")
    assert first.path != second.path
    assert re.fullmatch(r"packed/plain/part\.[0-9a-f]{12}\.arrow", second.path)
    assert committed_record(store.root, "packed/plain", "part") == second
    with store.files.local_copy(second.path) as path:
        assert path.read_bytes() == b"another"
    assert not path.exists()


def test_on_s3_an_error_before_the_record_leaves_the_old_record_valid(s3: Any) -> None:
    store = Store("s3://bucket/errors")
    assert committed_record(store.root, "packed/plain", "part") is None
    old = commit(store)

    def failing_check(path: Path) -> None:
        raise ColophonError("a damaged file")

    with pytest.raises(ColophonError):
        commit(store, content=b"new", check=failing_check)
    assert committed_record(store.root, "packed/plain", "part") == old
    assert s3_files(s3, "bucket/errors") == {old.path, "records/pending/part.json"}


def without_heads(names: set[str]) -> set[str]:
    """The files without those that each run writes to show that it has the lock."""
    return {name for name in names if not name.startswith("records/head-")}


def test_a_run_from_s3_to_s3_writes_the_same_content_as_a_local_run(s3: Any, project: Path) -> None:
    s3.put("data", "bucket/in", recursive=True)
    there = ["--set", 'input.paths=["s3://bucket/in/*.parquet"]', "--set", "input.partition_bytes=1000000"]
    settings = [*there, "--set", "output.path=s3://bucket/out"]
    remote = run(*settings)
    assert (remote.code, remote.err) == (0, "")
    local = run(*there)
    assert (local.code, local.err) == (0, "")
    there_too = Store("s3://bucket/out").manifest()
    assert there_too is not None
    manifests = [there_too, manifest("out")]
    assert hashes(manifests[0]) == hashes(manifests[1])
    assert len(hashes(manifests[0])) == 3 * 8
    assert {p.source for p in manifests[0].partitions} == {f"s3://bucket/in/part-{n}.parquet" for n in range(3)}

    verified = colophon("verify", "recipe.toml", *settings)
    assert (verified.code, verified.err) == (0, "")
    before = without_heads(s3_files(s3, "bucket/out"))
    again = run(*settings)
    assert again.code == 0
    assert "up to date" in again.out
    assert without_heads(s3_files(s3, "bucket/out")) == before


def test_a_run_on_s3_rebuilds_a_deleted_file(s3: Any, project: Path) -> None:
    where = ("output.path=s3://bucket/redo", "input.paths=data/part-2.parquet", "input.partition_bytes=1000000")
    first = execute(*where)
    (record, *_) = first.manifest.outputs["packed/plain"].records
    s3.rm(f"bucket/redo/{record.path}")
    s3.invalidate_cache()
    second = execute(*where)
    assert hashes(second.manifest) == hashes(first.manifest)
    assert s3_files(s3, "bucket/redo") >= {r.path for s in second.manifest.outputs.values() for r in s.records}
    assert [timing.partitions for timing in second.timings] == [0, 1]


def test_a_missing_bucket_is_one_line(s3: Any, project: Path) -> None:
    called = run("--set", "input.paths=s3://nowhere/*.parquet")
    assert called.code == 2
    assert called.line.startswith("recipe.toml: input.paths: s3://nowhere/*.parquet: ")
    assert not Path("out").exists()


def test_the_hub_without_network_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    called = run("--set", "input.paths=hf://datasets/nobody/nothing/*.parquet")
    assert called.code == 2
    assert called.line.startswith(
        "recipe.toml: input.paths: hf://datasets/nobody/nothing/*.parquet: cannot be listed: "
    )
    assert not Path("out").exists()
