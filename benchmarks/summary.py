"""The order of runs, and their medians, spreads and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


def interleaved(names: Sequence[str], *, rounds: int) -> list[tuple[int, str]]:
    """Return (round, name) in the order of running: each round has every name once and begins with a different one.

    So a slow period of the machine affects all contestants alike, and none always follows the same one.
    """
    return [(turn, names[(turn + i) % len(names)]) for turn in range(rounds) for i in range(len(names))]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The measurements of one quantity."""

    median: float
    lowest: float
    highest: float
    values: tuple[float, ...]
    """In the order of the rounds."""

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Summarize measurements, at least one."""
        return Spread(median=median(values), lowest=min(values), highest=max(values), values=tuple(values))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, to 6 significant digits."""
        rounded = {key: _rounded(value) for key, value in asdict(self).items() if key != "values"}
        return {**rounded, "values": [_rounded(value) for value in self.values]}


def ratios(seconds: Mapping[str, Spread], *, of: str) -> dict[str, dict[str, float]]:
    """Return how many times faster `of` is: the ratio of medians, and the lowest and highest ratio of a round."""
    ours = seconds[of]
    found = {}
    for name, theirs in seconds.items():
        if name != of:
            each = [b / a for a, b in zip(ours.values, theirs.values, strict=True)]
            found[name] = {
                "ratio": _rounded(theirs.median / ours.median),
                "lowest_round": _rounded(min(each)),
                "highest_round": _rounded(max(each)),
            }
    return found


def line_fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Fit y = intercept + slope · x by least squares; return both and R². Needs at least two different x."""
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    sxx = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sxx
    intercept = mean_y - slope * mean_x
    residual = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    total = sum((b - mean_y) ** 2 for b in y)
    return intercept, slope, 1 - residual / total if total else 1.0


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
