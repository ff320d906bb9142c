"""Nodes on which workers cannot be started: how often, when to try again, and which are left out of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
_SHOWN_NODES = 8


class StartFailures:
    """Counts failed starts in a row by node; a success on a node clears its count.

    An unknown node's name is empty: its failures let all nodes pause.
    """

    def __init__(self, *, max_attempts: int) -> None:
        """A node is left out after `max_attempts` failures in a row."""
        self._max_attempts = max_attempts
        self._in_a_row: Counter[str] = Counter()
        self._resume_at: dict[str, float] = {}
        self._excluded: dict[str, str] = {}

    def failed(self, node: str, reason: str, *, now: float) -> None:
        """Count a failed start. The pause after it doubles with each one: 0.1, 0.2, 0.4 ... 30 seconds."""
        self._in_a_row[node] += 1
        pause = _FIRST_PAUSE_SECONDS * 2 ** min(self._in_a_row[node] - 1, 10)
        self._resume_at[node] = now + min(pause, _LONGEST_PAUSE_SECONDS)
        if self._in_a_row[node] >= self._max_attempts:
            self._excluded.setdefault(node, f"{reason} ({self._in_a_row[node]} attempts)")

    def refuse(self, node: str, reason: str) -> None:
        """Leave a node out that lacks what the work needs."""
        self._excluded.setdefault(node, reason)

    def succeeded(self, node: str) -> None:
        """Clear the counts and pauses of the node and of unknown nodes."""
        for known in (node, ""):
            self._in_a_row.pop(known, None)
            self._resume_at.pop(known, None)
        self._excluded.pop("", None)

    @property
    def excluded(self) -> frozenset[str]:
        """The known nodes that are left out."""
        return frozenset(filter(None, self._excluded))

    @property
    def notes(self) -> list[str]:
        """A line on each node that is left out."""
        return [f"node {node} is left out: {reason}" for node, reason in self._excluded.items() if node]

    def avoided(self, *, now: float) -> frozenset[str]:
        """The nodes on which no worker is started now; with an empty name among them, on no node."""
        return self.excluded | {node for node, time in self._resume_at.items() if time > now}

    def next_resume(self, *, now: float) -> float | None:
        """The next time at which a node's pause ends; None if none pauses."""
        times = [t for node, t in self._resume_at.items() if t > now and (not node or node not in self._excluded)]
        return min(times, default=None)

    def give_up_reason(self, nodes: Collection[str]) -> str | None:
        """Return why no worker can be started on any of the living nodes; None while one may do."""
        if "" not in self._excluded and not (nodes and self.excluded.issuperset(nodes)):
            return None
        reasons = [f" on {node}: {reason}" if node else f": {reason}" for node, reason in self._excluded.items()]
        more = f"; and {len(reasons) - _SHOWN_NODES} more nodes" if len(reasons) > _SHOWN_NODES else ""
        return "no worker can be started" + ";".join(reasons[:_SHOWN_NODES]) + more
