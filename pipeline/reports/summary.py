"""The summary of a run: tables on the terminal, `report/summary.json` for programs.

`report/run.json` has the times of the last run: its start, its passes, and the steps of its workers.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from colophon.pipeline.errors import printable
from colophon.pipeline.inputs.search.formats import format_of
from colophon.pipeline.inputs.search.found import describe_left_aside, shown
from colophon.pipeline.reports.tables import print_table
from colophon.pipeline.runs.run import PassTiming, RunResult, describe
from colophon.pipeline.stages.timing import STEPS
from colophon.pipeline.storage.commits import QUARANTINE, Store
from colophon.pipeline.storage.shard import Shard
from colophon.shards.annotations import scan_annotations
from colophon.shards.common.errors import DamagedFileError, one_line
from colophon.shards.common.output_paths import inside
from colophon.shards.common.state_files import is_as_written, with_checksum
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import TOKENS
from colophon.shards.record_table import PartitionTable, counted_records, num_rows, totals
from colophon.shards.records import OF_WRONG_TYPE, RECORDS_OF_KIND, TOO_LONG, Record, file_of
from colophon.shards.schema import ROLE_NAMES
from colophon.shards.tokenizer.losses import LOSS_COUNTS

SUMMARY = "report/summary.json"
RUN = "report/run.json"
_OF_TEXT = ("text_bytes", "tokens")
_TOP_VALUES = 3
_QUANTILES = {"10 %": 0.1, "median": 0.5, "90 %": 0.9}
_LONGEST_VALUE = 200
_SAMPLE_ROWS = 1_000_000


def summarize(result: RunResult, *, store: Store) -> dict[str, Any]:
    """The content of `report/summary.json`: the tables' numbers, from the manifest, its files and the run's times."""
    return {
        **counted(result.manifest, store=store),
        **(_times(result) if result.has_worked else _last_times(store)),
    }


def counted(manifest: Manifest, *, store: Store) -> dict[str, Any]:
    """The part of a summary that follows from the manifest and its files."""
    return {
        "documents": document_counts(manifest),
        "sources": source_counts(manifest),
        "null_in_sources": null_in_sources(manifest),
        "annotations": [row for name in manifest.annotators for row in _describe_columns(manifest, name, store)],
        "layouts": {name: layout_counts(packed.records) for name, packed in manifest.layouts.items()},
        "quarantined": len(manifest.quarantine),
        "left_aside": [one.model_dump() for one in manifest.left_aside],
    }


def _times(result: RunResult) -> dict[str, Any]:
    """The times of a run's passes that had work."""
    worked = [timing for timing in result.timings if timing.partitions]
    return {
        "passes": {timing.name: {**_timing(timing), **_steps(timing)} for timing in worked},
        "start_seconds": round(result.start_seconds, 3),
    }


def _last_times(store: Store) -> dict[str, Any]:
    """The times in the summary of the last run that had work."""
    try:
        last = json.loads(_text(store) or "")
        return {"passes": dict(last["passes"]), "start_seconds": last["start_seconds"]}
    except (ValueError, KeyError, TypeError, RecursionError):  # there is none, or a different version wrote it
        return {"passes": {}, "start_seconds": 0.0}


def _text(store: Store) -> str | None:
    """The summary that the output has; None without one that can be read."""
    try:
        return store.files.read_text(SUMMARY)
    except DamagedFileError:
        return None


def document_counts(manifest: Manifest) -> dict[str, int]:
    """Files, partitions, documents, and texts that are empty, null or repaired, over the whole input."""
    tokens = manifest.outputs.get(TOKENS)
    counts = totals(tokens.records) if tokens else Counter()
    partitions = PartitionTable.of(manifest.partitions)
    documents = num_rows(tokens.records) if tokens else partitions.num_rows
    return {
        "files": len(partitions.files),
        "partitions": len(manifest.partitions),
        "documents": documents,
        **{key: counts[key] for key in ("text_bytes", "tokens", "documents_empty", "texts_null", "texts_repaired")},
        **{key: counts[key] for key in LOSS_COUNTS},
        "other_records": sum(other_records(manifest).values()),
        "values_of_wrong_type": sum(wrong_types(manifest).values()),
        "values_too_long": sum(too_long(manifest).values()),
        "excluded": sum(entry.count for entry in manifest.quarantine if entry.line is not None),
    }


