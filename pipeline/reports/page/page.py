"""The page of a run, from its files to its text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from colophon.pipeline.reports.page import charts, markup
from colophon.pipeline.reports.page.columns import Distribution, distributions
from colophon.pipeline.reports.page.markup import Html
from colophon.pipeline.reports.page.packed import Lengths, lengths, sequences
from colophon.pipeline.reports.page.relations import Relation, relations
from colophon.pipeline.reports.page.trainings import Trainings, evaluation_parts, training_parts
from colophon.pipeline.reports.summary import (
    RUN,
    document_counts,
    layout_counts,
    layout_table,
    pass_table,
    source_counts,
    source_table,
)
from colophon.pipeline.runs.run import describe
from colophon.shards.common.errors import ColophonError
from colophon.shards.common.output_paths import inside
from colophon.shards.common.state_files import read_state
from colophon.shards.common.url_secrets import without_secrets
from colophon.shards.manifest import Manifest
from colophon.shards.run_output import RunOutput
from colophon.shards.schema import ROLE_NAMES
from colophon.shards.tokenizer.tokenizer import Tokenizer

REPORT = "report/report.html"
_MOST_RELATIONS = 6
_SEQUENCES = 2
_MOST_QUARANTINED = 200
_QUANTILES = (("10 % have at most", 0.1), ("half", 0.5), ("90 %", 0.9), ("99 %", 0.99))


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, its charts, and the numbers that a program asks for."""

    text: str
    documents: int
    charts: list[markup.Chart]
    sections: list[str]


def page_of(run: RunOutput, *, load_tokenizer: Callable[[], Tokenizer], trainings: Trainings) -> Page:
    """The page of a run. Reads every annotation file and the offsets of every token file, in bounded memory.

    Args:
        run: the output.
        load_tokenizer: loads the run's tokenizer; if it raises, the page states why it shows no sequences.
        trainings: curves and evaluations.

    Raises:
        ShardError: a file of the run cannot be read or differs from its record.
    """
    figures = markup.Charts()
    columns = list(distributions(run))
    layouts = {name: layout_counts(packed.records) for name, packed in run.manifest.layouts.items()}
    content = {
        "Documents": list(_documents(run.manifest, lengths(run), figures)),
        "Sources": list(_sources(source_counts(run.manifest), figures)),
        "Annotations": list(_annotations(columns, figures)),
        "Relations": list(_relations(relations(run, columns, most=_MOST_RELATIONS), figures)),
        "Frequent values": list(_names(columns)),
        "Layouts": list(_layouts(layouts, run.manifest, figures)),
        "Sequences": list(_sequences(run, list(layouts), load_tokenizer)),
        "Time": list(_times(run, figures)),
        "Training": list(training_parts(trainings, figures)),
        "Evaluation": list(evaluation_parts(trainings, figures)),
        "Quarantine": list(_quarantine(run.manifest)),
        "Provenance": list(_provenance(run)),
    }
    documents = document_counts(run.manifest)["documents"]
    return page_of_sections(f"Report of {run.directory}", content, figures, documents=documents)


def page_of_sections(
    title: str, content: Mapping[str, Sequence[Html]], figures: markup.Charts, *, documents: int
) -> Page:
    """A page of those sections, by their names, that have content.

    Args:
        title: its title.
        content: the pieces of each section.
        figures: the charts that are in them.
        documents: the number of documents that the page is about.
    """
    filled = {name: parts for name, parts in content.items() if parts}
    sections = markup.joined([markup.section(name, parts) for name, parts in filled.items()])
    body = Html(
        '<a class="skip" href="#content">Skip to the content</a>'
        f"<header><h1>{markup.shown(title)}</h1></header>{markup.navigation(list(filled))}"
        f'<main id="content">{sections}</main>'
    )
    return Page(
        text=markup.page(title, body, charts=figures.drawn, library=_library() if figures.drawn else ""),
        documents=documents,
        charts=figures.drawn,
        sections=list(filled),
    )


