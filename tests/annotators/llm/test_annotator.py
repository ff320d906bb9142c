"""The annotator `llm_tags` against a server on loopback: replies, failures, retries, the sample, and the key."""

from __future__ import annotations

import json
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from colophon.annotators.base import AnnotatorError
from colophon.annotators.llm import asking
from colophon.annotators.llm.annotator import LlmAnnotator
from colophon.annotators.remote import ServiceError
from tests.chat_server import TAGS, ChatServer, Received, Response, completion, refusal

KEY = "sk-loopback-0123456789abcdef"
EMPTY = {"tags_topic": None, "tags_format": None}
ANSWER = {"tags_topic": "solar power", "tags_format": "news article"}


def found(annotator: LlmAnnotator, *texts: str | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = annotator.annotate(pa.record_batch({"text": pa.array(texts, pa.string())})).to_pylist()
    return rows


def statuses(annotator: LlmAnnotator, *texts: str) -> list[str]:
    return [row["tags_status"] for row in found(annotator, *texts)]


def test_each_document_is_asked_once_and_blank_ones_never(
    build: Callable[..., LlmAnnotator], server: ChatServer
) -> None:
    answered = {**ANSWER, "tags_status": "answered"}
    nothing = {**EMPTY, "tags_status": None}
    assert found(build(), "a", None, "b", " \n", "a", "") == [answered, nothing, answered, nothing, answered, nothing]
    assert len(server.received) == 2
    assert found(build(endpoint="http://127.0.0.1:1/v1"), "b", "a") == [answered] * 2, "stored replies need no server"
    assert len(server.received) == 2


def test_what_is_sent(build: Callable[..., LlmAnnotator], server: ChatServer) -> None:
    annotator = build(max_chars=5, temperature=0.5, max_output_tokens=9, request={"top_p": 0.9})
    found(annotator, "0123456789")
    (sent,) = server.received
    assert sent.path == "/v1/chat/completions"
    assert "authorization" not in sent.headers
    assert "-----\n01234\n-----" in sent.prompt
    assert (sent.body["model"], sent.body["temperature"], sent.body["max_tokens"]) == ("small", 0.5, 9)
    assert sent.body["top_p"] == 0.9
    schema = sent.body["response_format"]["json_schema"]["schema"]
    assert schema == {
        "type": "object",
        "properties": {"topic": {"type": "string"}, "format": {"type": "string"}},
        "required": ["topic", "format"],
        "additionalProperties": False,
    }


def test_a_question_of_ones_own(build: Callable[..., LlmAnnotator], server: ChatServer) -> None:
    fields = {
        "is_recipe": {"type": "boolean"},
        "minutes": {"type": "integer", "minimum": 0},
        "share": {"type": "number"},
        "kind": {"type": "string", "enum": ["a", "b"]},
    }
    annotator = build(prompt='{url}: {"a": 1} {text}', answer=fields, response_format="json_object")
    assert annotator.columns == ("text", "url")
    server.respond = lambda one: completion({"is_recipe": True, "minutes": 3.0, "share": 1, "kind": "b"})
    batch = pa.record_batch({"text": ["x", "{url}"], "url": ["u", None]})
    rows = annotator.annotate(batch).to_pylist()
    row = {"tags_is_recipe": True, "tags_minutes": 3, "tags_share": 1.0, "tags_kind": "b", "tags_status": "answered"}
    assert rows == [row] * 2
    assert sorted(server.prompts) == [': {"a": 1} {url}', 'u: {"a": 1} x']
    assert server.received[0].body["response_format"] == {"type": "json_object"}


def test_the_educational_score(build: Callable[..., LlmAnnotator], server: ChatServer) -> None:
    server.respond = lambda one: completion({"reason": " It explains. ", "score": 4})
    assert found(build(question="education"), "x") == [
        {"tags_reason": "It explains.", "tags_score": 4, "tags_status": "answered"}
    ]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("", "not_json"),
        ("Topic: solar power", "not_json"),
        ('{"topic": "solar power", "for', "not_json"),
        (json.dumps(TAGS) + " I hope this helps.", "not_json"),
        ('{"topic": NaN, "format": "x"}', "not_json"),
        ('{"topic": "\\ud800", "format": "x"}', "not_json"),
        ("[" * 100_000, "not_json"),
        ([TAGS], "mismatch"),
        ({"topic": "solar power"}, "mismatch"),
        ({**TAGS, "more": 1}, "mismatch"),
        ({**TAGS, "topic": None}, "mismatch"),
        ({**TAGS, "topic": "one two three four"}, "mismatch"),
        ({**TAGS, "topic": ""}, "mismatch"),
        ({**TAGS, "topic": "x" * 81}, "mismatch"),
    ],
)
def test_a_reply_that_is_no_answer_is_repaired_once(
    build: Callable[..., LlmAnnotator], server: ChatServer, content: Any, status: str
) -> None:
    server.respond = lambda one: completion(TAGS if one.is_repair and "mends" in one.prompt else content)
    annotator = build()
    assert found(annotator, "mends", "fails") == [
        {**ANSWER, "tags_status": "repaired"},
        {**EMPTY, "tags_status": status},
    ]
    assert Counter(one.is_repair for one in server.received) == {False: 2, True: 2}
    repair = next(one for one in server.received if one.is_repair).body["messages"]
    assert [message["role"] for message in repair] == ["user", "assistant", "user"]
    assert "not a valid answer" in repair[2]["content"]
    assert statuses(annotator, "fails", "mends") == [status, "repaired"]
    assert len(server.received) == 4, "a failure is stored like an answer"