def source_counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    """The counts of each named source: files, documents, bytes of text and tokens; empty if no source has a name."""
    partitions = PartitionTable.of(manifest.partitions)
    source_of = partitions.source_names
    counts: dict[str, Counter[str]] = {name: Counter() for name in source_of.values()}
    files = partitions.num_files_of_sources
    tokens = manifest.outputs.get(TOKENS)
    for partition, rows, of_record in counted_records(tokens.records) if tokens and source_of else ():
        name = source_of.get(partition)
        if name is not None:
            counts[name].update(documents=rows, **{key: of_record.get(key, 0) for key in _OF_TEXT})
    return {
        name: {
            "files": files[name],
            **{key: each[key] for key in ("documents", *_OF_TEXT)},
        }
        for name, each in counts.items()
    }


def wrong_types(manifest: Manifest) -> dict[str, int]:
    """By input column, the values that became null because they were of a type that the column cannot hold."""
    return _by_column(manifest, OF_WRONG_TYPE)


def too_long(manifest: Manifest) -> dict[str, int]:
    """By input column, the strings other than texts that became null because they have more than 64 KiB."""
    return _by_column(manifest, TOO_LONG)


def _by_column(manifest: Manifest, end: str) -> dict[str, int]:
    return {key.removesuffix(end): n for key, n in _most(manifest).items() if key.endswith(end)}


def other_records(manifest: Manifest) -> dict[str, int]:
    """By kind, the records of WARC files that are no documents."""
    found = _most(manifest)
    return {key.removeprefix(RECORDS_OF_KIND): n for key, n in found.items() if key.startswith(RECORDS_OF_KIND)}


def all_null(manifest: Manifest) -> list[str]:
    """The annotators that found no value in any document, such as `url` where no JSON line has a URL."""
    found = []
    for name, output in manifest.annotators.items():
        rows = num_rows(output.records)
        nulls = [n for key, n in totals(output.records).items() if key.endswith("_null")]
        if rows and nulls and min(nulls) == rows:
            found.append(name)
    return found


def null_in_files(manifest: Manifest) -> dict[str, list[str]]:
    """By annotator, the JSONL files in whose documents it found no value, if it found one in others.

    A file of any other format that lacks a needed column is quarantined; a JSON line may lack any key.
    """
    found: dict[str, list[str]] = {}
    for name, output in manifest.annotators.items():
        keys = [key for key in totals(output.records) if key.endswith("_null")]
        with_value, without = set[str](), set[str]()
        for partition, rows, counts in counted_records(output.records) if keys else ():
            if rows:
                is_null = min(counts.get(key, 0) for key in keys) == rows
                (without if is_null else with_value).add(file_of(partition))
        if with_value and (files := without - with_value):
            sources = {part.source for part in manifest.partitions if part.file in files}
            found[name] = sorted(source for source in sources if format_of(source) == "jsonl")
    return {name: files for name, files in found.items() if files}


def null_in_sources(manifest: Manifest) -> dict[str, list[str]]:
    """By named source, the annotation columns without any value in its documents, of those with values in others."""
    source_of = PartitionTable.of(manifest.partitions).source_names
    found: dict[str, list[str]] = {}
    for output in manifest.annotators.values() if source_of else ():
        rows, nulls = Counter[str](), defaultdict[str, Counter[str]](Counter)
        for partition, num_documents, counts in counted_records(output.records):
            name = source_of.get(partition)
            if name is not None:
                rows[name] += num_documents
                nulls[name].update({key: n for key, n in counts.items() if key.endswith("_null")})
        for key in dict.fromkeys(key for of_source in nulls.values() for key in of_source):
            empty = [name for name, n in rows.items() if n and nulls[name][key] == n]
            for name in empty if len(empty) < sum(map(bool, rows.values())) else ():
                found.setdefault(name, []).append(key.removesuffix("_null"))
    return found


def _most(manifest: Manifest) -> dict[str, int]:
    """Each count of the input, from the output in which it is largest: several may be made from one column."""
    found: dict[str, int] = {}
    for output in manifest.outputs.values():
        for key, number in totals(output.records).items():
            found[key] = max(found.get(key, 0), number)
    return found


