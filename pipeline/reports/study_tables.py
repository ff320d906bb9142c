"""What `colophon probe` and `colophon attention` show: tables of what their JSON files hold."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from rich.table import Table

from colophon.pipeline.errors import printable

_STATES, _PROBES = ("last", "mean"), ("linear", "mlp")
_WHY_LEFT_OUT = {
    "few_documents": "of too few documents",
    "few_groups": "in too few groups",
    "undivided": "too much in one group",
}


def probe_table(column: Mapping[str, Any]) -> Table:
    """Accuracy with its interval and macro-F1 of each layer's probes on test documents, beside controls.

    `column` is an entry of `columns` in `probe-<settings>.json`. A star marks what its `doubts` tell something of.
    """
    parts = {part: sum(counts[part] for counts in column["classes"].values()) for part in column["groups"]}
    documents = ", ".join(f"{count:,} {part}" for part, count in parts.items())
    table = _table(
        f"{printable(column['column'])}: {len(column['classes'])} classes; {documents} documents, split by "
        f"{printable(column['split_by'])}; accuracy [95 %] macro-F1",
        f"most frequent class: {_score(column['majority'])}; left out: {_left_out_classes(column['left_out'])}"
        + ("; *: see below" if any(r["doubts"] for r in column["results"] if r["model"] != "shuffled") else ""),
    )
    table.add_column("layer", justify="right")
    for states, probe in product(_STATES, _PROBES):
        table.add_column(f"{states}, {probe}", justify="right")
    for control in ("untrained", "shuffled"):
        table.add_column(f"{control}: mean, mlp", justify="right")
    found = {(r["layer"], r["model"], r["states"], r["probe"]): r for r in column["results"]}
    for layer in sorted({r["layer"] for r in column["results"]}):
        trained = [found[layer, "trained", states, probe] for states, probe in product(_STATES, _PROBES)]
        untrained, shuffled = (found[layer, control, "mean", "mlp"] for control in ("untrained", "shuffled"))
        controls = [_short(untrained["score"]) + _mark(untrained), _short(shuffled["score"])]
        table.add_row(str(layer), *(_score(result["score"]) + _mark(result) for result in trained), *controls)
    return table


def _mark(result: Mapping[str, Any]) -> str:
    return "*" if result["doubts"] else ""


def attention_table(report: Mapping[str, Any]) -> Table:
    """What text tokens pay to each part over all layers and heads, beside even attention; of `attention.json`."""
    table = _table(
        f"{printable(report['name'])}, step {report['step']:,}: attention of text tokens in {report['documents']:,} "
        f"documents with layout {printable(report['layout'])}",
        f"left out: {_left_out(report['left_out'])}",
    )
    table.add_column("part")
    for name in ("tokens", "attention [95 %]", "evenly", "multiple", "most of all in"):
        table.add_column(name, justify="right")
    for part in report["parts"]:
        mass, uniform = part["mass"], part["uniform"]
        table.add_row(
            printable(part["part"]),
            f"{part['tokens']:.1f}",
            f"{mass['value']:.2%}" + ("" if mass["low"] is None else f" [{mass['low']:.2%} {mass['high']:.2%}]"),
            f"{uniform:.2%}",
            f"{mass['value'] / uniform:.2f} x" if uniform else "-",
            _most(part["by_head"]),
        )
    return table


def bins_table(bins: Mapping[str, Any]) -> Table:
    """Distances of attention to meta tokens within and between bins; `bins` of `attention.json`."""
    sizes = ", ".join(f"{printable(value)}: {count}" for value, count in bins["bins"].items())
    table = _table(
        f"{printable(bins['column'])}: attention of the first {bins['tokens']} text tokens to the meta tokens",
        f"documents: {sizes}; left out: {_left_out(bins['left_out'])}",
    )
    table.add_column("distance")
    table.add_column("model")
    for name in ("within a bin", "between bins", "p"):
        table.add_column(name, justify="right")
    for model in ("distances", "untrained"):
        for found in bins[model]:
            numbers = (f"{found['within']:.4g}", f"{found['between']:.4g}", f"{found['p_value']:.3f}")
            table.add_row(found["metric"], "trained" if model == "distances" else model, *numbers)
    return table


def _table(title: str, caption: str) -> Table:
    return Table(title=title, caption=caption, title_justify="left", caption_justify="left", min_width=80)


def _score(score: Mapping[str, Any]) -> str:
    accuracy = score["accuracy"]
    interval = "" if accuracy["low"] is None else f" [{accuracy['low']:.2f}–{accuracy['high']:.2f}]"
    return f"{accuracy['value']:.2f}{interval} {score['macro_f1']['value']:.2f}"


def _short(score: Mapping[str, Any]) -> str:
    return f"{score['accuracy']['value']:.2f} {score['macro_f1']['value']:.2f}"


def _most(by_head: list[list[float]]) -> str:
    """The head that looks at a part most."""
    mass, layer, head = max((mass, i, j) for i, row in enumerate(by_head) for j, mass in enumerate(row))
    return f"layer {layer + 1} head {head + 1}: {mass:.1%}"


def _left_out_classes(found: Mapping[str, Any]) -> str:
    """Of `probe`: documents without a value, and how many documents of how many classes are out for which reason."""
    missing = found["documents_without_value"]
    told = [f"{_number(missing, 'document')} without a value"] if missing else []
    for reason, why in _WHY_LEFT_OUT.items():
        sizes = [size["documents"] for size in found[reason].values()]
        if sizes:
            told.append(f"{_number(len(sizes), 'class', 'classes')} {why} ({_number(sum(sizes), 'document')})")
    return ", ".join(told) or "nothing"


def _number(count: int, one: str, more: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _left_out(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "nothing"