@pytest.mark.parametrize("content", [TAGS, f"```json\n{json.dumps(TAGS)}\n```", f" {json.dumps(TAGS, indent=1)}\n"])
def test_replies_that_are_answers(build: Callable[..., LlmAnnotator], server: ChatServer, content: Any) -> None:
    server.respond = lambda one: completion(content)
    assert statuses(build(), "x") == ["answered"]


@pytest.mark.parametrize(
    ("response", "status", "requests"),
    [
        (completion('{"topic": "so', finish="length"), "cut", 2),
        (completion(finish="content_filter"), "declined", 1),
        (completion(None, refusal="I cannot."), "declined", 1),
        (refusal(400, "This model's maximum context length is 8192 tokens"), "too_long", 1),
        (refusal(413), "too_long", 1),
        (refusal(422, "what?"), "rejected", 1),
        (refusal(500, "oops"), "server_error", 3),
        (Response(b"<html>busy</html>", 503), "server_error", 3),
        (Response(b"<html>fine</html>"), "invalid_reply", 3),
        (Response(b'{"choices": []}'), "invalid_reply", 3),
        (Response(completion().body, cut=40), "broken", 3),
        (Response(b"x" * (1 << 20) + b"x"), "broken", 3),
    ],
)
def test_a_document_without_an_answer_has_the_reason(
    build: Callable[..., LlmAnnotator], server: ChatServer, response: Response, status: str, requests: int
) -> None:
    server.respond = lambda one: response if "bad" in one.prompt else completion()
    assert statuses(build(max_attempts=3), "good", "bad", "fine") == ["answered", status, "answered"]
    assert sum("bad" in prompt for prompt in server.prompts) == requests


def test_failures_that_pass_are_retried(build: Callable[..., LlmAnnotator], server: ChatServer) -> None:
    failures = [refusal(429, retry_after="0"), refusal(500), Response(completion().body, cut=40), Response(b"half")]
    server.respond = lambda one: failures[one.number] if one.number < len(failures) else completion()
    assert statuses(build(), "x") == ["answered"]
    assert len(server.received) == 5


def test_a_reply_that_takes_too_long(build: Callable[..., LlmAnnotator], server: ChatServer) -> None:
    ended = threading.Event()

    def respond(one: Received) -> Response:
        if "slow" in one.prompt:
            ended.wait(30)
        return completion()

    server.respond = respond
    assert statuses(build(timeout_seconds=0.2, max_attempts=2), "slow", "fast") == ["timeout", "answered"]
    ended.set()


def test_a_hundred_documents_at_once(build: Callable[..., LlmAnnotator], server: ChatServer) -> None:
    together = threading.Barrier(100)

    def respond(one: Received) -> Response:
        together.wait(60)
        return completion()

    server.respond = respond
    assert statuses(build(concurrency=100), *map(str, range(100))) == ["answered"] * 100
    assert server.most_at_once == 100


