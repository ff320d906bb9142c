"""Object stores and the hub over HTTP on loopback: their faults, the number of requests, and secrets."""

from __future__ import annotations

import json
import re
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest

from colophon.pipeline.storage.commits import Store
from colophon.shards.common.errors import ExitCode
from colophon.shards.manifest import Manifest
from colophon.shards.stores import retry as transient
from tests.pipeline.project import (
    colophon,
    document,
    hashes,
    manifest,
    quarantine,
    resolved_recipe,
    run,
    write_project,
)
from tests.pipeline.runs.test_faults import call
from tests.pipeline.servers import (
    KEY,
    SECRET,
    Fault,
    Hub,
    Proxy,
    hub_serving,
    proxy_before,
    put_object,
    s3_environment,
    s3_server,
)

FILES = 3
ROWS = 40
OUTPUTS = 4
Undisturbed = Callable[[str], dict[tuple[str, str], str]]
RECIPE = """
[input]
paths = ["data/*.jsonl"]
[output]
path = "out"
[annotators.url]
[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 64
[layouts.plain]
position = "plain"
[layouts.prepend-url]
position = "prepend"
template = "{url}"
max_metadata_tokens = 24
"""
LISTED = 10_000
TOKEN = "hf_t0kenOfSomebody"
SIGNATURE = "51gnatureOfTheHub"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our pauses, and those of botocore, which are random."""
    monkeypatch.setattr(transient, "PAUSES_SECONDS", (0.01, 0.02, 0.04))
    monkeypatch.setattr("botocore.retryhandler.random", types.SimpleNamespace(random=lambda: 0.01))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients do not retry by themselves: when a store fails permanently, that only takes long."""
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 2)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture(autouse=True)
def small(project: Path) -> None:
    """The project with few outputs, since each costs requests."""
    Path("recipe.toml").write_text(RECIPE)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy before an S3 with the project's Parquet files and some JSON lines in `bucket/in`."""
    root = tmp_path_factory.mktemp("inputs")
    write_project(root)
    for file in range(FILES):
        (root / f"data/part-{file}.jsonl").write_bytes(json_lines(file))
    with s3_server() as server, proxy_before(server) as proxy, s3_environment(proxy.address):
        filesystem = fsspec.filesystem("s3")
        filesystem.mkdir("bucket")
        filesystem.put(str(root / "data"), "bucket/in", recursive=True)
        yield proxy


@pytest.fixture
def s3(proxy: Proxy) -> Iterator[Any]:
    """A file system of the server behind the proxy, which is reset."""
    fsspec.filesystem("s3").clear_instance_cache()
    proxy.reset()
    yield fsspec.filesystem("s3", endpoint_url=proxy.target, skip_instance_cache=True)
    proxy.reset()


@pytest.fixture
def out(s3: Any, request: pytest.FixtureRequest) -> str:
    """The URL of this test's output."""
    return "s3://bucket/" + re.sub(r"\W+", "-", request.node.name)


def json_lines(file: int) -> bytes:
    rows = (document(file * ROWS + row) | {"text": f"line {row} of the file {file}"} for row in range(ROWS))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def settings(paths: str, output: str) -> list[str]:
    pairs = (f"input.paths={paths}", f"output.path={output}", "input.partition_bytes=1000000")
    return [word for pair in pairs for word in ("--set", pair)]


def paths(manifest: Manifest) -> dict[tuple[str, str], str]:
    """The path of every committed file by output and partition."""
    return {(r.output, r.partition): r.path for content in manifest.outputs.values() for r in content.records}


def stored(s3: Any, output: str) -> Manifest:
    """The manifest of a run on S3."""
    found = Store(output).manifest()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def known() -> dict[str, dict[tuple[str, str], str]]:
    """The results of `undisturbed`, by input paths."""
    return {}


@pytest.fixture
def undisturbed(project: Path, known: dict[str, dict[tuple[str, str], str]]) -> Undisturbed:
    """sha256 of every file of a run over the same input into a local directory, without faults."""

    def hashes_of(paths: str) -> dict[tuple[str, str], str]:
        if paths not in known:
            called = run(*settings(paths, "undisturbed"))
            assert (called.code, called.err) == (0, "")
            known[paths] = hashes(manifest("undisturbed"))
            assert len(known[paths]) == FILES * OUTPUTS
        return known[paths]

    return hashes_of


