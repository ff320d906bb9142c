"""A pool of Ray actors, one process a core.

Ray reports answers in any order, perhaps an actor's death before an answer that it had given. The pool puts them in the
order in which the actor worked.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayError

from colophon.pipeline.executors.environment import WORKER_ENVIRONMENT
from colophon.pipeline.executors.handshake import (
    SHARED,
    Checked,
    Probe,
    Requirements,
    check_machine,
    differences,
    full_greeting,
)
from colophon.pipeline.executors.on_ray.cluster import check_nodes, num_cpus
from colophon.pipeline.executors.pool import Died, Event, Finished, Pool, Refused, Started
from colophon.pipeline.executors.session import cluster_address
from colophon.pipeline.executors.worker import Greeting, Reply, WorkerProcess, hard_limit
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.stages.tasks import Stage, Task

_REASON_CHARACTERS = 300


class RemoteWorker:
    """Runs in an actor's process."""

    def __init__(self, most_bytes: int | None) -> None:
        # Libraries read it when they are first used. A runtime environment of its own would cost each actor seconds.
        os.environ.update(WORKER_ENVIRONMENT)
        self._process = WorkerProcess(most_bytes)

    def greet(self) -> Greeting:
        """Return the versions and the node."""
        return full_greeting(ray.util.get_node_ip_address())

    def check(self, requirements: Requirements, probe: str) -> Checked:
        """Return what this machine lacks."""
        return check_machine(requirements, probe=probe)

    def answer(self, number: int, stage: list[Any], task: Task) -> Reply:
        """Work on a task. `stage` holds a reference to the stage, which is fetched if it is needed."""
        return self._process.answer(task, number=number, stage=lambda: ray.get(stage[0]))


@dataclass
class _Actor:
    """An actor as the driver sees it."""

    handle: Any
    greeting: Greeting | None = None
    answers: deque[Future[Any]] = field(default_factory=deque)
    """Requests without a report yet, oldest first: its greeting, its check, then a reply to each task."""

    @property
    def node(self) -> str:
        """The address of its node, if it has reported it."""
        return "" if self.greeting is None else self.greeting.node