def _library() -> str:
    import vl_convert

    # Vega, Vega-Lite and Vega-Embed, which sets `window.vegaEmbed`. The types forbid None, but "" gives no bundle.
    library: str = vl_convert.javascript_bundle(None)  # type: ignore[arg-type]
    return library


def _documents(manifest: Manifest, found: Lengths, figures: markup.Charts) -> Iterator[Html]:
    counts = document_counts(manifest)
    documents, tokens, text_bytes = (max(counts[key], 1) for key in ("documents", "tokens", "text_bytes"))
    named = [
        ("documents", f"{counts['documents']:,}"),
        ("files", f"{counts['files']:,}"),
        ("text", f"{counts['text_bytes'] / 1e6:,.1f} MB"),
        ("tokens", f"{counts['tokens']:,}"),
        ("tokens a document", f"{tokens / documents:,.0f}"),
        ("bytes a token", f"{text_bytes / tokens:.2f}"),
        ("empty texts", f"{counts['documents_empty']:,}"),
        ("null texts", f"{counts['texts_null']:,}"),
        ("lines or records excluded", f"{counts['excluded']:,}"),
    ]
    yield markup.facts(named)
    rows = found.by_power()
    if rows:
        quantiles = ", ".join(f"{name} {found.quantile(share):,}" for name, share in _QUANTILES)
        numbers = markup.table(
            "Documents by tokens",
            ("at least", "at most", "documents"),
            [(f"{low:,}", f"{high:,}", f"{n:,}") for low, high, n in rows],
            numeric=(0, 1, 2),
        )
        yield figures.figure(charts.lengths(found), title=f"Tokens of documents: {quantiles}", numbers=numbers)


def _sources(counts: Mapping[str, Mapping[str, int]], figures: markup.Charts) -> Iterator[Html]:
    if counts:
        yield markup.from_terminal(source_table({"sources": counts}))
        yield figures.figure(charts.sources(counts), title="Tokens by source")


def _annotations(columns: Sequence[Distribution], figures: markup.Charts) -> Iterator[Html]:
    rows = [
        (
            one.annotator,
            one.name,
            f"{one.known / max(one.documents, 1):.1%}",
            ("numbers" if one.bins else f"{'' if one.is_complete else 'at least '}{one.distinct:,}"),
        )
        for one in columns
    ]
    if rows:
        headings = ("annotator", "column", "known", "distinct")
        yield markup.table("Columns", headings, rows, numeric=(2, 3))
    shown = [one for one in columns if one.kind in ("classes", "numbers") and one.counts]
    drawn = [
        figures.figure(charts.distribution(one), title=f"{one.name} ({one.annotator})", numbers=_numbers(one, most=50))
        for one in shown
    ]
    if drawn:
        yield Html(f'<div class="figures">{markup.joined(drawn)}</div>')


def _numbers(column: Distribution, *, most: int) -> Html:
    bins = column.bins
    rows = [
        (value if bins is None else charts.interval(*bins.edges(int(value))), f"{n:,}", f"{n / column.known:.2%}")
        for value, n in column.counts[:most]
    ]
    return markup.table(f"{column.name}", ("value", "documents", "share of known"), rows, numeric=(1, 2))


def _relations(found: Sequence[Relation], figures: markup.Charts) -> Iterator[Html]:
    drawn = [
        figures.figure(
            charts.heat_map(one),
            title=f"{one.down.name} and {one.across.name}: mutual information {one.information:.3f} bits",
            numbers=_pairs(one),
        )
        for one in found
        if one.documents.any()
    ]
    if drawn:
        yield markup.paragraph(
            "Each row of a heat map shows how the documents with its value are distributed. Pairs are ordered by their "
            "mutual information: 0 bits means that one column says nothing about the other.",
            kind="note",
        )
        yield Html(f'<div class="figures">{markup.joined(drawn)}</div>')