def test_no_more_requests_at_once_than_allowed(build: Callable[..., LlmAnnotator], server: ChatServer) -> None:
    statuses(build(concurrency=3), *map(str, range(30)))
    assert 1 <= server.most_at_once <= 3


def test_what_a_server_asks_for_holds_for_all_threads(
    build: Callable[..., LlmAnnotator], server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the module stands still until somebody waits, and then jumps by what was waited for."""
    clock = _Clock()
    monkeypatch.setattr(asking, "time", clock)
    monkeypatch.setattr(threading.Event, "wait", clock.wait_of(threading.Event.wait))
    server.respond = lambda one: refusal(429, retry_after="77") if one.number == 0 else completion()
    assert statuses(build(concurrency=1), "a", "b") == ["answered"] * 2
    assert 76 < max(clock.waited) <= 77


class _Clock:
    """Stands in for `time` and `Event.wait` where a test must not wait: a wait of more than half a second is noted."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waited: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait_of(self, wait: Callable[..., bool]) -> Callable[..., bool]:
        def waited(event: threading.Event, timeout: float | None = None) -> bool:
            if timeout is None or timeout <= 0.5 or threading.current_thread() is threading.main_thread():
                return wait(event, timeout)
            self.waited.append(timeout)
            self.now += timeout
            return event.is_set()

        return waited


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (refusal(401, f"Incorrect API key provided: {KEY}"), "HTTP 401: the key is refused"),
        (refusal(403), "HTTP 403: the key is refused"),
        (refusal(404, f"no model small for {KEY}"), "HTTP 404: no model small for ***"),
        (refusal(429, "You exceeded your quota", code="insufficient_quota"), "HTTP 429: You exceeded your quota"),
        (Response(b"", 302, {"Location": "http://127.0.0.1:1/"}), "HTTP 302"),
        (refusal(429, f"slow down, {KEY}"), "HTTP 429: slow down, *** (2 attempts)"),
        (refusal(500, f"oops {KEY}"), "no reply for 10 documents in a row; the last failure: HTTP 500: oops ***"),
    ],
)
def test_a_service_at_fault_ends_the_run_and_shows_no_key(
    build: Callable[..., LlmAnnotator],
    server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    response: Response,
    message: str,
) -> None:
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    server.respond = lambda one: response
    annotator = build(key_variable="LOOPBACK_KEY", max_attempts=2, concurrency=1)
    with pytest.raises(ServiceError) as failed:
        found(annotator, *map(str, range(20)))
    where = f"annotators.tags: {server.endpoint}: "
    assert str(failed.value) == f"{where}{message}. Replies are kept: the same command resumes"
    assert not isinstance(failed.value, AnnotatorError), "that would quarantine the partition"


def test_no_server(build: Callable[..., LlmAnnotator]) -> None:
    annotator = build(endpoint="http://127.0.0.1:9/v1", max_attempts=2)
    with pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:9/v1: no connection: .*\(2 attempts\)"):
        found(annotator, "x")


def test_a_host_that_no_name_can_have(build: Callable[..., LlmAnnotator]) -> None:
    with pytest.raises(ServiceError, match="not an address that can be connected to: UnicodeError"):
        found(build(endpoint=f"http://{'a' * 64}/v1"), "x")


def test_replies_on_their_way_are_kept_when_the_service_ends_the_run(
    build: Callable[..., LlmAnnotator], server: ChatServer
) -> None:
    refused = threading.Event()

    def respond(one: Received) -> Response:
        if "bad" in one.prompt:
            return refusal(401)
        refused.wait(30)
        return completion()

    server.respond = respond
    threading.Timer(0.2, refused.set).start()
    with pytest.raises(ServiceError):
        found(build(concurrency=2), "good", "bad")
    server.respond = lambda one: pytest.fail("asked again")
    assert statuses(build(), "good") == ["answered"]