def layout_counts(records: Sequence[Record]) -> dict[str, Any]:
    """A layout's sequences, tokens by role, shares, and documents and metadata cut or dropped, over all partitions."""
    counts = totals(records)
    tokens = {role: counts[f"tokens_{role}"] for role in ROLE_NAMES}
    total = max(sum(tokens.values()), 1)
    other = {key: n for key, n in counts.items() if not key.startswith("tokens_")}
    return {
        "sequences": num_rows(records),
        "tokens": tokens,
        "utilisation": round(1 - tokens["pad"] / total, 6),
        "text_share": round(tokens["text"] / total, 6),
        **other,
    }


def print_summary(summary: dict[str, Any], manifest: Manifest, *, console: Console, has_worked: bool = True) -> None:
    """Print the tables that end a run; `has_worked` is False if everything was up to date."""
    documents = summary["documents"]
    size = f", {documents['text_bytes'] / 1e6:,.1f} MB of text, {documents['tokens']:,} tokens"
    text = size if TOKENS in manifest.outputs else ""  # without tokens, nothing has counted the text
    console.print(
        f"\n{documents['documents']:,} documents of {documents['files']:,} files" + text + _text_problems(documents),
        highlight=False,
    )
    if loss := _losses(documents):
        console.print(loss, style="yellow", highlight=False, soft_wrap=True)
    for reason, found in (("a wrong type", wrong_types(manifest)), ("more than 64 KiB", too_long(manifest))):
        if found:
            listed = ", ".join(f"{number:,} in {column}" for column, number in found.items())
            console.print(f"null because of {reason}: {listed}", style="yellow", highlight=False, soft_wrap=True)
    for line in _null_lines(summary, manifest):
        console.print(line, style="yellow", highlight=False, soft_wrap=True)
    if others := other_records(manifest):
        listed = ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in others.items())
        console.print(f"records that are no documents: {listed}", highlight=False, soft_wrap=True)
    tables = [
        source_table(summary),
        _annotation_table(summary),
        layout_table(summary),
        *([pass_table(summary)] if has_worked else []),
    ]
    for table in tables:
        if table.row_count:
            print_table(table, console=console)
    for line in selection_lines(summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not has_worked:
        console.print("nothing to do: all files are up to date", highlight=False)
    for line in describe_left_aside(manifest.left_aside):
        console.print(f"left aside: {line}", highlight=False, soft_wrap=True)
    print_quarantine(manifest, console=console)


def _null_lines(summary: dict[str, Any], manifest: Manifest) -> Iterator[str]:
    for name in all_null(manifest):
        yield f"annotators.{name}: every value is null. Does the input have its columns? [input.columns] maps names"
    for name, files in null_in_files(manifest).items():
        such_as = f"{len(files):,} JSONL files, such as {shown(files[0])}"
        yield f"annotators.{name}: every value is null in {such_as}. Do they have its columns?"
    for name, columns in summary["null_in_sources"].items():
        yield f"source {name}: every value is null: {', '.join(columns)}"


def print_share(shard: Shard, result: RunResult, *, then: str, console: Console) -> None:
    """Print the lines that end a shard; `then` is the command that completes the run."""
    partitions = len(result.manifest.partitions)
    work = "" if result.has_worked else ", nothing to do"
    line = f"shard {shard}: {partitions:,} partitions are complete{work}"
    console.print(f"{line}. When all shards are: {then}", highlight=False, markup=False, soft_wrap=True)
    print_quarantine(result.manifest, console=console)


def print_quarantine(manifest: Manifest, *, root: str = "", console: Console) -> None:
    """Print the first of a manifest's quarantined inputs, and the file with the rest, under `root`."""
    for entry in manifest.quarantine[:5]:
        console.print(f"quarantined: {describe(entry)}", style="yellow", highlight=False, soft_wrap=True)
    if len(manifest.quarantine) > 5:
        file = f"{root}/{QUARANTINE}" if root else QUARANTINE
        console.print(f"... and {len(manifest.quarantine) - 5} more in {file}", style="yellow", highlight=False)


def _text_problems(documents: dict[str, int]) -> str:
    keys = {"empty": "documents_empty", "null": "texts_null", "with bytes that are not UTF-8": "texts_repaired"}
    parts = [f"{documents[key]:,} {name}" for name, key in keys.items() if documents[key]]
    return f" ({', '.join(parts)})" if parts else ""


def _losses(documents: dict[str, int]) -> str:
    """One line on what the tokenizer lost; empty if it lost nothing."""
    keys = {
        "documents do not come back from their tokens": "documents_lossy",
        "characters lost": "characters_lost",
        "unknown tokens": "tokens_unknown",
        "documents with canonically equivalent characters": "documents_normalized",
    }
    parts = [f"{documents[key]:,} {name}" for name, key in keys.items() if documents[key]]
    return f"tokenizer: {', '.join(parts)}" if parts else ""


def source_table(summary: dict[str, Any]) -> Table:
    """The table of a summary's `sources`."""
    table = Table(title="sources")
    table.add_column("source", overflow="fold")
    for heading in ("files", "documents", "MB of text", "tokens"):
        table.add_column(heading, justify="right")
    for name, counts in summary["sources"].items():
        megabytes = f"{counts['text_bytes'] / 1e6:,.1f}"
        table.add_row(name, f"{counts['files']:,}", f"{counts['documents']:,}", megabytes, f"{counts['tokens']:,}")
    return table


def _annotation_table(summary: dict[str, Any]) -> Table:
    table = Table(title="annotations")
    for heading in ("annotator", "column", "known", "distinct", "values"):
        table.add_column(heading, justify="right" if heading in ("known", "distinct") else "left", overflow="fold")
    for row in summary["annotations"]:
        table.add_row(row["annotator"], row["column"], f"{row['known']:.1%}", f"{row['distinct']:,}", _values(row))
    return table


def layout_table(summary: dict[str, Any]) -> Table:
    """The table of a summary's `layouts`."""
    table = Table(title="layouts")
    table.add_column("layout", overflow="fold")
    headings = ("sequences", "text", "metadata", "markers", "pad", "utilisation", "documents cut", "metadata cut")
    for heading in (*headings, "dropped"):
        table.add_column(heading, justify="right")
    for name, layout in summary["layouts"].items():
        tokens = layout["tokens"]
        table.add_row(
            name,
            f"{layout['sequences']:,}",
            f"{tokens['text']:,}",
            f"{tokens['metadata'] + tokens['meta_token']:,}",
            f"{tokens['bos'] + tokens['eos'] + tokens['wrapper']:,}",
            f"{tokens['pad']:,}",
            f"{layout['utilisation']:.2%}",
            f"{layout.get('documents_cut', 0):,}",
            f"{layout.get('metadata_cut', 0):,}",
            f"{layout.get('documents_dropped', 0):,}",
        )
    return table


def selection_lines(summary: dict[str, Any]) -> list[str]:
    """A line for each layout with conditions (`where`): the number of its documents."""
    total = summary["documents"]["documents"]
    excluded = {name: layout.get("documents_excluded") for name, layout in summary["layouts"].items()}
    return [
        f"layout {name}: {total - number:,} of {total:,} documents are selected"
        for name, number in excluded.items()
        if number is not None
    ]


def pass_table(summary: dict[str, Any]) -> Table:
    """The table of a summary's `passes`."""
    title = (
        f"this run (start {summary['start_seconds']:.1f} s; load in seconds of all workers, then shares of the rest)"
    )
    table = Table(title=title)
    table.add_column("pass", overflow="fold")
    for heading in ("partitions", "documents", "seconds", "documents/s", "MB/s", *STEPS):
        table.add_column(heading, justify="right")
    for name, timing in summary["passes"].items():
        table.add_row(
            name,
            f"{timing['partitions']:,}",
            f"{timing['documents']:,}",
            f"{timing['seconds']:.1f}",
            f"{timing['documents_per_second']:,.0f}",
            f"{timing['mb_per_second']:.1f}" if timing["text_bytes"] else "-",
            f"{timing['worker_seconds']['load']:.1f} s",
            *(f"{share:.0%}" if share else "-" for share in timing["share"].values()),
        )
    return table


def _timing(timing: PassTiming) -> dict[str, Any]:
    seconds = max(timing.seconds, 1e-9)
    return {
        "partitions": timing.partitions,
        "documents": timing.documents,
        "text_bytes": timing.text_bytes,
        "seconds": round(timing.seconds, 3),
        "documents_per_second": round(timing.documents / seconds, 1),
        "mb_per_second": round(timing.text_bytes / seconds / 1e6, 3),
    }


def _describe_columns(manifest: Manifest, annotator: str, store: Store) -> list[dict[str, Any]]:
    """Each annotation column: its share of values that are not null, distinct values, and the most frequent or spread.

    Reads files until they have `_SAMPLE_ROWS` documents, so that a report costs the same for any size of run.
    """
    paths, rows = [], 0
    for record in manifest.annotators[annotator].records:
        if store.files.is_local and record.rows and rows < _SAMPLE_ROWS:
            paths.append(inside(store.files.path, record.path))
            rows += record.rows
    if not paths:
        return []
    table = _rows(paths)
    return [{"annotator": annotator, "column": name, **_describe_column(table[name])} for name in table.columns]


def _rows(paths: Sequence[Path]) -> pl.DataFrame:
    """The rows of files of annotations.

    Raises:
        DamagedFileError: one cannot be read; its bytes changed after it was written.
    """
    try:
        return scan_annotations(paths).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        if len(paths) > 1:
            for path in paths:
                _rows([path])
        reason = f"damaged: {one_line(error)}. Delete it; the same command writes it again"
        raise DamagedFileError(f"{paths[0]}: {reason}") from None


def _describe_column(column: pl.Series) -> dict[str, Any]:
    known = column.drop_nulls()
    described: dict[str, Any] = {
        "known": round(len(known) / max(len(column), 1), 6),
        "distinct": known.n_unique(),
    }
    if known.dtype.is_float():
        quantiles = {name: known.quantile(q) for name, q in _QUANTILES.items()}
        described["quantiles"] = {name: float(f"{q:.3g}") for name, q in quantiles.items() if q is not None}
    elif known.n_unique() > len(known) / 2:
        described["example"] = _value(known.head(1).to_list()[0])  # of a list its values, not a Series
    else:
        # Ties are broken by value: a table of equal counts would change from run to run.
        counts = known.value_counts(name="n").sort(["n", known.name], descending=[True, False]).head(_TOP_VALUES)
        described["frequent"] = [
            {"value": _value(value), "share": round(n / len(known), 6)} for value, n in counts.iter_rows()
        ]
    return described


def _value(value: object) -> bool | int | str:
    """A value as JSON: numbers and booleans as they are, others as text of at most 200 characters."""
    return value if isinstance(value, bool | int) else str(value)[:_LONGEST_VALUE]


def _values(row: dict[str, Any]) -> str:
    """The cell on a column's values."""
    if "quantiles" in row:
        return ", ".join(f"{name} {value:.3g}" for name, value in row["quantiles"].items())
    if "example" in row:
        return f"such as {_shortened(row['example'])}"
    return ", ".join(f"{_shortened(one['value'])} {one['share']:.1%}" for one in row.get("frequent", ()))


def _shortened(value: object) -> str:
    text = printable(str(value))
    return text if len(text) <= 32 else text[:31] + "…"


def run_report(result: RunResult) -> dict[str, Any]:
    """The content of `report/run.json`.

    `start`: seconds outside the passes, and how many of them the run waited for workers. Each pass: as in `summarize`.
    `worker_seconds` are summed over all workers; reading and writing have threads of their own and overlap with the
    work, so that their sum exceeds the workers' time. `share` is each step's part of that sum without loading.
    """
    return {
        "colophon_version": result.manifest.colophon_version,
        "start": {"seconds": round(result.start_seconds, 3), "connect_seconds": round(result.connect_seconds, 3)},
        "passes": _times(result)["passes"],
        "notes": list(result.notes),
    }


def _steps(timing: PassTiming) -> dict[str, dict[str, float]]:
    seconds: dict[str, float] = {step: round(timing.worker_seconds.get(step, 0.0), 4) for step in STEPS}
    running = {step: n for step, n in seconds.items() if step != "load"}
    total = max(sum(running.values()), 1e-9)
    return {"worker_seconds": seconds, "share": {step: round(n / total, 4) for step, n in running.items()}}


def write_report(summary: dict[str, Any], result: RunResult, *, store: Store) -> None:
    """Write `report/summary.json` and `report/run.json` under the run's output, each with the checksum of its text.

    A run with nothing to do leaves both as they are, unless the input has lost files since or one is damaged.
    """
    text = with_checksum(json.dumps({"checksum": "", **summary}, indent=1))
    if result.has_worked or _text(store) != text:
        store.files.replace_text(SUMMARY, text)
    last = store.files.read_text(RUN)
    if result.has_worked or last is None or not is_as_written(last):
        report = json.dumps({"checksum": "", **run_report(result)}, indent=1)
        store.files.replace_text(RUN, with_checksum(report))
