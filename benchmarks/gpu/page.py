"""Markdown of the results: what was measured, on what, and what was not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import parts
from benchmarks.gpu.records import read_records
from benchmarks.gpu.running import RUN
from benchmarks.machine import in_words

NOTHING = "Not measured: `make gpu` has not been run on a GPU."


def page(results: Path) -> str:
    """Return the text of a directory of results; `NOTHING` where there are none of a GPU."""
    path = results / RUN
    run = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not run.get("gpu"):
        return f"{NOTHING}\n"
    return "\n".join(lines(run, results)) + "\n"


def lines(run: dict[str, Any], results: Path) -> Iterator[str]:
    """Yield the lines of a run's page, on whatever device."""
    yield f"{_device(run)}; torch {run['torch']}; {run['date']}; {run['minutes']:g} minutes."
    yield ""
    for make in (_tests, _equality, _speed, _modes, _host, _masking):
        found = list(make(results))
        yield from ([*found, ""] if found else [])
    yield from _ends(run)


def _device(run: dict[str, Any]) -> str:
    gpu = run.get("gpu")
    return in_words(run["machine"]) if gpu is None else f"{gpu['name']}, {gpu['memory_gb']:.0f} GB"


def _tests(results: Path) -> Iterator[str]:
    found = read_records(results / "tests.jsonl")
    if not found:
        return
    counts = {outcome: sum(one["outcome"] == outcome for one in found) for outcome in ("passed", "failed", "skipped")}
    yield f"CUDA tests: {', '.join(f'{number} {outcome}' for outcome, number in counts.items())}."
    for one in found:
        if one["outcome"] == "failed":
            yield f"- `{one['test']}`: {one['reason']}"


def _equality(results: Path) -> Iterator[str]:
    found = read_records(results / "equality.jsonl")
    if not found:
        return
    yield "Relative differences to float64 on the CPU; a gradient's is that of the parameter where it is largest."
    yield ""
    yield from _header("attention", "documents masked", "type", "loss", "of the CPU", "gradient", "of the CPU")
    for one in found:
        values = [one[where][what] for what in ("loss", "gradient") for where in ("device", "cpu")]
        masked = "yes" if one["documents_masked"] else "no"
        yield _row(one["kind"], masked, one["dtype"], *(f"{value:.1e}" for value in values))


def _speed(results: Path) -> Iterator[str]:
    run = json.loads((results / RUN).read_text(encoding="utf-8"))
    peak = (run.get("gpu") or {}).get("peak_tflops")
    titles = ("model, ids, sequence", "contestant", "tokens/s", "MFU", "memory", "Colophon is faster")
    rows = [row for path in sorted(results.glob("speed-*.jsonl")) for row in _speed_rows(path, peak=peak)]
    if rows:
        yield from _header(*titles)
        yield from rows


def _speed_rows(path: Path, *, peak: float | None) -> Iterator[str]:
    _, preset, num_ids, length = path.stem.split("-")
    found = {one["contestant"]: one for one in read_records(path) if "contestant" in one}
    ours = found.get("colophon", {}).get("tokens_per_second")
    for name, one in found.items():
        where = f"{preset}, {int(num_ids):,}, {length}"
        if "failed" in one:
            yield _row(where, name, f"failed: {one['failed']}", "", "", "")
            continue
        speed, seconds = one["tokens_per_second"], one["seconds_per_step"]
        tokens = speed * seconds["median"]
        spread = f"{speed:,.0f} ({tokens / seconds['highest']:,.0f}–{tokens / seconds['lowest']:,.0f})"
        mfu = "-" if peak is None else f"{speed * one['flops_per_token'] / (peak * 1e12):.1%}"
        faster = "" if ours is None or name == "colophon" else f"{ours / speed:.2f} x"
        yield _row(where, name, spread, mfu, f"{one['memory_bytes'] / 1e9:.1f} GB", faster)


def _modes(results: Path) -> Iterator[str]:
    rows = [row for path in sorted(results.glob("modes-*.jsonl")) for row in _mode_rows(path)]
    if rows:
        yield "One training in several ways, with documents masked; speed and losses beside those of the first."
        yield ""
        yield from _header("model", "way", "tokens/s", "speed", "losses differ by", "memory")
        yield from rows


def _mode_rows(path: Path) -> Iterator[str]:
    preset, found = path.stem.removeprefix("modes-"), read_records(path)
    first = next((one for one in found if "failed" not in one), None)
    for one in found:
        if first is None or "failed" in one:
            yield _row(preset, one["contestant"], f"failed: {one['failed']}", "", "", "")
            continue
        rows = one.get("rows_at_once")
        way = one["contestant"] if rows is None else f"{one['contestant']}: {rows}"
        difference = max(abs(a / b - 1) for a, b in zip(one["losses"], first["losses"], strict=True))
        speed = one["tokens_per_second"]
        ratio = f"{speed / first['tokens_per_second']:.2f} x"
        yield _row(preset, way, f"{speed:,.0f}", ratio, f"{difference:.1e}", f"{one['memory_bytes'] / 1e9:.1f} GB")


def _host(results: Path) -> Iterator[str]:
    found = read_records(results / "host.jsonl")
    if len(found) < 2:
        return
    early, later = found[: len(found) // 2], found[len(found) // 2 :]
    graphs = [sum(one["compiled_graphs"] for one in half) for half in (early, later)]
    waits = sum(one["waits"] for one in later) / len(later)
    yield f"The first {len(early)} of {len(found)} steps compiled {graphs[0]} graphs, those after them {graphs[1]}."
    yield f"There the host waited for the device {waits:.1f} times a step."


def _masking(results: Path) -> Iterator[str]:
    found = read_records(results / "masking.jsonl")
    if not found:
        return
    kinds = list(found[0]["milliseconds"])
    yield "Attention alone, forward and backward, milliseconds."
    yield ""
    yield from _header("heads of", "sequence", "mean document", *kinds)
    for one in found:
        times = (f"{one['milliseconds'][kind]:.2f}" if kind in one["milliseconds"] else "-" for kind in kinds)
        yield _row(one["preset"], f"{one['sequence_length']}", f"{one['mean_document']}", *times)


def _ends(run: dict[str, Any]) -> Iterator[str]:
    ended = run["parts"]
    missing = [_why(name, one) for name, one in ended.items() if one["end"] != "complete"]
    missing += [f"{part.name} (not run)" for part in parts(run["size"]) if part.name not in ended]
    yield f"Not measured, or not to the end: {'; '.join(missing)}." if missing else "All parts were measured."


def _why(name: str, one: dict[str, Any]) -> str:
    return f"{name} ({one['end']}{': ' + one['last_line'] if one.get('last_line') else ''})"


def _header(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield _row(*["---"] * len(titles))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
