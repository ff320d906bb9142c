"""Addresses that could run something, read through something else or hold a secret: refused before fsspec is asked."""

from __future__ import annotations

import ast
import inspect
import io
import json
import logging
import socket
import threading
import traceback
import typing
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import fsspec.core
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from colophon.annotators.registry import found, offers
from colophon.pipeline import cli
from colophon.pipeline.cli.options import local_file, local_only
from colophon.pipeline.cli.terminal import GuardedStream
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.on_ray.address import check_cluster_address, job_server_url
from colophon.pipeline.inputs.training_texts import read_texts
from colophon.pipeline.recipe.loading import load_recipe
from colophon.shards.common.errors import ColophonError
from colophon.shards.stores.addresses import PROTOCOLS, check_address, check_local
from colophon.shards.stores.filesystems import filesystem_of
from tests.pipeline.project import colophon, manifest, quarantine, resolved_recipe, run

ROOT = Path(__file__).parents[2]
KEYS = (
    *("input.paths", "output.path", "tokenizer.path", "annotators.topic.model", "train.tiny.validation_output"),
    *("ray.address", "output.local_path", "train.tiny.cache_directory", "train.tiny.sources.0.output"),
    *("annotators.tags.endpoint", "annotators.tags.cache"),
)
FORBIDDEN = (
    *("reference://x", "reference://**::file:///x/evil.json", "simplecache::s3://b/x.jsonl", "a::https://h/x.jsonl"),
    *("zip://x.jsonl::memory://a.zip", "github://o:r@main/x", "data:x://y", "file://x::reference://y", "S3://b/x"),
    *("dask://x", "git://x", "python://x", "sftp://h/x", "dir://x", "generic://x", "blockcache://x", "http:/h/x"),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The protocols that fsspec is asked for."""
    protocols: list[str] = []

    def get(protocol: str) -> Any:
        protocols.append(protocol)
        raise AssertionError(protocol)

    for module in (fsspec, fsspec.core):
        monkeypatch.setattr(module, "get_filesystem_class", get)
    return protocols


def overrides(key: str, address: str) -> list[str]:
    tags = ["annotators.tags.type=llm_tags", "annotators.tags.model=small"]
    others = {
        "annotators.topic.model": ["annotators.topic.type=fasttext", "annotators.topic.score={argmax=true}"],
        "annotators.tags.endpoint": tags,
        "annotators.tags.cache": [*tags, 'annotators.tags.endpoint="http://127.0.0.1:8000/v1"'],
    }
    if key == "train.tiny.sources.0.output":
        return [f'train.tiny.sources=[{{layout="plain", output={json.dumps(address)}}}]', 'train.tiny.layout="plain"']
    return [*others.get(key, []), f"{key}={json.dumps(address)}"]


@pytest.mark.parametrize("key", KEYS)
def test_no_key_of_a_recipe_takes_a_forbidden_address(project: Path, asked: list[str], key: str) -> None:
    for address in FORBIDDEN:
        with pytest.raises(UsageError, match=f"^recipe.toml: {key.removesuffix('.model')}"):
            load_recipe("recipe.toml", overrides=overrides(key, address))
    assert asked == []


def test_a_chain_without_a_protocol_is_refused_unless_a_local_file_has_this_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not contain '::', which chains protocols"):
        check_address("a::b")
    (tmp_path / "a::b.jsonl").touch()
    assert check_address(str(tmp_path / "a::b.jsonl"))


@pytest.mark.parametrize(
    "address",
    [
        *("data/*.parquet", "/a b/c?", "~/x", "file:///x", "file:/x", "local://x", "s3://b/*.jsonl", "gs://b/**"),
        *(
            "hf://datasets/a/b@main/*.parquet",
            "https://h/x.jsonl?download=true",
            "memory://x",
            "abfss://con@acc.x.net/",
        ),
    ],
)
def test_addresses_of_local_files_and_stores_are_accepted(address: str) -> None:
    assert check_address(address) == address


def test_a_model_or_a_vocabulary_is_a_local_file() -> None:
    assert check_local("file:///x.bin") == "file:///x.bin"
    with pytest.raises(ValueError, match="must be a local path, not s3://"):
        check_local("s3://b/x.bin")


def test_every_path_option_of_a_command_is_checked() -> None:
    """Typer turns each option of the type Path into a path, whatever it was."""
    unchecked, checks = [], (local_only, local_file)
    for command in cli.app.registered_commands:
        assert command.callback is not None
        hints = typing.get_type_hints(command.callback, include_extras=True)
        for name in inspect.signature(command.callback).parameters:
            kind, *notes = typing.get_args(hints[name]) if hasattr(hints[name], "__metadata__") else (hints[name],)
            if Path in (kind, *typing.get_args(kind)) and not any(note.callback in checks for note in notes):
                unchecked.append(f"{command.callback.__name__}.{name}")
    assert unchecked == []


@pytest.mark.parametrize(
    "arguments",
    [
        *(["export", "recipe.toml", "--to", "{}"], ["export-model", "recipe.toml", "--name", "tiny", "--to", "{}"]),
        *(["lm-eval", "{}", "--tasks", "x"], ["demo-corpus", "--output", "{}"], ["run", "{}"], ["status", "{}"]),
        *(["train-classifier", "--train", "{}", "--output", "m.bin"], ["plot", "recipe.toml", "--to", "{}"]),
        *(["train-classifier", "--train", "x", "--output", "{}"], ["submit", "recipe.toml", "--address", "{}"]),
        ["submit", "recipe.toml", "--address", "http://127.0.0.1:1", "--working-dir", "{}"],
        ["convert", "{}", "--layout", "plain", "--to", "npy", "--output", "converted"],
        *(["init", "{}"], ["init", "data", "--to", "{}"], ["init", "data", "--to", "a.toml", "--output", "{}"]),
    ],
)
def test_no_argument_takes_a_forbidden_address_or_repeats_a_secret(
    project: Path, asked: list[str], arguments: list[str]
) -> None:
    before = sorted(Path().rglob("*"))
    for address in ("reference://x", "zip::file:///x", "https://user:pa55word@h/x.jsonl"):
        called = colophon(*(word.format(address) for word in arguments), *submitted(arguments))
        assert (called.code, asked) == (2, []), called.err
        assert "pa55" not in called.err + called.out
    assert sorted(Path().rglob("*")) == before


def submitted(arguments: list[str]) -> list[str]:
    """Settings without which a submission is refused for a different reason."""
    return ["--set", "output.path=/shared/out", "--no-install"] if arguments[0] == "submit" else []


def test_texts_to_train_on_are_checked_like_input(asked: list[str]) -> None:
    with pytest.raises(UsageError, match=r"training files: .*the protocol 'reference' is not supported"):
        list(read_texts(["reference://x"], text="text", max_bytes=1))
    assert asked == []


def test_a_store_that_a_record_names_is_checked_again(asked: list[str]) -> None:
    for url in ("reference://x", "zip://x::s3://b", "x"):
        with pytest.raises(ColophonError, match="a protocol that is not supported"):
            filesystem_of(url)
    assert asked == []


def test_fsspec_is_asked_for_file_systems_in_one_place() -> None:
    asking = (
        "filesystem",
        "open",
        "open_files",
        "url_to_fs",
        "get_filesystem_class",
        "get_mapper",
        "get_fs_token_paths",
    )
    found = set()
    for package in ("annotators", "pipeline", "shards", "trainer"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_attribute = isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("fsspec", "fsspec.core")
                named = {node.attr} if isinstance(node, ast.Attribute) and is_attribute else set()
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fsspec"):
                    named = {alias.name for alias in node.names}
                if named & {*asking}:
                    found.add(str(path.relative_to(ROOT)))
    assert found == {"shards/stores/filesystems.py"}


def test_protocols_that_read_through_others_are_not_on_the_list() -> None:
    risky = ("reference", "simplecache", "filecache", "blockcache", "cached", "zip", "tar", "libarchive", "dir", "git")
    risky += ("github", "gist", "dask", "jupyter", "generic", "async_wrapper", "data", "dvc", "pyscript", "smb", "ssh")
    assert set(risky).isdisjoint(PROTOCOLS)


@pytest.mark.parametrize("address", ["antigravity://head:1", "http://h:1", "os://x", "https://user:pa55word@h:1"])
def test_ray_imports_no_module_that_an_address_names(address: str) -> None:
    with pytest.raises(UsageError, match=r"must be HOST:PORT, ray://HOST:PORT or auto") as caught:
        check_cluster_address(address, where="RAY_ADDRESS")
    assert "pa55" not in str(caught.value)
    if not address.startswith("http://"):
        with pytest.raises(UsageError, match=r"--address:? must (be http|not hold a secret)"):
            job_server_url(address)


# Keys of a store


def test_keys_of_a_store_that_look_like_chains_are_read_as_keys(project: Path) -> None:
    store = MemoryFileSystem()
    names = ["a::b", "reference::x", "memory:::c", "a\nb", "a\x1b[31mb", "q?x=1", "f#g", "zip:a", "percent%3A%3A", "ü"]
    for name in names:
        store.pipe_file(f"/keys/{name}.jsonl", json.dumps({"text": f"in {name}", "url": "https://e.org/"}).encode())
    called = run("--set", "input.paths=memory://keys")
    assert (called.code, called.err) == (3, "")
    assert "\x1b" not in called.out
    # fsspec's store in memory has no keys with `::`
    chains = {f"memory://keys/{name}.jsonl" for name in names if "::" in name}
    assert {entry.source for entry in quarantine()} == chains
    assert {p.source for p in manifest().partitions} == {f"memory://keys/{name}.jsonl" for name in names} - chains


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("s3://bucket/a::b.jsonl", "bucket/a::b.jsonl"),
        ("s3://bucket/reference://x::file:///y", "bucket/reference://x::file:///y"),
        ("https://h/a::b.jsonl", "https://h/a::b.jsonl"),
    ],
)
def test_the_keys_of_a_store_are_not_read_as_chains(url: str, path: str) -> None:
    filesystem, found = filesystem_of(url)
    assert found == path
    assert type(filesystem).__name__ in ("S3FileSystem", "HTTPFileSystem")


@pytest.mark.parametrize(
    ("protocol", "remedy"),
    [("gs", "gs:// needs the package gcsfs: pip install 'colophon[gcs]'"), ("oss", "oss://: Install ossfs")],
)
def test_a_store_whose_library_is_missing_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, remedy: str
) -> None:
    def missing(protocol: str) -> object:
        raise ImportError("Install ossfs")

    monkeypatch.setattr("colophon.shards.stores.filesystems.fsspec.get_filesystem_class", missing)
    for setting in ("input.paths", "output.path"):
        called = run("--set", f"{setting}={protocol}://bucket/x.parquet")
        assert called.code == 2
        assert called.line.endswith(remedy)


def test_a_web_server_that_says_nothing_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colophon.shards.stores.filesystems._SILENT_SECONDS", 0.05)
    monkeypatch.setattr("colophon.shards.stores.retry.PAUSES_SECONDS", (0.0,))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.parquet"
        called = run("--set", f"input.paths={address}")
    reason = "cannot be listed: Timeout on reading data from socket"
    assert (called.code, called.line) == (2, f"recipe.toml: input.paths: {address}: {reason}")


# Secrets

SECRET_SETTINGS = [
    'input.paths="{}"',
    'input.paths=["{}"',
    "input.paths={}",
    'input.path="{}"',
    'output.path="{}"',
    'tokenizer.path="{}"',
    'annotators.q.model="{}"',
    'train.tiny.validation_output="{}"',
    'train.tiny.wandb_project="{}"',
    'train.tiny.steps="{}"',
    'layouts.plain.template="{}"',
    'layouts.prepend-url.template="{}"',
    'input.columns.text="{}"',
    'input.columns="{}"',
    'input.columns={{"{}"=1}}',
    'nope.a.b="{}"',
    '"{}"=1',
    "{}",
    "{}=1",
    'ray.address="{}"',
    'pack="{}"',
]


@pytest.mark.parametrize("setting", SECRET_SETTINGS)
def test_a_secret_in_any_place_of_a_recipe_is_refused_and_not_repeated(project: Path, setting: str) -> None:
    for url in ("http://u:pa55@127.0.0.1:1/x.jsonl", "https://pa55@h/x", "https://h/x.jsonl?private_token=pa55"):
        with pytest.raises(UsageError) as caught:
            load_recipe("recipe.toml", overrides=[setting.format(url)])
        assert "pa55" not in str(caught.value)
    called = colophon("--debug", "run", "recipe.toml", "--executor", "inline", "--set", setting.format(url))
    assert called.code == 2
    assert "pa55" not in called.err + called.out


@pytest.mark.parametrize("line", ['"{}" = 1', 'x = "{}', "[{}]", '[a."{}"]\nb = 1', 'a = ["{}", 1', 'a = "{}"\na = 1'])
def test_a_secret_in_a_broken_recipe_is_not_repeated(project: Path, line: str) -> None:
    for url in ("http://u:pa55@127.0.0.1:1/x.jsonl", "https://us er:pa55@h/x", "https://h/x.jsonl?private_token=pa55"):
        Path("broken.toml").write_text(line.format(url) + "\n" + Path("recipe.toml").read_text())
        with pytest.raises(UsageError) as caught:
            load_recipe("broken.toml")
        assert "pa55" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [["{}"], ["run", "--{}"], ["run", "recipe.toml", "{}"], ["run", "--executor", "{}"]]
)
def test_the_parser_of_arguments_does_not_repeat_a_secret(project: Path, arguments: list[str]) -> None:
    """It cuts its messages into lines, which nothing later could mask."""
    url = f"https://somebody:{'pa55' * 30}@example.org/x.jsonl"
    called = colophon(*(word.format(url) for word in arguments))
    assert called.code == 2
    assert "pa55" not in called.err + called.out


class Site(BaseHTTPRequestHandler):
    """`x.jsonl`, of which `version` chooses one, and `moved.jsonl`, which redirects to a signed address that fails."""

    addition = ""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if "moved" in self.path and self.command == "GET":
            self.send_response(302)
            self.send_header("Location", "/signed.jsonl?X-Amz-Signature=pa55word")
            self.end_headers()
        elif "signed" in self.path:
            self.send_response(403)
            self.end_headers()
        else:
            content = json.dumps({"text": self.path + self.addition, "url": "https://e.org/"}).encode() + b"\nbroken\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_records_keep_an_address_without_its_query_and_two_queries_are_two_partitions(
    project: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [f"{site}/x.jsonl?version={number}" for number in (1, 2)]
    called = run("--set", f"input.paths={json.dumps(urls)}")
    assert called.code == 3
    made = manifest()
    assert [partition.source for partition in made.partitions] == [f"{site}/x.jsonl"] * 2
    assert len({partition.name for partition in made.partitions}) == 2
    assert [record.rows for record in made.outputs["tokens"].records] == [1, 1]
    assert [(entry.source, entry.line) for entry in quarantine()] == [(f"{site}/x.jsonl", 2)] * 2
    assert len({entry.partition for entry in quarantine()}) == 2
    made_files = (path for path in Path("out").rglob("*") if path.is_file() and path.name != "manifest.json")
    assert not [path for path in made_files if b"version=" in path.read_bytes() or "version" in path.name]
    assert "version=" not in called.out
    assert json.loads(Path("out/report/summary.json").read_text())["documents"]["files"] == 2
    verified = colophon("verify", "recipe.toml", "--set", f"input.paths={json.dumps(urls)}")
    assert (verified.code, verified.err) == (0, "")
    monkeypatch.setattr(Site, "addition", " that is longer")
    verified = colophon("verify", "recipe.toml", "--set", f"input.paths={json.dumps(urls)}")
    assert verified.code == 1
    assert verified.err.count("has changed since it was processed") == 2


def test_a_web_server_that_refuses_a_file_is_named(project: Path, site: str) -> None:
    refused = run("--set", f'input.paths="{site}/signed.jsonl"')
    assert refused.code == 2
    assert f"{site}/signed.jsonl: cannot be read: the server answers 403" in refused.err


def test_the_signed_target_of_a_redirect_is_masked(project: Path, site: str) -> None:
    arguments = ["--debug", "run", "recipe.toml", "--executor", "inline"]
    called = colophon(*arguments, "--set", f"input.paths={site}/moved.jsonl")
    assert called.code == 3
    assert "signed.jsonl?***" in called.out
    assert "pa55" not in called.err + called.out + "".join(entry.reason for entry in quarantine())


def test_chained_tracebacks_and_lines_of_libraries_are_masked() -> None:
    stream = io.StringIO()
    error = GuardedStream(stream, name="stderr")
    try:
        try:
            raise OSError("403, url='https://h/signed?X-Amz-Signature=pa55word'")
        except OSError as cause:
            raise RuntimeError("ftp://user:pa55word@h/x failed") from cause
    except RuntimeError:
        traceback.print_exc(file=error)
    logger = logging.Logger("library")
    logger.addHandler(logging.StreamHandler(error))
    logger.warning("Redirected to %s", "https://user:pa55word@h/x")
    shown = stream.getvalue()
    assert "403, url='https://h/signed?***'" in shown
    assert shown.endswith("Redirected to https://***@h/x\n")
    assert [line for line in shown.splitlines() if "pa55" in line and not line.startswith("    ")] == []


def test_the_annotators_name_their_files_so_that_they_are_checked() -> None:
    for config in (found(offer.name, offers()) for offer in offers()):
        assert config is not None
        named = {name for name in config.model_fields if name in ("model", "path", "file", "vocabulary")}
        named -= {"model"} if "endpoint" in config.model_fields else set()  # a name that a server knows
        assert named <= set(config.path_fields)


def test_a_recipe_with_harmless_query_keys_is_loaded(project: Path) -> None:
    paths = ["https://h/x.jsonl?download=true", "s3://b/k.parquet?versionId=3.a"]
    assert load_recipe("recipe.toml", overrides=[f"input.paths={json.dumps(paths)}"]).input.paths == paths
    assert resolved_recipe("output.path=s3://bucket/a@b").recipe.output.path == "s3://bucket/a@b"
