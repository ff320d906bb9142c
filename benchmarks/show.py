"""Writes Markdown tables and a bar chart from the JSON files of results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import in_words

WHOLE_JOB, PARTS, SCALING = "whole_job.json", "parts.json", "scaling.json"
REPEATED = "whole_job_repeated.json"
"""The whole job on an input that was repeated to a size."""
KINDS = "kinds.json"
CONVERSION = "conversion.json"
CHART = "whole_job.png"
_OURS = "colophon"


def tables(results: Path, *, only: str | None = None) -> str:
    """Return Markdown for every JSON file that exists."""
    makers = {
        WHOLE_JOB: _whole_job,
        PARTS: _parts,
        KINDS: _kinds,
        SCALING: _scaling,
        REPEATED: _whole_job,
        CONVERSION: _conversion,
    }
    found = [
        "\n".join(make(json.loads((results / name).read_text(encoding="utf-8"))))
        for name, make in makers.items()
        if (results / name).is_file() and only in (None, name)
    ]
    return "\n\n".join(found)


def _whole_job(result: dict[str, Any]) -> Iterator[str]:
    yield f"{_input(result)}; {result['workers']} workers each; {in_words(result['machine'])}; {_rounds(result)}."
    yield ""
    titles = ("wall s", "seconds = start + rate × MB", "MB/s", "documents/s", "peak memory", "Colophon is faster")
    yield from _row("", *titles)
    yield from _row("---", *["---:"] * len(titles))
    details = result["ratio_details"]
    for name, found in _by_wall(result):
        ratio = details.get(name)
        yield from _row(
            found["title"],
            _spread(found["wall_seconds"], ".1f"),
            _line(found, result["input"]),
            f"{found['megabytes_per_second']['median']:.2f}",
            f"{found['documents_per_second']['median']:,.0f}",
            "-" if found["peak_pss_bytes"] is None else f"{found['peak_pss_bytes'] / 1e9:.1f} GB",
            "" if ratio is None else f"**{_times(ratio['ratio'])}**{_without_start(result, name)}",
        )
    for name, reason in result["left_out"].items():
        yield from _row(name, f"left out: {reason}", *[""] * 5)


def _line(found: dict[str, Any], of: dict[str, Any]) -> str:
    """The line through the medians of the small job and of the whole one; a dash if they are the same size."""
    megabytes, small = of["text_bytes"] / 1e6, of["start_text_bytes"] / 1e6
    if megabytes <= small:
        return "-"
    wall, start = found["wall_seconds"]["median"], found["start_seconds"]["median"]
    rate = (wall - start) / (megabytes - small)
    return f"{start - rate * small:.1f} + {rate:.4f} × MB"


def _without_start(result: dict[str, Any], name: str) -> str:
    ratio = result["ratios_without_start"].get(name)
    return "" if ratio is None else f" ({_times(ratio)} without start)"


def _parts(result: dict[str, Any]) -> Iterator[str]:
    speeds, ratios = result["megabytes_per_second"], result["ratios"]
    yield from _row("one part alone, one core", "MB/s of text", "")
    yield from _row("---", "---:", "---")
    for name, title, remark in (
        ("annotate", "annotate: both classifiers", f"{_times(ratios['annotate_to_library']['ratio'])} the library"),
        ("kernel", "its kernel", f"{_times(ratios['kernel_to_library']['ratio'])} the library"),
        ("library", "fastText library, both classifiers", ""),
        ("tokenize", "tokenize, cold text", f"{_times(ratios['tokenize_to_tiktoken']['ratio'])} tiktoken"),
        ("tiktoken", "tiktoken", ""),
        ("read", "read", ""),
        ("write", "write", ""),
    ):
        yield from _row(title, _spread(speeds[name], ".1f"), remark)
    yield ""
    yield from _row("pack, one core", "million tokens/s", "with metadata")
    yield from _row("---", "---:", "---:")
    for layout, found in result["pack_million_tokens_per_second"].items():
        yield from _row(layout, _spread(found["pack"], ".0f"), _spread(found["with_metadata"], ".0f"))
    yield ""
    yield f"{_limit(result)}\n{_shares(result)}"


def _limit(result: dict[str, Any]) -> str:
    limit = result["projected_limit"]
    words = {"with_start": "with starting", "without_start": "without", "pass_alone": "in its pass"}
    reached = ", ".join(f"{limit[key]:.2f} of it {phrase}" for key, phrase in words.items() if key in limit)
    speed = limit["megabytes_per_second"]
    return f"Projected limit of {result['workers']} workers: {speed:.1f} MB/s. The whole job reaches {reached}."


def _shares(result: dict[str, Any]) -> str:
    shares = dict(result["shares"])
    loading = shares.pop("loading_seconds")
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return f"Of the workers' time: {parts}; loading {loading:.1f} s besides."


def _kinds(result: dict[str, Any]) -> Iterator[str]:
    sizes = ", ".join(f"{size / 1e6:.1f} MB of {group}" for group, size in result["text_bytes"].items())
    yield f"{sizes}; CPU time of one thread; {in_words(result['machine'])}; {_rounds(result)}."
    yield ""
    groups = list(result["text_bytes"])
    titles = [title for group in groups for title in (f"{group}: MB/s", "library", "faster")]
    yield from _row("kind of model", *titles, "largest difference")
    yield from _row("---", *["---:"] * (len(titles) + 1))
    for kind in result["kinds"].values():
        found = [kind["groups"][group] for group in groups]
        cells = [
            cell
            for each in found
            for cell in (
                f"{each['kernel']['median']:.1f}",
                f"{each['library']['median']:.1f}",
                f"{_spread(each['times_faster'], '.1f')} x",
            )
        ]
        largest = max(each["largest_difference"] for each in found)
        yield from _row(kind["title"], *cells, f"{largest:.0e}" if largest else "0")


def _conversion(result: dict[str, Any]) -> Iterator[str]:
    yield f"{in_words(result['machine'])}; {_rounds(result)}."
    yield ""
    titles = ("MB written", "MB/s", "copy: MB/s", "times of a copy", "MB of ids per CPU second")
    yield from _row("format", *titles)
    yield from _row("---", *["---:"] * len(titles))
    for name, found in result["formats"].items():
        spreads = [
            _spread(found[key], form)
            for key, form in (
                ("mb_per_second", ".0f"),
                ("copy_mb_per_second", ".0f"),
                ("seconds_of_a_copy", ".1f"),
                ("id_mb_per_cpu_second", ".0f"),
            )
        ]
        yield from _row(f"`{name}`", f"{found['written_mb']:.0f}", *spreads)


def _scaling(result: dict[str, Any]) -> Iterator[str]:
    workers = dict(result["workers"])
    faster = workers.pop("times_faster")
    yield from _row("text", "workers", "wall s", "peak memory")
    yield from _row("---:", "---:", "---:", "---:")
    size = f"{result['input']['text_bytes'] / 1e6:.0f} MB"
    for number, found in workers.items():
        yield from _row(size, number, _spread(found["wall_seconds"], ".1f"), _memory(found))
    most = max(workers, key=int)
    for found in result["sizes"]["runs"]:
        yield from _row(f"{found['megabytes']:.0f} MB", most, _spread(found["wall_seconds"], ".1f"), _memory(found))
    line = result["sizes"]["line"]
    yield ""
    yield (
        f"{most} workers are {faster:.2f} times as fast as one. "
        f"Line: {line['start_seconds']:.1f} s + {line['seconds_per_megabyte']:.4f} s/MB"
        f" (R² = {line['r_squared']:.3f})."
    )


def _times(ratio: float) -> str:
    return f"{ratio:.2g} x" if ratio < 1 else f"{ratio:.1f} x"


def _memory(found: dict[str, Any]) -> str:
    return "-" if found["peak_pss_bytes"] is None else f"{found['peak_pss_bytes'] / 1e9:.2f} GB"


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"


def _spread(found: dict[str, Any], form: str) -> str:
    low, high = format(found["lowest"], form), format(found["highest"], form)
    return format(found["median"], form) + ("" if low == high else f" ({low}–{high})")


def _input(result: dict[str, Any]) -> str:
    found = result["input"]
    sizes = " and ".join(f"{c['bytes'] / 1e9:.2g} GB ({c['labels']} labels)" for c in found["classifiers"])
    return (
        f"{found['text_bytes'] / 1e6:,.0f} MB of text ({found['name']}, {found['documents']:,} documents, "
        f"{found['files']} files); classifiers of {sizes}"
    )


def _rounds(result: dict[str, Any]) -> str:
    return f"median of {result['rounds']} interleaved rounds" if result["rounds"] > 1 else "one round"


def _by_wall(result: dict[str, Any]) -> Sequence[tuple[str, dict[str, Any]]]:
    return sorted(result["contestants"].items(), key=lambda item: item[1]["wall_seconds"]["median"])


def draw(results: Path) -> Path:
    """Write the bar chart beside `whole_job.json`: MB/s of each contestant; whiskers: slowest and fastest round."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    result = json.loads((results / WHOLE_JOB).read_text(encoding="utf-8"))
    found = _by_wall(result)[::-1]
    speeds = [contestant["megabytes_per_second"] for _, contestant in found]
    medians = [speed["median"] for speed in speeds]
    whiskers = [
        [speed["median"] - speed["lowest"] for speed in speeds],
        [speed["highest"] - speed["median"] for speed in speeds],
    ]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.55 * len(found)), layout="constrained")
    colors = ["#2a6f97" if name == _OURS else "#adb5bd" for name, _ in found]
    titles = [contestant["title"] for _, contestant in found]
    axes.barh(titles, medians, xerr=whiskers, color=colors, ecolor="#495057", capsize=3)
    for place, (name, _) in enumerate(found):
        ratio = result["ratios"].get(name)
        label = f"{medians[place]:.1f} MB/s" + ("" if ratio is None else f"   (Colophon {_times(ratio)})")
        axes.annotate(label, (speeds[place]["highest"], place), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.35 * max(speed["highest"] for speed in speeds))
    axes.set_xlabel("MB of text a second: Parquet → two classifiers → tokens → disk, starting included")
    axes.set_title(f"{result['workers']} workers, {in_words(result['machine'])}", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    path = results / CHART
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)
    return path
