"""Tables of `colophon probe` and `colophon attention`, from the content of their JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from rich.table import Table

from colophon.pipeline.errors import printable

DOCUMENT_INTERVALS = (
    "Intervals come from resampled documents of one model: models of other training seeds may differ by more than that."
)
_STATES, _PROBES = ("last", "mean"), ("linear", "mlp")
_EXCLUSION_REASONS = {
    "few_documents": "with too few documents",
    "few_groups": "in too few groups",
    "few_documents_in_a_part": "too much in one group",
}


def probe_table(column: Mapping[str, Any]) -> Table:
    """Accuracy with its interval and macro-F1 of each layer's probes on test documents, beside controls.

    `column` is an entry of `columns` in `probe-<settings>.json`. A star marks results with `warnings`.
    """
    parts = {part: sum(counts[part] for counts in column["classes"].values()) for part in column["groups"]}
    documents = ", ".join(f"{count:,} {part}" for part, count in parts.items())
    is_marked = any(result["warnings"] for result in column["results"] if result["model"] != "shuffled")
    table = _table(
        f"{printable(column['column'])}: {len(column['classes'])} classes; {documents} documents, split by "
        f"{printable(column['split_by'])}; accuracy [95 %] macro-F1",
        f"most frequent class: {_score_with_interval(column['majority'])}; shuffled labels: mean of "
        f"{column['permutations']} permutations [lowest–highest]; excluded: {_excluded_classes(column['excluded'])}"
        + ("; *: see the lines below" if is_marked else ""),
    )
    table.add_column("layer", justify="right")
    for states, probe in product(_STATES, _PROBES):
        table.add_column(f"{states}, {probe}", justify="right")
    for control in ("untrained", "shuffled"):
        table.add_column(f"{control}: mean, mlp", justify="right")
    results = {(r["layer"], r["model"], r["states"], r["probe"]): r for r in column["results"]}
    for layer in sorted({r["layer"] for r in column["results"]}):
        trained = [results[layer, "trained", states, probe] for states, probe in product(_STATES, _PROBES)]
        untrained, shuffled = (results[layer, control, "mean", "mlp"] for control in ("untrained", "shuffled"))
        table.add_row(
            str(layer),
            *(_score_with_interval(result["score"]) + _mark(result) for result in trained),
            _score_values(untrained["score"]) + _mark(untrained),
            _score_with_interval(shuffled["score"]),
        )
    return table


def _mark(result: Mapping[str, Any]) -> str:
    return "*" if result["warnings"] else ""


def attention_table(report: Mapping[str, Any]) -> Table:
    """Attention of text tokens to each part over all layers and heads, beside even attention, from `attention.json`."""
    table = _table(
        f"{printable(report['name'])}, step {report['step']:,}: attention of text tokens in {report['documents']:,} "
        f"documents with layout {printable(report['layout'])}",
        f"excluded documents: {_counts(report['excluded'])}",
    )
    table.add_column("part", overflow="fold")
    for name in ("tokens", "attention [95 %]", "even attention", "multiple", "strongest in"):
        table.add_column(name, justify="right")
    for part in report["parts"]:
        mass, uniform = part["mass"], part["uniform"]
        table.add_row(
            printable(part["part"]),
            f"{part['tokens']:.1f}",
            f"{mass['value']:.2%}" + ("" if mass["low"] is None else f" [{mass['low']:.2%} {mass['high']:.2%}]"),
            f"{uniform:.2%}",
            f"{mass['value'] / uniform:.2f} x" if uniform else "-",
            _strongest_head(part["by_head"]),
        )
    return table


def bins_table(bins: Mapping[str, Any]) -> Table:
    """Distances within and between bins by attention to meta tokens, from `bins` of `attention.json`."""
    sizes = ", ".join(f"{printable(value)}: {count}" for value, count in bins["bins"].items())
    table = _table(
        f"{printable(bins['column'])}: attention of the first {bins['tokens']} text tokens to the meta tokens",
        f"documents: {sizes}; excluded: {_counts(bins['excluded'])}",
    )
    table.add_column("distance")
    table.add_column("model")
    for name in ("within a bin", "between bins", "p"):
        table.add_column(name, justify="right")
    for key, model in (("distances", "trained"), ("untrained", "untrained")):
        for distances in bins[key]:
            numbers = (f"{distances['within']:.4g}", f"{distances['between']:.4g}", f"{distances['p_value']:.3f}")
            table.add_row(distances["metric"], model, *numbers)
    return table


def _table(title: str, caption: str) -> Table:
    return Table(title=title, caption=caption)


def _score_with_interval(score: Mapping[str, Any]) -> str:
    """`0.71 [0.65–0.77] 0.68`: accuracy with its interval, and macro-F1."""
    accuracy = score["accuracy"]
    interval = "" if accuracy["low"] is None else f" [{accuracy['low']:.2f}–{accuracy['high']:.2f}]"
    return f"{accuracy['value']:.2f}{interval} {score['macro_f1']['value']:.2f}"


def _score_values(score: Mapping[str, Any]) -> str:
    """`0.71 0.68`: accuracy and macro-F1."""
    return f"{score['accuracy']['value']:.2f} {score['macro_f1']['value']:.2f}"


def _strongest_head(by_head: list[list[float]]) -> str:
    """The head with the most attention to a part."""
    mass, layer, head = max((mass, i, j) for i, row in enumerate(by_head) for j, mass in enumerate(row))
    return f"layer {layer + 1} head {head + 1}: {mass:.1%}"


def _excluded_classes(excluded: Mapping[str, Any]) -> str:
    """`1 document without a value, 2 classes with too few documents (6 documents)`."""
    missing = excluded["documents_without_value"]
    lines = [f"{_counted(missing, 'document', 'documents')} without a value"] if missing else []
    for key, reason in _EXCLUSION_REASONS.items():
        sizes = [size["documents"] for size in excluded[key].values()]
        if sizes:
            documents = _counted(sum(sizes), "document", "documents")
            lines.append(f"{_counted(len(sizes), 'class', 'classes')} {reason} ({documents})")
    return ", ".join(lines) or "nothing"


def _counted(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"


def _counts(excluded: Mapping[str, int]) -> str:
    """`3 too short, 1 without value`."""
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in excluded.items() if count) or "none"