class RayPool(Pool):
    """Workers as actors of the connected cluster."""

    name = "ray"

    def __init__(self, config: RaySection) -> None:
        """Start nothing yet."""
        self._config = config
        self._requirements = Requirements()
        self._probe = Probe()
        self._numbers = count()
        self._actors: dict[int, _Actor] = {}
        self._arrived: SimpleQueue[int] = SimpleQueue()
        """A worker's number whenever one of its answers has arrived; filled by a thread of Ray."""
        self._stage_number = 0
        self._stage: list[Any] = []

    @property
    def spans_machines(self) -> bool:
        """Whether the cluster was running before this command."""
        return cluster_address(self._config) is not None

    def capacity(self, *, without: Collection[str] = ()) -> int:
        """As many workers as the recipe says, else one for each CPU that the cluster has now."""
        return self._config.num_workers or num_cpus(without=without)

    def nodes(self) -> Collection[str]:
        """The addresses of the nodes that are alive."""
        return {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}

    def require(self, requirements: Requirements) -> None:
        """Check each worker's machine when it starts. Writes a small file into each directory that is to be shared."""
        self._requirements = requirements
        self._probe.write(requirements.directories)

    def open(self, stage: Stage) -> None:
        """Put the stage where all nodes can fetch it."""
        self._stage_number += 1
        self._stage = [ray.put(stage)]  # in a list: Ray would send the stage itself along with every task

    def start(self, *, avoid: Collection[str] = ()) -> int:
        """Ask Ray for an actor, which it places on a node with a free CPU."""
        options: dict[str, Any] = {"num_cpus": 1}
        if self._config.worker_memory_bytes is not None:
            options["memory"] = self._config.worker_memory_bytes
        if unwanted := _node_ids(avoid):
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(unwanted)})"}
        most_bytes = hard_limit(self._config.worker_memory_bytes)
        actor = _Actor(ray.remote(**options)(RemoteWorker).remote(most_bytes))
        worker = next(self._numbers)
        self._actors[worker] = actor
        self._expect(worker, actor.handle.greet.remote())
        self._expect(worker, actor.handle.check.remote(self._requirements, self._probe.name))
        return worker

    def send(self, worker: int, task: Task) -> None:
        """Call the actor."""
        self._expect(worker, self._actors[worker].handle.answer.remote(self._stage_number, self._stage, task))

    def kill(self, worker: int) -> None:
        """Kill the actor."""
        with suppress(RayError):
            ray.kill(self._actors.pop(worker).handle)

    def wait(self, timeout: float) -> list[Event]:
        """Return what Ray has reported.

        Raises:
            ColophonError: nothing was reported, because no node is alive.
        """
        events: list[Event] = []
        with suppress(Empty):
            worker = self._arrived.get(timeout=timeout) if timeout > 0 else self._arrived.get_nowait()
            while True:
                events += self._events_of(worker)
                worker = self._arrived.get_nowait()
        if not events and timeout > 0:
            check_nodes()
        return events

    def close(self) -> None:
        """Kill all actors."""
        for worker in list(self._actors):
            self.kill(worker)
        self._probe.remove()

    def _expect(self, worker: int, reference: Any) -> None:
        answer: Future[Any] = reference.future()
        self._actors[worker].answers.append(answer)
        answer.add_done_callback(lambda _: self._arrived.put(worker))

    def _events_of(self, worker: int) -> list[Event]:
        """Answers of a worker that have arrived, up to the first that has not; later ones wait for it."""
        actor = self._actors.get(worker)
        if actor is None:  # it was killed
            return []
        events: list[Event] = []
        while actor.answers and actor.answers[0].done():
            answer = actor.answers.popleft()
            error = answer.exception()
            if error is not None:  # the actor, its node or its environment: not what the work is
                self.kill(worker)
                # An answer that the process gave just before it ended may be lost.
                died = Died(worker, _reason(error), node=actor.node or _node_in(error), oldest_ran=not actor.answers)
                return [*events, died]
            result = answer.result()
            event = self._event(worker, actor, result)
            events += [event] if event is not None else []
            if isinstance(event, Refused):
                self.kill(worker)
                break
        return events

    def _event(self, worker: int, actor: _Actor, result: Greeting | Checked | Reply) -> Event | None:
        """The event that an answer is; None for a greeting like the driver's: its check follows."""
        if isinstance(result, Reply):
            return Finished(worker, result)
        if isinstance(result, Greeting):
            actor.greeting = result
            reasons = differences(full_greeting(), result)
            return Refused(worker, "; ".join(reasons), result.node) if reasons else None
        assert actor.greeting is not None
        directory = self._probe.unshared(result)
        if directory is not None:
            reason = f"{directory} is not the directory that the driver sees: {SHARED}"
            return Refused(worker, reason, actor.node, ends_run=True)
        if result.lacking:
            return Refused(worker, "; ".join(result.lacking), actor.node)
        return Started(worker, actor.greeting)


def _node_ids(addresses: Collection[str]) -> list[str]:
    """The ids of living nodes at the addresses."""
    nodes = ray.nodes() if addresses else []
    return [node["NodeID"] for node in nodes if node["Alive"] and node["NodeManagerAddress"] in addresses]


def _reason(error: BaseException) -> str:
    """Ray's account without its line breaks. Of a long one, such as a traceback, the kind and the cause: its ends."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = " ".join(lines)
    return f"worker died: {text if len(text) <= _REASON_CHARACTERS else f'{lines[0]} ... {lines[-1]}'}"


def _node_in(error: BaseException) -> str:
    """The node's address in Ray's account of a failed start (`ip: 10.0.0.3`, `ip=10.0.0.3`), else nothing."""
    found = re.search(r"\bip(?:: |=)([0-9a-f.:]*[0-9a-f])", str(error))
    return found[1] if found else ""
