"""The scheduler alone, over a pool without processes: every task ends with exactly one outcome, whatever happens."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.pipeline.executors import scheduler as module
from colophon.pipeline.executors.pool import Event, Finished
from colophon.pipeline.executors.scheduler import CAPACITY_CHECK_SECONDS, SMALL_TASK_BYTES, Scheduler
from colophon.pipeline.executors.worker import Greeting, Reply, greeting
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Outcome, Task
from colophon.shards.common.errors import ColophonError
from tests.pipeline.executors.fake_pool import Clock, FakePool, NoStage, task, willing


def scheduled(pool: FakePool, tasks: Sequence[Task], **config: Any) -> list[Outcome]:
    """The outcomes of one stage."""
    return list(Scheduler(pool, RaySection(**config), clock=pool.clock).run(NoStage(), tasks))


def names(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.task.partition.name for outcome in outcomes]


@given(seed=st.integers(0, 2**32), size=st.integers(1, 5), num_tasks=st.integers(1, 20), attempts=st.integers(1, 3))
def test_every_task_has_exactly_one_outcome(seed: int, size: int, num_tasks: int, attempts: int) -> None:
    """Workers start, finish, fail to start, die, hang and grow in any order, and more of them may join."""
    source = random.Random(seed)
    failed_starts = 0

    def anything(pool: FakePool) -> Event | None:
        nonlocal failed_starts
        pool.size = max(pool.size, source.randint(1, size))
        if not pool.workers or source.random() < 0.2:
            return None  # time passes
        number = source.choice(list(pool.workers))
        worker = pool.workers[number]
        if source.random() < 0.15:
            if not worker.started:
                failed_starts += 1
                if failed_starts >= attempts:
                    return pool.started(number)
            return pool.died(number, oldest_ran=len(worker.tasks) < 2 or source.random() < 0.5)
        if not worker.started:
            failed_starts = 0
            return pool.started(number)
        return pool.finished(number, own_bytes=source.choice([0, 0, 2])) if worker.tasks else None

    pool = FakePool(size=1, clock=Clock(), script=anything)
    tasks = [task(str(i), source.choice([1, 10, SMALL_TASK_BYTES, SMALL_TASK_BYTES + 1])) for i in range(num_tasks)]
    found = scheduled(pool, tasks, max_attempts=attempts, partition_timeout_seconds=30, worker_memory_bytes=1)
    assert Counter(names(found)) == Counter(str(i) for i in range(num_tasks))
    assert all((outcome.result is None) == (outcome.error is not None) for outcome in found)
    assert all(outcome.error.endswith(f"({attempts} attempts)") for outcome in found if outcome.error)


def test_the_largest_partitions_go_first() -> None:
    pool = FakePool(size=1, clock=Clock(), script=willing)
    outcomes = scheduled(pool, [task("b", 2), task("d", 4), task("a", 1), task("c", 3)])
    assert names(outcomes) == ["d", "c", "b", "a"]


def test_a_second_task_is_sent_along_only_where_both_are_small() -> None:
    most = 0

    def script(pool: FakePool) -> Event | None:
        nonlocal most
        for worker in pool.workers.values():
            most = max(most, len(worker.tasks))
            assert len(worker.tasks) < 2 or worker.tasks[0].partition.bytes <= SMALL_TASK_BYTES
        return willing(pool)

    pool = FakePool(size=2, clock=Clock(), script=script)
    scheduled(pool, [task(str(i), size) for i, size in enumerate([SMALL_TASK_BYTES + 1, 5, 4, 3, 2, 1])])
    assert most == 2


def test_every_free_worker_gets_a_task_before_one_gets_a_second() -> None:
    def script(pool: FakePool) -> Event | None:
        waiting = [number for number, worker in pool.workers.items() if not worker.started]
        return pool.started(waiting[0]) if waiting else willing(pool)

    pool = FakePool(size=3, clock=Clock(), script=script)
    scheduler = Scheduler(pool, RaySection(), clock=pool.clock)
    for _ in range(2):  # the second stage finds all workers free
        before = len(pool.sent)
        assert len(list(scheduler.run(NoStage(), [task(str(i)) for i in range(6)]))) == 6
    assert len({worker for worker, _ in pool.sent[before : before + 3]}) == 3


def test_only_the_task_that_ran_is_blamed() -> None:
    deaths = 0

    def script(pool: FakePool) -> Event | None:
        nonlocal deaths
        for number, worker in pool.workers.items():
            if worker.tasks and worker.tasks[0].partition.name == "bad":
                deaths += 1
                return pool.died(number, "worker died: ended by SIGKILL")
        return willing(pool)

    pool = FakePool(size=1, clock=Clock(), script=script)
    outcomes = {o.task.partition.name: o for o in scheduled(pool, [task("bad", 9), task("good")], max_attempts=2)}
    assert outcomes["bad"].error == "worker died: ended by SIGKILL (2 attempts)"
    assert outcomes["good"].result is not None
    assert deaths == 2


def test_where_the_running_task_is_not_known_each_is_attempted_alone() -> None:
    """Nobody is blamed for a death that another task may have caused."""

    def script(pool: FakePool) -> Event | None:
        for number, worker in pool.workers.items():
            running = [waiting.partition.name for waiting in worker.tasks]
            if "bad" in running:
                return pool.died(number, oldest_ran=len(running) == 1)
        return willing(pool)

    pool = FakePool(size=1, clock=Clock(), script=script)
    outcomes = {o.task.partition.name: o for o in scheduled(pool, [task("good", 9), task("bad")], max_attempts=1)}
    assert outcomes["good"].result is not None
    assert outcomes["bad"].error == "worker died (1 attempts)"


def test_an_overdue_worker_is_killed_and_its_task_attempted_again() -> None:
    def script(pool: FakePool) -> Event | None:
        for number, worker in pool.workers.items():
            if not worker.started:
                return pool.started(number)
            if worker.tasks and number > 1:  # the first worker hangs
                return pool.finished(number)
        return None

    pool = FakePool(size=1, clock=Clock(), script=script)
    (outcome,) = scheduled(pool, [task("slow")], partition_timeout_seconds=7)
    assert outcome.result is not None
    assert pool.killed == [1]
    assert pool.clock.now == pytest.approx(107)


def test_a_task_that_finished_while_its_outcome_was_awaited_is_not_overdue() -> None:
    pool = FakePool(size=1, clock=Clock(), script=willing)
    outcomes = Scheduler(pool, RaySection(partition_timeout_seconds=7), clock=pool.clock).run(
        NoStage(), [task("a", 2), task("b", 1)]
    )
    assert next(outcomes).result is not None
    pool.clock.now += 100  # the caller takes its time
    assert [outcome.error for outcome in outcomes] == [None]
    assert not pool.killed


def test_a_worker_that_has_grown_is_replaced_after_its_tasks() -> None:
    def script(pool: FakePool) -> Event | None:
        return next((pool.finished(n, own_bytes=9) for n, w in pool.workers.items() if w.tasks), None) or willing(pool)

    pool = FakePool(size=1, clock=Clock(), script=script)
    assert len(scheduled(pool, [task(str(i)) for i in range(3)], worker_memory_bytes=8)) == 3
    assert len(pool.killed) >= 2


def test_failed_starts_pause_longer_and_longer_and_end_with_one_line() -> None:
    starts: list[float] = []

    def script(pool: FakePool) -> Event | None:
        if not pool.workers:
            return None
        starts.append(pool.clock.now)
        return pool.died(next(iter(pool.workers)), "worker died: no module named colophon", node="10.0.0.3")

    pool = FakePool(size=1, clock=Clock(), script=script, nodes=["10.0.0.3"])
    message = r"fake: no worker can be started on 10.0.0.3: worker died: no module named colophon \(5 attempts\)"
    with pytest.raises(ColophonError, match=message):
        scheduled(pool, [task("a")], max_attempts=5)
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_a_node_where_no_worker_starts_is_avoided_while_others_work() -> None:
    bad, good = "10.0.0.3", "10.0.0.4"

    def script(pool: FakePool) -> Event | None:
        for number, worker in pool.workers.items():
            if not worker.started and number > 1 and bad not in worker.avoided:
                return pool.died(number, node=bad)
            if not worker.started:
                return pool.started(number, _hello(good))
        return willing(pool) if len(pool.workers) == 2 else None

    pool = FakePool(size=2, clock=Clock(), script=script, nodes=[good, bad])
    assert len(scheduled(pool, [task(str(i)) for i in range(8)], max_attempts=3)) == 8
    assert pool.num_started == 3, "one good, one failed on the bad node, one that avoids it while it pauses"


def test_workers_that_join_are_used() -> None:
    def script(pool: FakePool) -> Event | None:
        if len(pool.waits) == 4:
            pool.size = 3
        if len(pool.workers) == 1:  # the one worker is busy until others have joined
            return next((pool.started(n) for n, w in pool.workers.items() if not w.started), None)
        return willing(pool)

    pool = FakePool(size=1, clock=Clock(), script=script)
    assert len(scheduled(pool, [task(str(i), SMALL_TASK_BYTES + 1) for i in range(6)])) == 6
    assert pool.num_started == 3
    assert max(pool.waits) <= CAPACITY_CHECK_SECONDS


def test_a_bad_node_does_not_let_others_pause() -> None:
    """Its starts pause longer and longer; those of the other node are at once, however many of its workers die."""
    bad, good = "10.0.0.3", "10.0.0.4"

    def script(pool: FakePool) -> Event | None:
        for number, worker in pool.workers.items():
            if not worker.started:
                return pool.died(number, node=bad) if bad not in worker.avoided else pool.started(number, _hello(good))
            if worker.tasks:
                return pool.finished(number, own_bytes=9)  # too large: it is replaced after each task
        return None

    pool = FakePool(size=1, clock=Clock(), script=script, nodes=[bad, good])
    before = pool.clock.now
    assert len(scheduled(pool, [task(str(i)) for i in range(9)], worker_memory_bytes=8, max_attempts=9)) == 9
    assert pool.clock.now == before


def test_a_node_that_lacks_something_is_left_out_and_named() -> None:
    """Its first worker is refused; its second one finds out in the middle of a stage, and others get its tasks."""
    old, bare, good = "10.0.0.3", "10.0.0.4", "10.0.0.5"

    def script(pool: FakePool) -> Event | None:
        for number, worker in pool.workers.items():
            if not worker.started:
                if old not in worker.avoided:
                    return pool.refused(number, "it has Colophon 0.0.1, the driver 0.1.0", node=old)
                return pool.started(number, _hello(bare if bare not in worker.avoided else good))
            if worker.tasks:
                return pool.lacks(number, "q.bin is missing") if bare not in worker.avoided else pool.finished(number)
        return None

    pool = FakePool(size=1, clock=Clock(), script=script, nodes=[old, bare, good])
    scheduler = Scheduler(pool, RaySection(max_attempts=1), clock=pool.clock)
    outcomes = list(scheduler.run(NoStage(), [task(str(i)) for i in range(4)]))
    assert [outcome.error for outcome in outcomes] == [None] * 4, "no task is blamed"
    assert scheduler.notes == [
        "node 10.0.0.3 is left out: it has Colophon 0.0.1, the driver 0.1.0",
        "node 10.0.0.4 is left out: q.bin is missing",
    ]
    assert pool.left_out[-1] == {old, bare}, "their CPUs do not count"


def test_a_run_without_any_node_left_gives_all_causes() -> None:
    nodes = [f"10.0.0.{i}" for i in range(3)]

    def script(pool: FakePool) -> Event | None:
        number, worker = next(iter(pool.workers.items()))
        node = next(node for node in nodes if node not in worker.avoided)
        return pool.refused(number, f"model-{node[-1]}.bin is missing", node=node)

    pool = FakePool(size=1, clock=Clock(), script=script, nodes=nodes)
    with pytest.raises(ColophonError) as caught:
        scheduled(pool, [task("a")])
    causes = "; ".join(f"on 10.0.0.{i}: model-{i}.bin is missing" for i in range(3))
    assert str(caught.value) == f"fake: no worker can be started {causes}"
    assert caught.value.exit_code == 1


def test_an_output_that_is_not_shared_ends_the_run_before_work_and_later_leaves_the_node_out() -> None:
    alone, good = "10.0.0.3", "10.0.0.4"

    def script(pool: FakePool) -> Event | None:
        for number, worker in reversed(pool.workers.items()):
            if worker.tasks:
                return pool.finished(number)
            if number == 1 and works_first:
                return pool.started(number, _hello(good))
            if not worker.started and alone not in worker.avoided and (len(pool.sent) > 1 or not works_first):
                return pool.refused(number, "/out is not shared", node=alone, ends_run=True)
        return None

    works_first = False
    pool = FakePool(size=2, clock=Clock(), script=script, nodes=[alone, good])
    with pytest.raises(ColophonError, match=r"fake: node 10\.0\.0\.3: /out is not shared"):
        scheduled(pool, [task(str(i)) for i in range(4)])
    works_first = True
    pool = FakePool(size=2, clock=Clock(), script=script, nodes=[alone, good])
    assert len(scheduled(pool, [task(str(i), SMALL_TASK_BYTES + 1) for i in range(4)])) == 4
    assert pool.left_out[-1] == {alone}


def test_a_defect_ends_the_run_and_all_workers() -> None:
    def script(pool: FakePool) -> Event | None:
        if pool.workers[1].tasks:
            return Finished(1, Reply(None, "RuntimeError: something", 0))
        return willing(pool)

    pool = FakePool(size=2, clock=Clock(), script=script)
    with pytest.raises(ColophonError, match="RuntimeError: something"):
        scheduled(pool, [task(str(i)) for i in range(5)])
    assert not pool.workers


def test_an_answer_to_another_task_ends_the_run() -> None:
    def script(pool: FakePool) -> Event | None:
        if pool.workers[1].tasks:
            return Finished(1, Reply(Outcome(task=task("other"), error="x"), None, 0))
        return willing(pool)

    with pytest.raises(ColophonError, match="a worker answered another task"):
        scheduled(FakePool(size=1, clock=Clock(), script=script), [task("a")])


def test_two_tasks_of_one_partition_are_refused() -> None:
    with pytest.raises(ValueError, match="the same partition"):
        scheduled(FakePool(size=1, clock=Clock(), script=willing), [task("a"), task("a")])


def test_a_stage_starts_with_no_tasks_of_one_that_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FakePool(size=2, clock=Clock(), script=willing)
    scheduler = Scheduler(pool, RaySection(), clock=pool.clock)
    left = scheduler.run(NoStage(), [task(str(i)) for i in range(9)])
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert not pool.workers
    assert names(list(scheduler.run(NoStage(), [task("next")]))) == ["next"]


def lines_per_task(*, num_workers: int, num_tasks: int = 2000) -> float:
    """How many lines of the scheduler run for one task."""
    pool = FakePool(size=num_workers, clock=Clock(), script=willing)
    order = iter(range(10**9))

    def quickly(pool: FakePool) -> Event | None:  # `willing` looks at all workers
        number = next(order) % pool.num_started + 1
        worker = pool.workers[number]
        if not worker.started:
            return pool.started(number)
        return pool.finished(number) if worker.tasks else None

    pool.script = quickly
    scheduler = Scheduler(pool, RaySection(partition_timeout_seconds=1e9), clock=pool.clock)
    count = 0
    files = {module.__file__, sys.modules["colophon.pipeline.executors.task_queue"].__file__}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in files:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        outcomes = list(scheduler.run(NoStage(), [task(str(i)) for i in range(num_tasks)]))
    finally:
        sys.settrace(before)
    assert len(outcomes) == num_tasks
    return count / num_tasks


def test_bookkeeping_does_not_grow_with_the_number_of_workers() -> None:
    few, many = lines_per_task(num_workers=2), lines_per_task(num_workers=1000)
    assert many < 1.5 * few, (few, many)


def _hello(node: str) -> Greeting:
    return greeting(node)
