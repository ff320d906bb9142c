"""The order in which the pool of Ray actors reports what Ray reports in any order; no cluster runs."""

from __future__ import annotations

import re
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colophon.pipeline.executors.handshake import Checked, Requirements, check_machine, full_greeting
from colophon.pipeline.executors.pool import Died, Event, Finished, Refused, Started
from colophon.pipeline.executors.worker import Reply
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


def greeted(pool: Any, worker: int, number: int, *, node: str = "") -> list[Future[Any]]:
    """Answers that the pool expects of a worker after its greeting and its check, which have arrived."""
    hello, check, *answers = asked(pool, worker, number + 2)
    hello.set_result(full_greeting(node))
    check.set_result(Checked(()))
    return answers


def reply(name: str) -> Reply:
    return Reply(Outcome(task=task(name), error="a reason"), None, 0)


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


def test_answers_come_in_the_order_of_the_work(pool: Any) -> None:
    hello, check, first, second = asked(pool, 1, 4)
    second.set_result(reply("b"))
    assert pool.wait(0) == []
    first.set_result(reply("a"))
    hello.set_result(full_greeting("10.0.0.3"))
    assert pool.wait(0) == []
    check.set_result(Checked(()))
    assert pool.wait(0) == [Started(1, full_greeting("10.0.0.3")), Finished(1, reply("a")), Finished(1, reply("b"))]
    assert pool.wait(0) == []


def test_a_death_waits_for_answers_that_were_given_before_it(pool: Any) -> None:
    done, running = greeted(pool, 1, 2, node="10.0.0.3")
    running.set_exception(module.RayError("the actor died"))
    assert kinds(pool.wait(0)) == [Started]
    done.set_result(reply("a"))
    finished, died = pool.wait(0)
    assert isinstance(finished, Finished)
    assert died == Died(1, "worker died: the actor died", "10.0.0.3", oldest_ran=True)


def test_which_of_two_tasks_ran_is_not_known(pool: Any) -> None:
    tasks = greeted(pool, 1, 2)
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
    [answer] = greeted(pool, 1, 1)
    assert kinds(pool.wait(0)) == [Started]
    pool.kill(1)
    answer.set_exception(module.RayError("the actor died"))
    assert pool.wait(0) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "0.0.1"}, "it has Colophon 0.0.1, the driver "),
        ({"python": "2.7"}, "it has Python 2.7, the driver "),
        ({"code": "0"}, "its modules of Colophon .* differ from the driver's"),
        ({"libraries": (("pyarrow", "1.0"),)}, "it has .*pyarrow 1.0, the driver "),
    ],
)
def test_a_worker_of_another_installation_is_refused(pool: Any, change: dict[str, Any], reason: str) -> None:
    hello, check = asked(pool, 1, 2)
    hello.set_result(replace(full_greeting("10.0.0.3"), **change))
    (refused,) = pool.wait(0)
    assert isinstance(refused, Refused)
    assert refused.node == "10.0.0.3"
    assert re.match(reason, refused.reason)
    assert not refused.ends_run
    check.set_result(Checked(()))
    assert pool.wait(0) == [], "it was killed"


def test_a_worker_on_a_machine_that_lacks_something_is_refused(pool: Any) -> None:
    hello, check = asked(pool, 1, 2)
    hello.set_result(full_greeting("10.0.0.3"))
    check.set_result(Checked(("/models/q.bin is missing", "the input /data/a.parquet is missing")))
    reason = "/models/q.bin is missing; the input /data/a.parquet is missing"
    assert pool.wait(0) == [Refused(1, reason, "10.0.0.3")]


@pytest.mark.parametrize("sees", [True, False])
def test_driver_and_worker_must_see_each_others_files(pool: Any, tmp_path: Path, sees: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    wanted = Requirements(directories=(str(tmp_path / "out"),))
    pool.require(wanted)
    hello, check = asked(pool, 1, 2)
    hello.set_result(full_greeting("10.0.0.3"))
    if not sees:  # what the driver wrote is there, what the worker writes is not seen by the driver
        (tmp_path / "elsewhere" / pool._probe.name).write_text(pool._probe.name)
    place = tmp_path / ("out" if sees else "elsewhere")
    answer = check_machine(Requirements(directories=(str(place),)), probe=pool._probe.name)
    if not sees:
        (tmp_path / answer.written[0]).unlink()
    check.set_result(answer)
    (event,) = pool.wait(0)
    assert isinstance(event, Started if sees else Refused)
    if isinstance(event, Refused):
        assert event.ends_run
        assert "is not the directory that the driver sees: set output.path to a directory that all" in event.reason
    pool.close()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_long_cause_is_not_cut(pool: Any) -> None:
    (hello,) = asked(pool, 1, 1)
    cause = "ModuleNotFoundError: No module named 'a_module_that_is_missing'"
    hello.set_exception(module.RayError("The actor died\n" + "  File x, line 1\n" * 99 + cause))
    (died,) = pool.wait(0)
    assert died.reason == f"worker died: The actor died ... {cause}"
