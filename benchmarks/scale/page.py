"""The tables of docs/speed.md on many partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.machine import in_words
from benchmarks.scale.planning import KINDS
from benchmarks.scale.runs import STEPS

RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
_PAGE = Path(__file__).parents[2] / "docs" / "speed.md"


def write_page(results: dict[str, Any]) -> None:
    """Replace the tables in docs/speed.md by those of the results."""
    page = _PAGE.read_text(encoding="utf-8")
    for name, table in (("scale", planning_table), ("scale-runs", runs_table)):
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = page.partition(begin)
        page = before + begin + table(results["planning" if name == "scale" else "runs"]) + end + rest.partition(end)[2]
    _PAGE.write_text(page, encoding="utf-8")


def planning_table(results: dict[str, Any]) -> str:
    """Return the results of planning as Markdown."""
    return _table(results, {KINDS[kind]: found for kind, found in results["kinds"].items()}, heading="input")


def runs_table(results: dict[str, Any]) -> str:
    """Return the results of runs as Markdown."""
    published = results["publication"]["cpu_seconds"]
    line = (
        f"A worker's publication of a partition's file, in memory: {published['median'] * 1e3:.2f} ms of CPU "
        f"({published['lowest'] * 1e3:.2f}–{published['highest'] * 1e3:.2f}), whatever the number of partitions."
    )
    return _table(results, {STEPS[step]: found for step, found in results["steps"].items()}, heading="command") + (
        f"{line}\n"
    )


def _table(results: dict[str, Any], rows: dict[str, Any], *, heading: str) -> str:
    lines = [f"| {heading} | partitions | wall s | CPU s | peak memory |", "| --- | ---: | ---: | ---: | ---: |"]
    fits = []
    for title, found in rows.items():
        for size, of_size in found["sizes"].items():
            wall, cpu, peak = (of_size[key] for key in ("seconds", "cpu_seconds", "peak_mb"))
            cells = (title, f"{int(size):,}", _spread(wall), _spread(cpu), f"{peak['median']:,.0f} MB")
            lines.append(f"| {' | '.join(cells)} |")
        cpu, memory = found["lines"]["cpu_seconds"], found["lines"]["peak_mb"]
        fits.append(
            f"{title}: {cpu['per_partition'] * 1e6:.0f} µs of CPU (R² = {cpu['r_squared']:.4f}) and "
            f"{memory['per_partition'] * 1e3:.2f} kB (R² = {memory['r_squared']:.4f}) a partition."
        )
    rounds = results["rounds"]
    runs = "one run of each" if rounds == 1 else f"median of {rounds} interleaved rounds"
    return "\n".join([f"{in_words(results['machine'])}; {runs}.", "", *lines, "", *fits]) + "\n"


def _spread(found: dict[str, Any]) -> str:
    middle = f"{found['median']:.1f}"
    return middle if len(found["values"]) == 1 else f"{middle} ({found['lowest']:.1f}–{found['highest']:.1f})"