# Faults that pass


def reads(method: str, path: str) -> bool:
    return method == "GET" and "list-type" not in path


def lists(method: str, path: str) -> bool:
    return method == "GET" and "list-type" in path


def writes(method: str, path: str) -> bool:
    return method == "PUT"


def heads(method: str, path: str) -> bool:
    return method == "HEAD"


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_run_through_faults_equals_an_undisturbed_run(
    s3: Any, proxy: Proxy, out: str, undisturbed: Undisturbed, suffix: str
) -> None:
    """Reads, listings, HEAD requests and writes fail with 500, are throttled, or lose their connection."""
    faults = [
        Fault("500", reads, every=5, limit=3),
        Fault("503", reads, every=4, limit=3),
        Fault("cut", reads, every=3, limit=4),
        Fault("500", lists, every=2, limit=2),
        Fault("cut", lists, every=2, limit=2),
        Fault("503", writes, every=6, limit=4),
        Fault("500", writes, every=7, limit=4),
        Fault("cut", writes, every=8, limit=4),
        Fault("500", heads, every=6, limit=4),
        Fault("cut", heads, every=5, limit=4),
    ]
    proxy.faults = faults
    remote = run(*settings(f"s3://bucket/in/*.{suffix}", out))
    assert (remote.code, remote.err) == (0, "")
    assert [fault.struck for fault in faults] == [fault.limit for fault in faults]
    proxy.reset()
    assert hashes(stored(s3, out)) == undisturbed(f"s3://bucket/in/*.{suffix}")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_reading_does_not_depend_on_the_clients_retries(
    proxy: Proxy, s3: Any, undisturbed: Undisturbed, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    def reads_input(method: str, path: str) -> bool:
        return reads(method, path) and "/in/" in path

    fault = Fault("500", reads_input, every=2, limit=3)
    proxy.faults = [fault]
    called = run(*settings(f"s3://bucket/in/*.{suffix}", "out"))
    assert (called.code, called.err) == (0, "")
    assert fault.struck == 3
    proxy.reset()
    assert hashes(manifest()) == undisturbed(f"s3://bucket/in/*.{suffix}")


# Faults that stay


@pytest.mark.usefixtures("impatient")
def test_a_file_that_cannot_be_read_is_quarantined_and_the_next_run_reads_it(
    s3: Any, proxy: Proxy, out: str, undisturbed: Undisturbed
) -> None:
    where = settings("s3://bucket/in/*.jsonl", out)
    proxy.faults = [Fault("cut", lambda method, path: reads(method, path) and "/in/part-1.jsonl" in path)]
    called = run(*where)
    assert (called.code, called.err) == (ExitCode.QUARANTINED, "")
    first = stored(s3, out)
    committed, before = hashes(first), paths(first)
    (entry,) = first.quarantine
    assert entry.source == "s3://bucket/in/part-1.jsonl"
    assert entry.reason.endswith("(retries exhausted)")
    assert {p.source for p in first.partitions} == {f"s3://bucket/in/part-{n}.jsonl" for n in (0, 2)}
    assert entry.reason in called.out.replace("\n", " ")

    proxy.reset()
    assert run(*where).code == 0
    second = stored(s3, out)
    assert hashes(second) == undisturbed("s3://bucket/in/*.jsonl")
    assert second.quarantine == []
    assert committed.items() <= hashes(second).items()
    assert before == {file: path for file, path in paths(second).items() if file in before}


@pytest.mark.usefixtures("impatient")
def test_a_store_that_refuses_all_writes_is_one_line_and_the_next_run_resumes(
    s3: Any, proxy: Proxy, out: str, undisturbed: Undisturbed
) -> None:
    where = settings("s3://bucket/in/*.jsonl", out)
    proxy.faults = [Fault("503", writes)]
    called = run(*where)
    assert called.code == ExitCode.FAILED
    assert called.line == f"{out}/.lock: [Errno 16] Please reduce your request rate."
    proxy.reset()
    assert run(*where).code == 0
    assert hashes(stored(s3, out)) == undisturbed("s3://bucket/in/*.jsonl")


@pytest.mark.usefixtures("impatient")
def test_a_store_that_begins_to_refuse_writes_ends_the_run_and_nothing_is_lost(
    s3: Any, proxy: Proxy, out: str, undisturbed: Undisturbed
) -> None:
    """No partition is quarantined: the partitions are not the cause."""
    where = settings("s3://bucket/in/*.jsonl", out)
    proxy.faults = [Fault("500", lambda method, path: writes(method, path) and "/tokens/" in path, after=2)]
    called = run(*where)
    assert called.code == ExitCode.FAILED
    assert called.line.startswith(f"{out}/tokens/part-1-")
    assert called.line.endswith("We encountered an internal error. Please try again.")
    proxy.reset()
    assert run(*where).code == 0
    assert hashes(stored(s3, out)) == undisturbed("s3://bucket/in/*.jsonl")


@pytest.mark.usefixtures("impatient")
def test_writing_does_not_depend_on_the_clients_retries(
    s3: Any, proxy: Proxy, out: str, undisturbed: Undisturbed
) -> None:
    faults = [Fault("500", writes, every=3, limit=5), Fault("500", heads, every=4, limit=5), Fault("500", reads, 4, 5)]
    proxy.faults = faults
    called = run(*settings("s3://bucket/in/*.jsonl", out))
    assert (called.code, called.err) == (0, "")
    assert [fault.struck for fault in faults] == [5, 5, 5]
    proxy.reset()
    assert hashes(stored(s3, out)) == undisturbed("s3://bucket/in/*.jsonl")


@pytest.mark.usefixtures("impatient")
def test_a_store_that_fails_during_planning_is_one_line_and_writes_nothing(proxy: Proxy, out: str) -> None:
    proxy.faults = [Fault("500", lambda method, path: reads(method, path) and "/in/part-2.parquet" in path)]
    called = run(*settings("s3://bucket/in/*.parquet", out))
    assert called.code == ExitCode.FAILED
    assert called.line.startswith("s3://bucket/in/part-2.parquet: ")
    assert called.line.endswith("We encountered an internal error. Please try again. (retries exhausted)")
    assert not any("/out/records/" in path and method == "PUT" for method, path in proxy.requests)


@pytest.mark.parametrize("path", ["in/*.jsonl", "in", "in/part-0.jsonl"])
@pytest.mark.usefixtures("impatient")
def test_a_store_that_cannot_be_listed_is_one_line(proxy: Proxy, s3: Any, path: str) -> None:
    """The error is never `no such file`, which would be false."""
    proxy.faults = [Fault("500")]
    called = colophon("run", "recipe.toml", "--dry-run", *settings(f"s3://bucket/{path}", "out"))
    assert called.code == ExitCode.USAGE
    assert called.line.startswith(f"recipe.toml: input.paths: s3://bucket/{path}: cannot be listed: ")
    assert not Path("out").exists()


def test_an_unreachable_store_is_one_line(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    fsspec.filesystem("s3").clear_instance_cache()
    called = run(*settings("s3://bucket/in/*.jsonl", "out"))
    fsspec.filesystem("s3").clear_instance_cache()
    assert called.code == ExitCode.USAGE
    assert "Could not connect to the endpoint URL" in called.line


# The number of requests


def test_ten_thousand_files_are_planned_with_few_requests(s3: Any, proxy: Proxy) -> None:
    for number in range(LISTED):
        put_object("bucket", f"many/{number:05}.jsonl", b'{"text": "a"}\n')
    partitions = resolved_recipe("input.paths=s3://bucket/many").inputs.partitions
    assert len({partition.name for partition in partitions}) == LISTED
    assert {partition.bytes for partition in partitions} == {14}
    assert len(proxy.requests) <= LISTED // 1000 + 5


def requests_of(proxy: Proxy, *arguments: str) -> Counter[str]:
    """The requests of a run, by kind, without those that read the input."""
    proxy.reset()
    called = run(*arguments)
    assert (called.code, called.err) == (0, "")
    counted = Counter("list" if lists(*r) else r[0] for r in proxy.requests if "in-" not in r[1])
    beats = sum(method == "HEAD" and path.endswith("/.lock") for method, path in proxy.requests) - 1
    return counted - Counter(dict.fromkeys(("HEAD", "GET", "PUT"), beats))  # one each 10 s, and each of three requests


def test_a_resume_costs_the_same_requests_for_any_number_of_partitions(
    s3: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One listing of the records and of each output for 1,000 objects, one read for each segment.

    The numbers are in docs/reliability.md.
    """
    monkeypatch.setattr("colophon.pipeline.storage.ledger.SEGMENT_SECONDS", 3600)  # none for the time of a run
    first, again = {}, {}
    for number in (2, 8):
        for file in range(number):
            put_object("bucket", f"in-{number}/part-{file}.jsonl", json_lines(file))
        where = settings(f"s3://bucket/in-{number}/*.jsonl", f"s3://bucket/counted-{number}")
        first[number], again[number] = requests_of(proxy, *where), requests_of(proxy, *where)
    assert again[2] == again[8]
    assert again[8]["list"] <= 2 + OUTPUTS + 10, (
        "records twice, each output, the head five times, tables, missing files"
    )
    assert again[8].total() <= 51
    more = {kind: (first[8][kind] - first[2][kind]) / 6 for kind in first[8]}
    assert more["PUT"] == OUTPUTS + 2, "each file, and a record for each of two passes"
    assert more["list"] == more["POST"] == 0, "records are deleted 1,000 at a time"
    assert sum(more.values()) == OUTPUTS + 2 + 4, "packing reads two files, and the lock is read before each record"


def test_a_listing_and_a_request_give_the_same_size_and_identity(s3: Any) -> None:
    """Otherwise a file would appear changed after it was read."""
    listed = resolved_recipe("input.paths=s3://bucket/in/*.jsonl").inputs.partitions
    requested = [resolved_recipe(f"input.paths={p.source}").inputs.partitions[0] for p in listed]
    assert [(p.bytes, p.identity) for p in listed] == [(p.bytes, p.identity) for p in requested]
    assert len({p.identity for p in listed}) == FILES


# The hub


@pytest.fixture
def hub(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the repository `some/data`: JSON lines in `data`, in pages of two; this process has its token."""
    pytest.importorskip("huggingface_hub")
    files = {f"data/part-{file}.jsonl": json_lines(file) for file in range(FILES)}
    with hub_serving(Hub("some/data", files | {"README.md": b"#"}, token=TOKEN, page=2)) as hub:
        for name, value in {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
        # The library read its variables when it was imported, maybe by a test that works without the network.
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": hub.address})
        monkeypatch.setattr("huggingface_hub.utils._http.time", types.SimpleNamespace(sleep=lambda seconds: None))
        fsspec.filesystem("hf").clear_instance_cache()
        yield hub
        fsspec.filesystem("hf").clear_instance_cache()


@pytest.mark.parametrize("signed", [None, SIGNATURE], ids=["direct", "redirected"])
def test_a_run_from_the_hub(hub: Hub, signed: str | None) -> None:
    """In a separate process, which finds the hub by `HF_ENDPOINT`."""
    hub.signed = signed
    where = settings("hf://datasets/some/data/data/*.jsonl", "out")
    code, out, err = call("run", "recipe.toml", "--executor", "inline", *where)
    assert (code, err) == (0, "")
    made = manifest()
    assert {p.source for p in made.partitions} == {f"hf://datasets/some/data/{name}" for name in hub.files} - {
        "hf://datasets/some/data/README.md"
    }
    assert made.outputs["tokens"].records
    assert sum(record.rows for record in made.outputs["tokens"].records) == FILES * ROWS
    again = call("run", "recipe.toml", "--executor", "inline", *where)
    assert again[0] == 0
    assert "up to date" in again[1]
    assert_no_secret([TOKEN, SIGNATURE], [out, err, *again[1:]])


@pytest.mark.parametrize("path", ["data", "data/part-1.jsonl", "**/*.jsonl"])
def test_paths_of_the_hub(hub: Hub, path: str) -> None:
    found = resolved_recipe(f"input.paths=hf://datasets/some/data/{path}").inputs.partitions
    assert len(found) == (1 if path.endswith("part-1.jsonl") else FILES)
    assert {p.bytes for p in found} <= {len(json_lines(file)) for file in range(FILES)}


def test_a_changed_file_of_the_hub_has_a_different_identity_at_the_same_size(hub: Hub) -> None:
    path = "input.paths=hf://datasets/some/data/data/part-0.jsonl"
    (before,) = resolved_recipe(path).inputs.partitions
    hub.files["data/part-0.jsonl"] = hub.files["data/part-0.jsonl"].replace(b"line", b"LINE")
    fsspec.filesystem("hf").clear_instance_cache()
    (after,) = resolved_recipe(path).inputs.partitions
    assert (before.name, before.bytes) == (after.name, after.bytes)
    assert before.identity != after.identity


def test_a_run_from_the_hub_through_faults(hub: Hub, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = "hf://datasets/some/data/data/*.jsonl"
    expected = undisturbed(paths)
    with proxy_before(hub.address) as proxy:
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": proxy.address})
        hub.address = proxy.address
        proxy.faults = [
            Fault("500", lambda method, path: path.startswith("/api/"), every=2, limit=3),
            Fault("503", lambda method, path: "/resolve/" in path, every=2, limit=2),
            Fault("cut", lambda method, path: "/resolve/" in path, every=3, limit=2),
        ]
        called = run(*settings(paths, "out"))
        assert called.code == 0
        assert [fault.struck for fault in proxy.faults] == [3, 2, 2]
        assert hashes(manifest()) == expected


@pytest.mark.parametrize("path", ["data/*.jsonl", "data"])
def test_a_private_repository_without_access_is_one_line(hub: Hub, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    called = run(*settings(f"hf://datasets/some/data/{path}", "out"))
    assert called.code == ExitCode.USAGE
    assert "cannot be listed: " in called.line
    assert "make sure you are authenticated" in called.line
    assert "hf_other" not in called.line


# Secrets


def assert_no_secret(secrets: Sequence[str], texts: Sequence[str], *, files: Sequence[bytes] = ()) -> None:
    """No secret is in the printed texts or in any file of the working directory, inputs and recipe included."""
    written = [path.read_bytes() for path in Path().rglob("*") if path.is_file()]
    assert written
    for secret in secrets:
        assert not [text for text in texts if secret in text]
        assert not [data for data in (*written, *files) if secret.encode() in data]


@pytest.mark.usefixtures("impatient")
def test_keys_of_the_store_are_never_shown(s3: Any, proxy: Proxy, out: str) -> None:
    s3.pipe_file("bucket/broken/part-3.jsonl", b"broken\n")
    proxy.faults = [Fault("500", lambda method, path: reads(method, path) and "/in/part-1.jsonl" in path)]
    where = settings('["s3://bucket/in/*.jsonl", "s3://bucket/broken/part-3.jsonl"]', out)
    called = [run(*where)]
    proxy.reset()
    called.append(colophon("verify", "recipe.toml", *where))
    proxy.faults = [Fault("500")]
    called.append(colophon("--debug", "run", "recipe.toml", "--executor", "inline", *where))
    proxy.reset()
    assert "We encountered an internal error. Please try again. (retries exhausted)" in called[0].out
    assert [c.code for c in called] == [ExitCode.QUARANTINED, 0, ExitCode.FAILED]
    files = [s3.cat_file(path) for path in s3.find(out)]
    assert len(files) > 2 * OUTPUTS
    assert_no_secret([KEY, SECRET], [text for c in called for text in (c.out, c.err)], files=files)


@pytest.mark.parametrize(("status", "reason"), [(403, "403 Forbidden"), (500, "/signed/data/part-0.jsonl?***'")])
def test_a_signed_address_that_fails_is_shown_without_its_signature(hub: Hub, status: int, reason: str) -> None:
    hub.signed, hub.signed_status = SIGNATURE, status
    called = run(*settings("hf://datasets/some/data/data/part-0.jsonl", "out"))
    assert called.code == ExitCode.QUARANTINED
    (entry,) = quarantine()
    assert reason in entry.reason
    assert_no_secret([TOKEN, SIGNATURE], [called.out])


@pytest.mark.parametrize("key", ["input.paths", "output.path"])
@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIASOMEBODY:pa55/word@bucket/x.parquet",
        "https://user:pa55word@127.0.0.1/x.parquet",
        "https://127.0.0.1/x.parquet?X-Amz-Credential=a&X-Amz-Signature=pa55word",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(project: Path, key: str, url: str) -> None:
    called = run("--set", f"{key}={url}")
    assert called.code == ExitCode.USAGE
    assert "must not hold a secret: it " in called.line
    assert "pa55" not in called.err + called.out
    assert not Path("out").exists()