def test_the_key_is_sent_and_nowhere_else(
    build: Callable[..., LlmAnnotator], server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPBACK_KEY", f" {KEY}\n")
    annotator = build(key_variable="LOOPBACK_KEY")
    server.respond = lambda one: completion({**TAGS, "topic": one.headers["authorization"].removeprefix("Bearer ")})
    assert found(annotator, "x") == [{**ANSWER, "tags_topic": "***", "tags_status": "answered"}]
    assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    shown = [pickle.dumps(annotator), written, repr(annotator.notes).encode(), json.dumps(annotator.settings).encode()]
    assert not any(KEY.encode() in each for each in shown)


@pytest.mark.parametrize(("value", "problem"), [(None, "is not set"), ("", "is not set"), ("a\r\nx: é", "characters")])
def test_a_key_that_is_missing(
    build: Callable[..., LlmAnnotator], monkeypatch: pytest.MonkeyPatch, value: str | None, problem: str
) -> None:
    monkeypatch.delenv("LOOPBACK_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("LOOPBACK_KEY", value)
    annotator = build(key_variable="LOOPBACK_KEY")
    for call in (annotator.load, annotator.check_environment):
        with pytest.raises(AnnotatorError, match=rf"^annotators\.tags\.key_variable: LOOPBACK_KEY .*{problem}"):
            call()


def test_a_sample_is_a_share_that_larger_samples_contain(build: Callable[..., LlmAnnotator]) -> None:
    texts = [f"document {number}" for number in range(120)]

    def sampled(**keys: Any) -> set[str]:
        rows = found(build(**keys), *texts)
        return {text for text, row in zip(texts, rows, strict=True) if row["tags_status"] is not None}

    small, large, other = sampled(sample=0.1), sampled(sample=0.3), sampled(sample=0.1, seed=1)
    assert 4 <= len(small) <= 24
    assert 22 <= len(large) <= 55
    assert small < large
    assert other != small


def test_a_sample_of_a_number_needs_the_number_of_documents(build: Callable[..., LlmAnnotator]) -> None:
    annotator = build(sample=12)
    assert annotator.counts_documents
    with pytest.raises(AnnotatorError, match="have not been counted"):
        found(annotator, "x")
    counted = annotator.with_calibration({"num_documents": 120})
    assert not counted.counts_documents
    assert counted.settings["num_documents"] == 120
    texts = [f"document {number}" for number in range(120)]
    assert found(counted, *texts) == found(build(sample=0.1), *texts)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"endpoint": "file:///x"}, "must be a web address"),
        ({"endpoint": "http://"}, "must be a web address"),
        ({"endpoint": "http://[x/v1"}, "must be a web address"),
        ({"endpoint": "http://host:99999/v1"}, "must be a web address"),
        ({"endpoint": "https://user:pa55@host/v1"}, "password"),
        ({"endpoint": "https://host/v1?key=pa55"}, "query"),
        ({"sample": 0}, "a number of documents above 1, or a share"),
        ({"sample": 1.5}, "a number of documents above 1, or a share"),
        ({"answer": {"a": {"type": "string"}}}, "needs a prompt"),
        ({"prompt": "x"}, r"must contain \{text\}"),
        ({"prompt": "{text}", "answer": {}}, "at least one field"),
        ({"prompt": "{text}", "answer": {"A b": {"type": "string"}}}, "lower-case"),
        ({"prompt": "{text}", "answer": {"status": {"type": "string"}}}, "not 'status'"),
        ({"prompt": "{text}", "answer": {"a": {"type": "array"}}}, "type must be one of"),
        ({"prompt": "{text}", "answer": {"a": {"$ref": "http://x/"}}}, r"unknown keyword '\$ref'; available: "),
        ({"prompt": "{text}", "answer": {"a": {"type": "string", "minLength": "x"}}}, "not a JSON Schema: minLength"),
        ({"prompt": "{text}", "answer": {"a": {"type": "string", "pattern": "("}}}, "not a JSON Schema: pattern"),
        ({"request": {"messages": []}}, "'messages' is set by"),
        ({"cache": "s3://b/x"}, "local directory"),
        ({"key_variable": "sk-123"}, "name of an environment variable"),
    ],
)
def test_settings_that_cannot_work(build: Callable[..., LlmAnnotator], keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as failed:
        build(**keys)
    assert "pa55" not in str(failed.value).partition("input_value")[0]
