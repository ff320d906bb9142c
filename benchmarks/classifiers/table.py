"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results" / "classifiers.json"
_POOLED = "pooled"


def table(results: dict[str, Any]) -> str:
    """A line for each task and contestant: means over the seeds, and the difference of `pooled` from it.

    A second table has the rank correlations of tasks whose labels are numbers.
    """
    lines = [
        "| task (texts: training, test) | classifier | accuracy | macro F1 | Δ accuracy of `pooled` |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, task in results["tasks"].items():
        lines += _lines(f"{name} ({task['train']:,}, {task['test']:,})", _of(task))
    ordered = {name: seeds for name, task in results["tasks"].items() if "rank_differences" in (seeds := _of(task))[0]}
    if ordered:
        lines += [
            "",
            "| task | classifier | rank correlation | Δ rank correlation of `pooled` |",
            "| --- | --- | --- | --- |",
        ]
    for name, seeds in ordered.items():
        lines += _rank_lines(name, seeds)
    return "\n".join(lines) + "\n"


def _of(task: dict[str, Any]) -> list[dict[str, Any]]:
    return list(task["seeds"].values())


def _lines(name: str, seeds: list[dict[str, Any]]) -> Iterator[str]:
    for number, contestant in enumerate((_POOLED, *seeds[0]["differences"])):
        accuracy, macro_f1 = ([seed[contestant][key] for seed in seeds] for key in ("accuracy", "macro_f1"))
        shown = "" if contestant == _POOLED else _difference([seed["differences"][contestant] for seed in seeds])
        yield (
            f"| {name if not number else ''} | {contestant} | {np.mean(accuracy):.3f} | {np.mean(macro_f1):.3f} "
            f"| {shown} |"
        )


def _rank_lines(name: str, seeds: list[dict[str, Any]]) -> Iterator[str]:
    for number, contestant in enumerate(seeds[0]["rank_correlation"]):
        mean = np.mean([seed["rank_correlation"][contestant][0] for seed in seeds])
        shown = "" if contestant == _POOLED else _difference([seed["rank_differences"][contestant] for seed in seeds])
        yield f"| {name if not number else ''} | {contestant} | {mean:.3f} | {shown} |"


def _difference(seeds: list[list[float]]) -> str:
    """The mean difference, and that of each seed with its interval: `+0.043 (+0.041 ± 0.008, ...)`."""
    each = ", ".join(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in seeds)
    return f"{np.mean([mean for mean, _, _ in seeds]):+.3f} ({each})"
