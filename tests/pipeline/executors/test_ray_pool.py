"""The order in which the pool of Ray actors reports what Ray reports in any order; no cluster runs."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from colophon.pipeline.executors.pool import Died, Event, Finished, Started
from colophon.pipeline.executors.worker import Reply, greeting
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Outcome
from tests.pipeline.executors.fake_pool import task

module = pytest.importorskip("colophon.pipeline.executors.on_ray.pool")


class Reference:
    """The reference that an actor's method returns at once."""

    def __init__(self) -> None:
        self.answer: Future[Any] = Future()

    def future(self) -> Future[Any]:
        return self.answer


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module.ray, "kill", lambda handle: None)
    return module.RayPool(RaySection())


def asked(pool: Any, worker: int, number: int) -> list[Future[Any]]:
    """Answers that the pool expects of a worker."""
    pool._actors.setdefault(worker, module._Actor(handle=None))
    references = [Reference() for _ in range(number)]
    for reference in references:
        pool._expect(worker, reference)
    return [reference.answer for reference in references]


def reply(name: str) -> Reply:
    return Reply(Outcome(task=task(name), error="a reason"), None, 0)


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


def test_answers_come_in_the_order_of_the_work(pool: Any) -> None:
    first, second, third = asked(pool, 1, 3)
    third.set_result(reply("b"))
    assert pool.wait(0) == []
    second.set_result(reply("a"))
    first.set_result(greeting("10.0.0.3"))
    assert pool.wait(0) == [Started(1, greeting("10.0.0.3")), Finished(1, reply("a")), Finished(1, reply("b"))]
    assert pool.wait(0) == []


def test_a_death_waits_for_answers_that_were_given_before_it(pool: Any) -> None:
    hello, done, running = asked(pool, 1, 3)
    hello.set_result(greeting("10.0.0.3"))
    running.set_exception(module.RayError("the actor died"))
    assert kinds(pool.wait(0)) == [Started]
    done.set_result(reply("a"))
    finished, died = pool.wait(0)
    assert isinstance(finished, Finished)
    assert died == Died(1, "worker died: the actor died", "10.0.0.3", oldest_ran=True)


def test_which_of_two_tasks_ran_is_not_known(pool: Any) -> None:
    hello, *tasks = asked(pool, 1, 3)
    hello.set_result(greeting())
    for answer in tasks:
        answer.set_exception(module.RayError("the actor died"))
    started, died = pool.wait(0)
    assert (type(started), died) == (Started, Died(1, "worker died: the actor died", "", oldest_ran=False))
    assert pool.wait(0) == []


@pytest.mark.parametrize("text", ["it died\n\tip: 10.0.0.3\n\tpid: 1", "ray::greet() (pid=1, ip=10.0.0.3, actor_id=2)"])
def test_the_node_of_a_failed_start_is_found(pool: Any, text: str) -> None:
    (hello,) = asked(pool, 1, 1)
    hello.set_exception(module.RayError(text))
    (died,) = pool.wait(0)
    assert died.node == "10.0.0.3"


def test_a_killed_worker_reports_nothing(pool: Any) -> None:
    hello, answer = asked(pool, 1, 2)
    hello.set_result(greeting())
    assert kinds(pool.wait(0)) == [Started]
    pool.kill(1)
    answer.set_exception(module.RayError("the actor died"))
    assert pool.wait(0) == []
