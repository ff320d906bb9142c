"""Budgets and stored replies of `llm_tags`, over processes that are killed and processes that share a directory."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.annotators.llm import account as account_module
from colophon.annotators.llm.account import Account, read_counts
from colophon.annotators.llm.annotator import LlmAnnotator
from colophon.annotators.llm.answer_log import AnswerLog
from colophon.annotators.llm.limits import Limits
from colophon.annotators.llm.replies import Reply, Sent, Usage
from colophon.annotators.llm_tags import LlmTagsConfig
from colophon.annotators.remote import BudgetError
from colophon.shards.common.cache_directory import CacheError
from tests.chat_server import ChatServer, Received, Response, completion, refusal

CONTEXT = multiprocessing.get_context("forkserver")
TEXTS = tuple(map(str, range(30)))


def annotate(annotator: LlmAnnotator, texts: tuple[str, ...] = TEXTS) -> list[str]:
    found: list[str] = annotator.annotate(pa.record_batch({"text": list(texts)}))["tags_status"].to_pylist()
    return found


@pytest.mark.parametrize("concurrency", [1, 7])
def test_a_budget_of_requests_is_never_exceeded_and_a_larger_one_resumes(
    build: Callable[..., LlmAnnotator], server: ChatServer, tmp_path: Path, concurrency: int
) -> None:
    with pytest.raises(BudgetError) as failed:
        annotate(build(max_requests=10, concurrency=concurrency))
    (directory,) = (tmp_path / "cache").iterdir()
    assert str(failed.value) == (
        "annotators.tags: max_requests = 10 is spent: 10 requests and 1,100 tokens of this question are counted in "
        f"{directory}. Files and replies are kept: with a larger max_requests the same command resumes"
    )
    assert len(server.received) == 10
    with pytest.raises(BudgetError):
        annotate(build(max_requests=10))
    with pytest.raises(BudgetError):
        annotate(build(max_requests=20, concurrency=concurrency))
    assert len(server.received) == 20
    assert annotate(build(max_requests=30)) == ["answered"] * 30
    assert len(server.received) == len(set(server.prompts)) == 30, "no request is sent twice"


def test_a_budget_of_tokens_counts_what_the_server_counts(
    build: Callable[..., LlmAnnotator], server: ChatServer, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match=r"^annotators\.tags: max_tokens = 3,000 is spent: "):
        annotate(build(max_tokens=3000, concurrency=5))
    (directory,) = (tmp_path / "cache").iterdir()
    spent = read_counts(directory).tokens
    assert spent == 110 * len(server.received) <= 3000
    bound = len(json.dumps(server.received[0].body)) + 200 + 256
    assert spent + bound > 3000, "it ends when the bound of one more request would not fit"


def test_what_a_request_counts(build: Callable[..., LlmAnnotator], server: ChatServer, tmp_path: Path) -> None:
    responses = [refusal(429, retry_after="0"), refusal(500), Response(b"half"), completion(usage=None)]
    server.respond = lambda one: responses[one.number]
    assert annotate(build(), ("x",)) == ["answered"]
    (directory,) = (tmp_path / "cache").iterdir()
    counts = read_counts(directory)
    assert (counts.requests, counts.replies, counts.open) == (2, 0, 0), "those that may have been billed"
    assert counts.tokens > 2 * 200, "upper bounds, where the server counts nothing"


def test_requests_have_the_rate_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(account_module, "time", _Standing())
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: waits.append(timeout))
    accounts = [Account(tmp_path, Limits(requests_per_minute=30), patience_seconds=1) for _ in range(2)]
    stop = threading.Event()
    for number in range(4):
        assert accounts[number % 2].begin(10, stop=stop)
    assert waits == [0, 2, 4, 6]


class _Standing:
    """A clock that stands still."""

    def time(self) -> float:
        return 1000.0


def test_a_request_that_never_ended_counts_as_sent(tmp_path: Path) -> None:
    """A killed process leaves its requests open."""
    killed, stop = Account(tmp_path, Limits(max_requests=2), patience_seconds=0), threading.Event()
    assert killed.begin(10, stop=stop)
    account = Account(tmp_path, Limits(max_requests=2), patience_seconds=0)
    assert account.begin(10, stop=stop)
    with pytest.raises(BudgetError, match="2 requests and 20 tokens"):
        account.begin(10, stop=stop)


def test_the_end_of_a_budget_waits_for_requests_on_their_way(tmp_path: Path) -> None:
    account = Account(tmp_path, Limits(max_tokens=100), patience_seconds=60)
    assert account.begin(90, stop=threading.Event())
    sent = Sent(reply=Reply("", "stop"), usage=Usage(5, 5))
    threading.Timer(0.1, lambda: account.end(90, sent, seconds=0.1)).start()
    assert account.begin(90, stop=threading.Event()), "the reply took less than its bound"
    assert read_counts(tmp_path).tokens == 100


def test_damaged_counts_are_an_error(tmp_path: Path) -> None:
    for content in (b"", b"[]", b'{"requests": "x"}', b'{"unknown": 1}'):
        (tmp_path / "counts.json").write_bytes(content)
        with pytest.raises(CacheError, match=r"counts\.json: damaged"):
            Account(tmp_path, Limits(), patience_seconds=1).begin(1, stop=threading.Event())


def test_annotators_that_share_a_directory_share_replies_and_a_budget(
    build: Callable[..., LlmAnnotator], server: ChatServer
) -> None:
    """Each has files and locks of its own, as in processes of their own."""
    with ThreadPoolExecutor(2) as both:
        futures = [both.submit(annotate, build(max_requests=20), share) for share in (TEXTS[:15], TEXTS[15:])]
    assert BudgetError in [type(future.exception()) for future in futures]
    assert len(server.received) == 20
    assert annotate(build(max_requests=30)) == ["answered"] * 30
    assert len(set(server.prompts)) == len(server.received) == 30


def _annotate_all(keys: dict[str, Any]) -> None:
    annotate(LlmTagsConfig.model_validate(keys).build("tags"))


@pytest.mark.slow
def test_replies_before_a_kill_are_never_asked_for_again(server: ChatServer, tmp_path: Path) -> None:
    """The process is killed while it waits for the 11th reply."""
    keys = {"endpoint": server.endpoint, "model": "small", "cache": str(tmp_path / "cache"), "concurrency": 1}
    killed = threading.Event()

    def respond(one: Received) -> Response:
        if one.number == 10:
            os.kill(process.pid or 0, signal.SIGKILL)
            killed.wait(60)
        return completion()

    server.respond = respond
    process = CONTEXT.Process(target=_annotate_all, args=(keys,))
    process.start()
    process.join(120)
    killed.set()
    assert process.exitcode == -signal.SIGKILL
    assert annotate(LlmTagsConfig.model_validate(keys).build("tags")) == ["answered"] * 30
    assert len(server.received) == 31
    assert len(set(server.prompts)) == 30


REPLIES = st.lists(st.builds(Reply, st.text(max_size=30), st.sampled_from(["stop", "length"])), max_size=6)


@settings(max_examples=40)
@given(first=REPLIES, second=REPLIES, torn=st.binary(max_size=80))
def test_a_log_has_all_that_was_added_whatever_is_at_its_end(
    tmp_path_factory: pytest.TempPathFactory, first: list[Reply], second: list[Reply], torn: bytes
) -> None:
    directory = tmp_path_factory.mktemp("log")
    log = AnswerLog(directory)
    for number, reply in enumerate(first):
        log.add(b"a%d" % number, reply)
    log.close()
    for path in directory.iterdir():
        with path.open("ab") as file:
            file.write(torn)  # of a process that was killed, or of a disk that was full
    later, reader = AnswerLog(directory), AnswerLog(directory)
    later.refresh()
    for number, reply in enumerate(second):
        later.add(b"b%d" % number, reply)
    reader.refresh()
    for log in (later, reader):
        assert [log.get(b"a%d" % number) for number in range(len(first))] == first
        assert [log.get(b"b%d" % number) for number in range(len(second))] == second
        assert log.get(b"c") is None
        log.close()


def test_a_log_has_one_file_for_each_process_that_writes_at_once(tmp_path: Path) -> None:
    logs = [AnswerLog(tmp_path) for _ in range(3)]
    for log in logs[:2]:
        log.refresh()
        log.add(b"x", Reply("x", "stop"))
    logs[0].close()
    logs[2].refresh()
    logs[2].add(b"y", Reply("y", "stop"))
    assert len(list(tmp_path.iterdir())) == 2, "a file that nobody holds is continued"
    logs[1].refresh()
    assert logs[1].get(b"y") == Reply("y", "stop")
    for log in logs[1:]:
        log.close()


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "gone")
    with pytest.raises(CacheError, match="gone: No such file or directory; stored replies are kept"):
        log.add(b"x", Reply("x", "stop"))
