"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results" / "classifiers.json"
_POOLED = "pooled"


def table(results: dict[str, Any]) -> str:
    """A line for each task and contestant: means over the seeds, and the difference of `pooled` from it."""
    lines = [
        "| task (texts: training, test) | classifier | accuracy | macro F1 | Δ accuracy of `pooled` |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, task in results["tasks"].items():
        lines += _lines(f"{name} ({task['train']:,}, {task['test']:,})", list(task["seeds"].values()))
    return "\n".join(lines) + "\n"


def _lines(name: str, seeds: list[dict[str, Any]]) -> Iterator[str]:
    for number, contestant in enumerate(name for name in seeds[0] if name != "differences"):
        accuracy, macro_f1 = ([seed[contestant][key] for seed in seeds] for key in ("accuracy", "macro_f1"))
        shown = "" if contestant == _POOLED else _difference([seed["differences"][contestant] for seed in seeds])
        yield (
            f"| {name if not number else ''} | {contestant} | {np.mean(accuracy):.3f} | {np.mean(macro_f1):.3f} "
            f"| {shown} |"
        )


def _difference(seeds: list[list[float]]) -> str:
    """The mean difference, and that of each seed with its interval: `+0.043 (+0.041 ± 0.008, ...)`."""
    each = ", ".join(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in seeds)
    return f"{np.mean([mean for mean, _, _ in seeds]):+.3f} ({each})"