def _pairs(relation: Relation) -> Html:
    """The documents of each pair of values of a heat map, and their share of the row."""
    across, down = charts.axis_labels(relation)
    rows = [
        (name, *(f"{n:,} ({n / total:.1%})" if n else "0" for n in row), f"{total:,}")
        for name, row in zip(down, relation.documents.tolist(), strict=True)
        for total in [sum(row)]
    ]
    caption = f"Documents (share of the row) by {relation.down.name} and {relation.across.name}"
    headings = (relation.down.name, *across, "all")
    return markup.table(caption, headings, rows, numeric=range(1, len(headings)), has_row_headings=True)


def _names(columns: Sequence[Distribution]) -> Iterator[Html]:
    for one in columns:
        if one.kind == "names":
            complete = "" if one.is_complete else "; counts are lower bounds, rare values were dropped"
            at_least = "" if one.is_complete else "at least "
            listed = f"the {len(one.counts):,} most frequent of {at_least}{one.distinct:,} values{complete}"
            yield Html(f"<h3>{markup.shown(one.name)}</h3>")
            yield markup.paragraph(listed, kind="note")
            yield markup.searchable(_numbers(one, most=len(one.counts)), what=one.name)


def _layouts(layouts: Mapping[str, Mapping[str, Any]], manifest: Manifest, figures: markup.Charts) -> Iterator[Html]:
    if not layouts:
        return
    numbers = markup.table(
        "Tokens by role",
        ("layout", *ROLE_NAMES),
        [(name, *(f"{one['tokens'][role]:,}" for role in ROLE_NAMES)) for name, one in layouts.items()],
        numeric=range(1, 1 + len(ROLE_NAMES)),
    )
    yield figures.figure(charts.layout_roles(layouts), title="Tokens by role", numbers=numbers)
    yield markup.from_terminal(layout_table({"layouts": layouts}))
    plain = [name for name in layouts if _position(manifest, name) == "plain"]
    if plain:
        reference = layouts[plain[0]]
        rows = [(name, *_against(one, reference)) for name, one in layouts.items()]
        caption = f"Cost against {plain[0]}: tokens of all sequences, and of what is not padding"
        yield markup.table(caption, ("layout", "tokens", "Δ", "without padding", "Δ"), rows, numeric=(1, 2, 3, 4))


def _position(manifest: Manifest, layout: str) -> object:
    settings = manifest.layouts[layout].settings.get("layout")
    return settings.get("position") if isinstance(settings, dict) else None


def _against(layout: Mapping[str, Any], plain: Mapping[str, Any]) -> Iterator[str]:
    """Yield a layout's tokens and their change from those of the plain layout, with and without padding."""
    for excluded in (0, 1):
        own, reference = (sum(one["tokens"].values()) - excluded * one["tokens"]["pad"] for one in (layout, plain))
        yield f"{own:,}"
        yield f"{own / max(reference, 1) - 1:+.2%}"


def _sequences(run: RunOutput, layouts: Sequence[str], load: Callable[[], Tokenizer]) -> Iterator[Html]:
    if not layouts:
        return
    try:
        tokenizer = load()
        parts = [_sequence(found) for name in layouts for found in sequences(run, name, tokenizer, most=_SEQUENCES)]
    except ColophonError as error:
        yield markup.paragraph(f"No sequences are shown: {error}", kind="note")
        return
    items = "".join(
        f'<li><i style="--role:{colour}"></i>{role}</li>'
        for role, colour in zip(ROLE_NAMES, charts.ROLE_COLOURS, strict=True)
    )
    yield Html(
        f'<ul class="legend">{items}</ul><p class="note">Dimmed with a dotted line: loss weight 0. The role, the loss '
        "weight and the document of a part are shown while the pointer is on it, and in the table below.</p>"
    )
    yield from parts


