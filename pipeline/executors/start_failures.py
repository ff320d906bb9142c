"""Workers that could not be started: how often on which node, when to try again, and when to stop."""

from __future__ import annotations

from collections import Counter

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0


class StartFailures:
    """Counts failed starts in a row by node; a success on a node clears its count. An unknown node's name is empty."""

    def __init__(self, *, max_attempts: int) -> None:
        """Failures of a node are tolerated up to `max_attempts`."""
        self._max_attempts = max_attempts
        self._in_a_row: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._resume_at = 0.0

    def failed(self, node: str, reason: str, *, now: float) -> None:
        """Count a failed start. The pause after it doubles with each one: 0.1, 0.2, 0.4 ... 30 seconds."""
        self._in_a_row[node] += 1
        self._reasons[node] = reason
        pause = _FIRST_PAUSE_SECONDS * 2 ** min(self._in_a_row[node] - 1, 10)
        self._resume_at = now + min(pause, _LONGEST_PAUSE_SECONDS)

    def succeeded(self, node: str) -> None:
        """Clear the counts of the node and of unknown nodes, and the pause."""
        for known in (node, ""):
            self._in_a_row.pop(known, None)
            self._reasons.pop(known, None)
        self._resume_at = 0.0

    @property
    def resume_at(self) -> float:
        """The time before which no worker is started."""
        return self._resume_at

    @property
    def bad_nodes(self) -> frozenset[str]:
        """Known nodes on which `max_attempts` starts in a row have failed."""
        return frozenset(n for n, times in self._in_a_row.items() if n and times >= self._max_attempts)

    def give_up_reason(self) -> str | None:
        """Return why to stop if no worker is left, or None while no node has used up its attempts."""
        for node, times in self._in_a_row.most_common(1):
            if times >= self._max_attempts:
                where = f" on {node}" if node else ""
                return f"no worker can be started{where}: {self._reasons[node]} ({times} attempts)"
        return None
