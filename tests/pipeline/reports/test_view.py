"""`colophon view`: searches agree with the files, pages and texts are whole, and the server answers its page alone."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.reports.view import documents as numbering
from colophon.pipeline.reports.view.calls import Calls
from colophon.pipeline.reports.view.documents import Documents
from colophon.pipeline.reports.view.listing import LONGEST_TEXT
from colophon.pipeline.reports.view.search import Running, SupersededError
from colophon.pipeline.reports.view.server import ViewServer
from colophon.pipeline.reports.view.texts import Decoder
from colophon.shards.common.errors import TokenizerError
from colophon.shards.run_output import RunOutput, open_run
from colophon.shards.schema import ROLE_NAMES
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from tests.pipeline.project import colophon, snapshot
from tests.pipeline.small_run import run_recipe, write_small_run
from tests.shards.tokenizer import kinds
from tests.view_server import served

OWN = """
[annotators.own]
type = "columns"
[annotators.own.columns]
topic = {}
day = { type = "date" }
number = { type = "number" }
"""
LONG = "läng " * 30_000
TOPICS = ("Art", "art history", None)


def text_of(number: int) -> str:
    return LONG if number == 70 else f"Document {number}. " + "Größe und LÄNGE. " * (number % 17)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunOutput:
    """A run of two files, several partitions, a long document, and columns of each type."""
    root = tmp_path_factory.mktemp("view")
    recipe = write_small_run(root, num_files=0)
    recipe.write_text(recipe.read_text() + OWN)
    for file in range(2):
        rows = [
            {
                "text": text_of(i),
                "id": f"<{i}>",
                "url": f"https://site{i % 7}.example.org/page/{i}",
                "dump": f"CC-MAIN-20{13 + i % 10}-05",
                "topic": TOPICS[i % 3],
                "day": f"20{10 + i % 9}-0{1 + i % 9}-15",
                "number": [0.5, -1.0, float("nan"), None][i % 4],
            }
            for i in range(60 * file, 60 * (file + 1))
        ]
        pq.write_table(pa.Table.from_pylist(rows), root / "data" / f"part-{file}.parquet", row_group_size=20)
    run_recipe(recipe, output=root / "out")
    return open_run(root / "out")


def tokenizer_of(run: RunOutput) -> Tokenizer:
    config = TokenizerConfig(path=str(run.path.parent / "bytes.tiktoken"), pattern="gpt2")
    return load_tokenizer(config)


@pytest.fixture(scope="module")
def calls(run: RunOutput) -> Calls:
    return Calls(run, load_tokenizer=lambda: tokenizer_of(run))


def answers(calls: Calls, name: str, **body: Any) -> list[dict[str, Any]]:
    return list(calls.answers(name, json.dumps(body).encode()))


def answer(calls: Calls, name: str, **body: Any) -> dict[str, Any]:
    (found,) = answers(calls, name, **body)
    return found


def search(calls: Calls, **body: Any) -> tuple[list[int], dict[str, Any]]:
    """The numbers of the documents that a search finds, and its end."""
    *messages, end = answers(calls, "search", page="test", **body)
    return [one["number"] for message in messages for one in message.get("documents", ())], end


def all_pages(calls: Calls, **body: Any) -> list[int]:
    found: list[int] = []
    while True:
        numbers, end = search(calls, after=found[-1] if found else -1, **body)
        found += numbers
        if end["is_complete"]:
            return found


# searches


@pytest.fixture(scope="module")
def annotations(run: RunOutput) -> list[dict[str, Any]]:
    return run.annotations().collect().to_dicts()


CONDITIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "values": ({"column": "topic", "any_of": ["Art"]}, lambda row: row["topic"] == "Art"),
    "no value": ({"column": "topic", "any_of": ["Art", None]}, lambda row: row["topic"] in ("Art", None)),
    "part of a string": ({"column": "topic", "contains": "ART"}, lambda row: "art" in (row["topic"] or "").lower()),
    "whole string": ({"column": "topic", "contains": "=Art"}, lambda row: row["topic"] == "Art"),
    "year": ({"column": "day", "any_of": [2012, 2014]}, lambda row: row["day"].year in (2012, 2014)),
    "days": (
        {"column": "day", "low": "2012-03-15", "high": "2013-12-31"},
        lambda row: "2012-03-15" <= str(row["day"]) <= "2013-12-31",
    ),
    "numbers": ({"column": "number", "low": 0}, lambda row: row["number"] is not None and row["number"] >= 0),
    "integer": ({"column": "crawl_year", "high": 2015}, lambda row: row["crawl_year"] <= 2015),
}


@pytest.mark.parametrize("kind", CONDITIONS)
def test_a_filter_finds_the_documents_that_meet_it(calls: Calls, annotations: list[dict[str, Any]], kind: str) -> None:
    chosen, meets = CONDITIONS[kind]
    expected = [number for number, row in enumerate(annotations) if meets(row)]
    assert 0 < len(expected) < len(annotations)
    assert all_pages(calls, filters=[chosen], limit=7) == expected


def test_filters_and_a_text_hold_together(calls: Calls, annotations: list[dict[str, Any]]) -> None:
    filters = [CONDITIONS["no value"][0], {"column": "url_host", "contains": "site3"}]
    rows = [n for n, row in enumerate(annotations) if row["topic"] in ("Art", None) and "site3" in row["url_host"]]
    expected = [n for n in rows if "länge" in text_of(n).lower()]
    assert 0 < len(expected) < len(rows)
    assert all_pages(calls, filters=filters, text="Länge", limit=3) == expected


def test_the_end_states_how_much_was_searched(calls: Calls) -> None:
    numbers, end = search(calls, text="document 5", limit=2)
    assert numbers == [5, 50]
    assert end == {"matching": 120, "searched": 51, "is_complete": False}
    numbers, end = search(calls, text="document 5", after=50)
    assert (numbers, end["is_complete"]) == ([51, 52, 53, 54, 55, 56, 57, 58, 59], True)


def test_small_blocks_find_the_same(run: RunOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [CONDITIONS["part of a string"][0]]
    whole = all_pages(Calls(run, load_tokenizer=lambda: tokenizer_of(run)), filters=chosen)
    monkeypatch.setattr(numbering, "ROWS_PER_BLOCK", 30)
    small = Calls(run, load_tokenizer=lambda: tokenizer_of(run))
    assert len(list(Documents(run).blocks(["topic"]))) > 2
    assert all_pages(small, filters=chosen) == whole


def test_a_line_shows_the_text_that_was_found(calls: Calls) -> None:
    (message, _) = answers(calls, "search", page="test", text="länge", limit=1)
    (line,) = message["documents"]
    before, found, after = line["snippet"]
    assert (line["id"], line["tokens"]) == ("<1>", len(text_of(1).encode()))
    assert (before + found + after, found) == (text_of(1), "LÄNGE")
    (message, _) = answers(calls, "search", page="test", after=69, limit=1)
    assert message["documents"][0]["snippet"] == ["", "", LONG[: len(message["documents"][0]["snippet"][2])]]


def test_a_newer_search_interrupts_the_one_of_its_page(calls: Calls) -> None:
    running = Running()
    first, other = running.begin("a"), running.begin("b")
    second = running.begin("a")
    running.end("a", first)
    assert (first.is_set(), second.is_set(), other.is_set()) == (True, False, False)
    running.interrupt()
    assert second.is_set()
    stopped = Event()
    messages = calls._searches.messages(_search(text="document"), interrupted=stopped)
    assert "documents" in next(messages)
    stopped.set()
    with pytest.raises(SupersededError):
        list(messages)


def _search(**body: Any) -> Any:
    from colophon.pipeline.reports.view.search import Search

    return Search(**body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"filters": [{"column": "topik", "contains": "x"}]}, "unknown column 'topik'; available: url, "),
        ({"filters": [{"column": "number", "contains": "x"}]}, "number: `contains` is for strings, and the column has"),
        ({"filters": [{"column": "topic", "any_of": [1]}]}, "topic: the column has values of type String, not 1"),
        ({"filters": [{"column": "crawl_year", "any_of": [True]}]}, "crawl_year: the column has values of type"),
        ({"filters": [{"column": "topic", "low": 1}]}, "topic: only numbers and dates have bounds"),
        ({"filters": [{"column": "number", "low": "x"}]}, "number: the bounds of a column of numbers are numbers"),
        ({"filters": [{"column": "day", "low": "x"}]}, "day: the bounds of a column of dates are days such as 2024"),
        ({"filters": [{"column": "topic", "regex": "x"}]}, "search: filters.0.regex: Extra inputs"),
        ({"limit": 1_000_000}, "search: limit: Input should be less than or equal to 200"),
        ({"text": "x" * 1_001}, "search: text: String should have at most 1000 characters"),
    ],
)
def test_a_wrong_search_is_one_line(calls: Calls, body: dict[str, Any], message: str) -> None:
    found = answer(calls, "search", page="test", **body)
    assert list(found) == ["error"]
    assert found["error"].startswith(message)
    assert "\n" not in found["error"]


def test_documents_that_an_annotator_has_no_file_of(run: RunOutput) -> None:
    outputs = run.manifest.outputs
    own = outputs["annotations/own"]
    missing = own.records[1].partition
    others = own.model_copy(update={"records": [*own.records[:1], *own.records[2:]]})
    partial = RunOutput(run.path)
    partial.__dict__["manifest"] = run.manifest.model_copy(update={"outputs": outputs | {"annotations/own": others}})
    calls = Calls(partial, load_tokenizer=lambda: tokenizer_of(run))
    found = all_pages(calls, filters=[CONDITIONS["no value"][0]])
    without = [n for n in range(120) if Documents(run).locate(n)[0] == missing]
    assert without
    assert found == [n for n in range(120) if n % 3 in (0, 2) and n not in without]
    columns = {one["column"] for one in answer(calls, "document", number=without[0])["annotations"]}
    assert "url" in columns
    assert "topic" not in columns


# documents


def test_every_text_is_that_of_the_input(calls: Calls) -> None:
    for number in (0, 16, 69, 119):
        found = answer(calls, "text", number=number)
        assert (found["text"], found["characters"]) == (text_of(number), len(text_of(number)))


def test_a_long_text_comes_in_parts(calls: Calls) -> None:
    parts, first = [], 0
    while first < len(LONG):
        part = answer(calls, "text", number=70, first=first)
        assert len(part["text"]) <= LONGEST_TEXT
        parts.append(part["text"])
        first = part["next"]
    assert "".join(parts) == LONG


@pytest.mark.parametrize("kind", ["tekken", *kinds.KEPT, *kinds.LOST])
def test_texts_of_every_kind_of_tokenizer_are_decoded(kind: str, tmp_path: Path) -> None:
    config = TokenizerConfig(name="tekken")  # its first ids are special
    if kind != "tekken":
        (kinds.KEPT | kinds.LOST)[kind][0]().save(str(tmp_path / "tokenizer.json"))
        config = TokenizerConfig(path=str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(config)
    texts = ["", "Größe of the 中 🙂", None, " a  b\n<tool> x", "the end"]
    ids = tokenizer.encode_batch(pa.array(texts))
    expected = [tokenizer.decode(one.values.to_numpy()) for one in ids]
    assert Decoder(tokenizer).decoded(ids).to_pylist() == expected


def test_an_id_without_a_token_is_an_error(run: RunOutput) -> None:
    ids = pa.array([[65], [255, 256]], pa.list_(pa.uint16()))
    with pytest.raises(TokenizerError, match="has the id 256"):
        Decoder(tokenizer_of(run)).decoded(ids)


@pytest.mark.parametrize("number", [3, 47, 70])
def test_the_sequences_of_a_document_hold_its_text(calls: Calls, run: RunOutput, number: int) -> None:
    for layout in run.manifest.layouts:
        dataset, own, place, num_places = run.packed(layout), [], 0, 1
        while place < min(num_places, 20):
            found = answer(calls, "sequence", number=number, layout=layout, place=place)
            parts, place, num_places = found["runs"], place + 1, found["sequences"]
            roles = dataset.rows([found["sequence"]]).roles[0]
            counts = Counter(ROLE_NAMES[role] for role in roles.tolist())
            assert Counter(name for part in parts for name in [part["role"]] * part["tokens"]) == counts
            own += [part for part in parts if (part["role"], part["document"]) == ("text", number)]
        assert (num_places > 20) == (number == 70)
        if number != 70:
            assert sum(part["tokens"] for part in own) == len(text_of(number).encode())
        if number == 3:  # of others, a sequence ends within a character
            assert "".join(part["text"] for part in own) == text_of(number)


def test_values_of_columns_are_those_of_the_report(calls: Calls) -> None:
    topic = answer(calls, "values", column="topic")
    assert (topic["kind"], topic["documents"], topic["known"]) == ("classes", 120, 80)
    assert topic["values"] == [["Art", "Art", 40], ["art history", "art history", 40]]
    assert answer(calls, "values", column="number")["bins"]
    assert answer(calls, "values", column="tpic")["error"].startswith("unknown column 'tpic'; available: ")
    columns = [one["name"] for one in answer(calls, "columns")["columns"]]
    assert columns[-1] in ("url", "url_suffix")  # the values of most documents differ
    assert columns.index("topic") < columns.index("url")


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("document", {"number": 120}, "there is no document 120; the run has 120, numbered from 0"),
        ("document", {"number": -1}, "there is no document -1"),
        ("text", {"number": "1"}, "text: number: Input should be a valid integer"),
        ("sequence", {"number": 1, "layout": "plane"}, "available: plain, prepend-url, append-host, meta-tokens. Did"),
        ("sequence", {"number": 1, "layout": "plain", "place": 9}, "plain has 1 sequences of document 1"),
    ],
)
def test_a_wrong_call_is_one_line(calls: Calls, name: str, body: dict[str, Any], message: str) -> None:
    assert message in answer(calls, name, **body)["error"]


def test_without_a_tokenizer_the_page_has_annotations_and_a_reason(run: RunOutput) -> None:
    def fail() -> Tokenizer:
        raise TokenizerError("the vocabulary is missing")

    calls = Calls(run, load_tokenizer=fail)
    columns = answer(calls, "columns")
    assert (columns["has_texts"], columns["reason"]) == (False, "the vocabulary is missing")
    assert all_pages(calls, filters=[CONDITIONS["values"][0]])
    assert answer(calls, "search", page="x", text="y")["error"] == "there are no texts: the vocabulary is missing"
    assert "tokens" not in answer(calls, "document", number=0)
    assert "the vocabulary is missing" in answer(calls, "sequence", number=0, layout="plain")["error"]


def test_a_file_that_changed_is_one_line(finished: Path) -> None:
    run = open_run("out")
    config = TokenizerConfig(path="small.tiktoken", pattern="gpt2")
    calls = Calls(run, load_tokenizer=lambda: load_tokenizer(config))
    assert len(all_pages(calls, filters=[{"column": "crawl_year", "low": 2020}])) > 0
    (run.path / run.manifest.outputs["annotations/url"].records[0].path).write_bytes(b"x")
    assert "bytes; its record states" in answer(calls, "document", number=0)["error"]
    (run.path / run.manifest.outputs["tokens"].records[0].path).unlink()
    assert "is missing; its record states" in answer(calls, "text", number=0)["error"]


# the server


@pytest.fixture(scope="module")
def server(calls: Calls) -> Iterator[ViewServer]:
    with served(calls) as server:
        yield server


def request(
    server: ViewServer, path: str, *, method: str = "GET", body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def test_the_page_and_a_call_are_answered(server: ViewServer) -> None:
    status, content, headers = request(server, f"/{server.token}/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"<script src=" in content
    assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Server"] == "colophon"
    assert request(server, f"/{server.token}/view.css")[0] == request(server, f"/{server.token}/view.js")[0] == 200
    own = {"Origin": f"http://localhost:{server.server_port}", "Host": f"localhost:{server.server_port}"}
    for headers_of_page in ({}, own, {**own, "Sec-Fetch-Site": "same-origin"}):
        status, content, _ = request(
            server, f"/{server.token}/calls/columns", method="POST", body=b"{}", headers=headers_of_page
        )
        assert status == 200
        assert json.loads(content)["documents"] == 120


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example.org"},
        {"Host": "127.0.0.1.evil.example.org:80"},
        {"Host": "localhost@evil.example.org"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Origin": "https://evil.example.org"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_are_refused(server: ViewServer, headers: dict[str, str]) -> None:
    for method, path in (("GET", ""), ("POST", "calls/columns")):
        status, content, _ = request(server, f"/{server.token}/{path}", method=method, body=b"{}", headers=headers)
        assert (status, content) == (403, b"403 Forbidden\n")


@pytest.mark.parametrize("path", ["/", "/view.js", "/wrong/", "/../", "//", "/%C3%A9/", "/%2e%2e/"])
def test_without_the_token_nothing_is_answered(server: ViewServer, path: str) -> None:
    assert request(server, path)[0] == 403
    assert request(server, path, method="POST", body=b"{}")[0] == 403


@pytest.mark.parametrize(
    "path", ["manifest.json", "../view.js", "calls/columns", "view.html", "%2e%2e/x", "/etc/passwd", "view.js/"]
)
def test_no_path_reaches_a_file(server: ViewServer, path: str) -> None:
    status, content, _ = request(server, f"/{server.token}/{path}")
    assert (status, content) == (404, b"404 Not Found\n")


def test_calls_that_are_unknown_or_too_long_are_refused(server: ViewServer) -> None:
    assert request(server, f"/{server.token}/calls/open", method="POST", body=b"{}")[0] == 404
    assert request(server, f"/{server.token}/calls/columns", method="POST", body=b"x" * (1 << 19))[0] == 413
    wrong = {"Content-Length": "-1"}
    assert request(server, f"/{server.token}/calls/columns", method="POST", headers=wrong)[0] == 413
    assert request(server, f"/{server.token}/", method="PUT")[0] == 501
    status, content, _ = request(server, f"/{server.token}/calls/columns", method="POST", body=b"\xff{")
    assert status == 200
    assert "Invalid JSON" in json.loads(content)["error"]


def test_the_server_listens_on_loopback_alone_with_a_token_of_its_own(server: ViewServer, calls: Calls) -> None:
    assert server.server_address[0] == "127.0.0.1"
    other = ViewServer(calls)
    other.socket.close()
    assert len(server.token) >= 20
    assert server.token != other.token


# the command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data",), "data/manifest.json does not exist: data is not the output of a finished run"),
        (("out", "--set", "a=1"), "view: --set changes a recipe, and out is a directory"),
        (("recipe.toml", "--set", "output.path=none"), "none/manifest.json does not exist"),
        (("missing.toml",), "no recipe file missing.toml"),
    ],
)
def test_a_wrong_call_of_the_command_is_one_line(finished: Path, arguments: tuple[str, ...], message: str) -> None:
    before = snapshot()
    called = colophon("view", *arguments)
    assert called.code == 2
    assert called.line.startswith(message)
    assert snapshot() == before


def test_a_port_in_use_is_one_line(finished: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        called = colophon("view", "out", "--port", str(port))
    assert called.code == 2
    assert called.line.startswith(f"view: port {port} of 127.0.0.1 cannot be used: ")


def test_a_damaged_manifest_is_one_line(finished: Path) -> None:
    Path("out/manifest.json").write_text("{")
    called = colophon("view", "out")
    assert called.code == 2
    assert "out/manifest.json" in called.line


def test_control_c_ends_the_command_with_0_and_nothing_is_written(finished: Path) -> None:
    before = snapshot()
    command = [sys.executable, "-m", "colophon", "view", "out", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "}\n")
        begun = json.loads("".join(lines) + "}")
        assert begun["documents"] == 200
        call = urllib.request.Request(f"{begun['url']}calls/search", data=b'{"page": "1", "text": "the"}')
        with urllib.request.urlopen(call, timeout=60) as response:
            assert response.status == 200
            response.readline()
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert snapshot() == before