def _sequence(found: Mapping[str, Any]) -> Html:
    runs = found["runs"]
    left = f" [{found['tokens_left']:,} more tokens]" if found["tokens_left"] else ""
    title = f"{found['layout']}, sequence {found['sequence']:,} of its first file"
    rows = [
        (one["role"], f"{len(one['input_ids']):,}", f"{one['weight']:g}", one["document"], _run_text(one))
        for one in runs
    ]
    headings = ("role", "tokens", "loss weight", "document", "text")
    return markup.joined(
        [
            Html(f"<h3>{markup.shown(title)}</h3>"),
            Html(f'<div class="sequence" tabindex="0">{"".join(map(_run, runs))}{left}</div>'),
            markup.details("Parts", markup.table(title, headings, rows, numeric=(1, 2, 3))),
        ]
    )


def _run(run: Mapping[str, Any]) -> str:
    role = run["role"]
    colour = charts.ROLE_COLOURS[ROLE_NAMES.index(role)]
    kinds = {"text": "run", "metadata": "run meta"}.get(role, "run special") + ("" if run["weight"] else " masked")
    document = "" if run["document"] is None else f", document {run['document']}"
    title = f"{role}, loss weight {run['weight']:g}{document}, {len(run['input_ids'])} tokens"
    return f'<span class="{kinds}" style="--role:{colour}" title="{title}">{markup.shown(_run_text(run))}</span>'


def _run_text(run: Mapping[str, Any]) -> str:
    return f"[{len(run['input_ids'])} × pad]" if run["role"] == "pad" else str(run["text"])


def _times(run: RunOutput, figures: markup.Charts) -> Iterator[Html]:
    found = read_state(inside(run.directory, RUN), remedy="Remove it; the next `colophon run` that has work writes it")
    try:
        passes = dict(found["passes"]) if found else {}
        summary = {"passes": passes, "start_seconds": float(found["start"]["seconds"]) if found else 0.0}
        if passes:
            yield figures.figure(charts.stage_times(passes), title="Seconds by step, of all workers")
            yield markup.from_terminal(pass_table(summary))
    except (AttributeError, LookupError, TypeError, ValueError):
        yield markup.paragraph(f"{RUN} is damaged, or of a different version.", kind="note")


def _quarantine(manifest: Manifest) -> Iterator[Html]:
    entries = manifest.quarantine
    if not entries:
        yield markup.paragraph("Nothing is quarantined: all of the input was used.")
    else:
        rows = [(entry.stage, f"{entry.count:,}", describe(entry)) for entry in entries[:_MOST_QUARANTINED]]
        caption = f"{len(entries):,} entries" + (", of which the first are shown" if len(entries) > len(rows) else "")
        yield markup.table(caption, ("stage", "count", "reason"), rows, numeric=(1,))
    if manifest.left_aside:
        rows = [(one.kind, f"{one.count:,}", ", ".join(one.examples)) for one in manifest.left_aside]
        yield markup.table("Left aside by the search of the input", ("kind", "count", "examples"), rows, numeric=(1,))


def _provenance(run: RunOutput) -> Iterator[Html]:
    manifest = run.manifest
    named = [
        ("Colophon", manifest.colophon_version),
        ("format version", str(manifest.format_version)),
        ("partitions", f"{len(manifest.partitions):,}"),
    ]
    yield markup.facts(named)
    rows = [
        (
            name,
            f"{len(output.records):,}",
            f"{sum(record.rows for record in output.records):,}",
            f"{sum(record.bytes for record in output.records) / 1e6:,.1f} MB",
            sha256("".join(f"{record.sha256}\n" for record in output.records).encode()).hexdigest(),
        )
        for name, output in manifest.outputs.items()
    ]
    headings = ("output", "files", "rows", "size", "sha256 of its files' sha256, a line each")
    yield markup.table("Outputs", headings, rows, numeric=(1, 2, 3))
    yield markup.paragraph("manifest.json has the sha256 of each file; `colophon verify` compares them.", kind="note")
    yield markup.details("Recipe", markup.preformatted(_readable(manifest.recipe)))
    settings = {name: output.settings for name, output in manifest.outputs.items()}
    yield markup.details("Settings and checksums of models and tokenizer", markup.preformatted(_readable(settings)))


def _readable(value: object) -> str:
    return without_secrets(json.dumps(value, indent=1, ensure_ascii=False))
