"""`colophon inspect`: a document's annotations, or a packed sequence with roles coloured and masked tokens dimmed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from colophon.pipeline.errors import UsageError, one_line, printable
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.reports.tables import print_table
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.shards.annotations import ID
from colophon.shards.arrow_files import list_values, read_table
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.layouts import describe_weights
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.reader import PackedDataset
from colophon.shards.records import Record
from colophon.shards.schema import ROLE_NAMES, Role, full_role_weights
from colophon.shards.tokenizer.tokenizer import Tokenizer

_STYLES = {
    Role.PAD: "bright_black",
    Role.BOS: "magenta",
    Role.EOS: "magenta",
    Role.WRAPPER: "yellow",
    Role.METADATA: "cyan",
    Role.META_TOKEN: "green",
    Role.TEXT: "default",
}


def document_at(resolved: ResolvedRecipe, manifest: Manifest, *, row: int) -> dict[str, Any]:
    """The document at `row` of the whole input as JSON: place, id, number of tokens, annotations by annotator, text.

    Raises:
        UsageError: there is no such document.
    """
    partition, local = _locate(manifest, row)
    document: dict[str, Any] = {"document": row, "partition": partition, "row": local, "annotations": {}}
    for directory, content in manifest.outputs.items():
        output = Output.parse(directory)
        record = next((r for r in content.records if r.partition == partition), None)
        if record is None or output.stage == "pack":
            continue
        document |= _stored(resolved, output, record, local)
        if output != TOKENS:
            document["annotations"][output.name] = document.pop("values")
    recorded = next((one for one in manifest.partitions if one.name == partition), None)
    present = next((one for one in resolved.inputs.partitions if one.name == partition), None)
    is_changed = present is not None and recorded is not None and present.identity != recorded.identity
    text = None if present is None else _text(resolved, present, local)
    return {**document, "input_changed": is_changed, "text": text}


def show_document(document: Mapping[str, Any], *, console: Console, characters: int = 300) -> None:
    """Print a document of `document_at`: its annotations, and the first `characters` of its text."""
    title = f"document {document['document']:,}: row {document['row']} of {document['partition']}"
    table = Table(title=title, show_header=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    if "tokens" in document:
        table.add_row("id", _cell(document["id"]))
        table.add_row("tokens", f"{document['tokens']:,}")
    for annotator, values in document["annotations"].items():
        for name, value in values.items():
            table.add_row(f"{name}  ({annotator})", _cell(value))
    text = document["text"]
    shown = "(its input is missing)" if text is None else text[:characters]
    left = len(text or "") - len(shown)
    more = f"… [{left:,} more character{'s' if left > 1 else ''}]" if left > 0 else ""
    name = "text (of the input as it is now; it was changed since the run)" if document["input_changed"] else "text"
    table.add_row(name, Text(printable(shown) + more))
    print_table(table, console=console)


def as_json(value: object) -> object:
    """A value as JSON: numbers, booleans and null as they are, NaN as null, others as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _stored(resolved: ResolvedRecipe, output: Output, record: Record, local: int) -> dict[str, Any]:
    """A document's id and number of tokens in a file of tokens; its `values` in a file of annotations.

    Raises:
        DamagedFileError: the file cannot be read, or has no such row.
    """
    try:
        with resolved.store.files.local_copy(record.path) as path:
            if output != TOKENS:
                values = pq.read_table(path, page_checksum_verification=True).slice(local, 1).to_pylist()[0]
                return {"values": {name: as_json(value) for name, value in values.items() if name != ID}}
            tokens = read_table(path).slice(local, 1)
            number = len(list_values(tokens.column("input_ids"))[1])
            return {"id": tokens.column("id")[0].as_py(), "tokens": number}
    except (pa.ArrowException, OSError, LookupError) as error:
        where = f"{resolved.store.root}/{record.path}"
        message = f"{where}: cannot be read: {one_line(error)}. `colophon verify` checks every file"
        raise DamagedFileError(message) from None


def _cell(value: object) -> Text:
    if isinstance(value, float):
        return Text(f"{value:.4f}")
    return Text("null", style="dim") if value is None else Text(printable(str(value)))


def _locate(manifest: Manifest, row: int) -> tuple[str, int]:
    content = manifest.outputs.get(TOKENS) or next(iter(manifest.outputs.values()), None)
    records = content.records if content is not None else []
    before = 0
    for record in records:
        if 0 <= row < before + record.rows:
            return record.partition, row - before
        before += record.rows
    raise UsageError(f"inspect: there is no document {row}; the run has {before:,}, numbered from 0")


def _text(resolved: ResolvedRecipe, partition: Partition, row: int) -> str:
    """The text of a document of the input; empty if it has no such row."""
    for batch in PartitionReader(partition, resolved.columns.tokenize_needs, stage="inspect"):
        if row < batch.num_rows:
            return str(batch.column("text")[row].as_py() or "")
        row -= batch.num_rows
    return ""


def sequence_at(resolved: ResolvedRecipe, *, layout: str, row: int, tokens: int | None = None) -> dict[str, Any]:
    """A packed sequence as JSON, by runs of one role: its place, weights, ids and texts.

    Args:
        resolved: the recipe.
        layout: the layout's name.
        row: the sequence's number.
        tokens: the most tokens to return; None: all. A character that spans several tokens is returned whole.

    Raises:
        UsageError: there is no such sequence.
        ShardError: there is no such layout.
    """
    dataset = PackedDataset.open(resolved.store.files.path, layout)
    if not 0 <= row < len(dataset):
        raise UsageError(f"inspect: {layout} has no sequence {row}; it has {len(dataset):,}, numbered from 0")
    return shown_sequence(dataset, resolved.tokenizer, layout=layout, row=row, tokens=tokens)


def shown_sequence(
    dataset: PackedDataset, tokenizer: Tokenizer, *, layout: str, row: int, tokens: int | None
) -> dict[str, Any]:
    """A sequence of `dataset`, whose layout has this name; see `sequence_at`."""
    file, local = dataset.locate(row)
    ids = np.asarray(file.input_ids[local])
    weights = full_role_weights(file.info.role_weights)
    runs, at = [], 0
    for length, role, document in zip(*(part.tolist() for part in file.runs(local)), strict=True):
        if tokens is not None and at >= tokens:
            break
        strings = tokenizer.readable_strings(ids[at : at + length])
        shown = _whole_characters(strings, length if tokens is None else tokens - at)
        runs.append(
            {
                "role": ROLE_NAMES[Role(role)],
                "document": None if role == Role.PAD else document,
                "weight": float(weights[role]),
                "input_ids": ids[at : at + shown].tolist(),
                "text": "" if role == Role.PAD else "".join(strings[:shown]),
            }
        )
        at += shown
    return {
        "layout": layout,
        "sequence": row,
        "row": local,
        "file": file.path.name,
        "role_weights": dict(file.info.role_weights),
        "tokens": len(ids),
        "tokens_left": len(ids) - at,
        "runs": runs,
    }


def _whole_characters(strings: Sequence[str], wanted: int) -> int:
    """The number of tokens to show so that the last character is whole: `wanted` or a few more."""
    shown = min(wanted, len(strings))
    while 0 < shown < len(strings) and not strings[shown - 1]:
        shown += 1
    return shown


def show_sequence(sequence: Mapping[str, Any], *, console: Console) -> None:
    """Print a sequence of `sequence_at`, each token in the colour of its role and dimmed if it is masked."""
    console.print(
        Text(sequence["layout"], style="bold").append(
            f", sequence {sequence['sequence']:,}: row {sequence['row']} of {sequence['file']}; "
            f"loss weights: {describe_weights(sequence['role_weights'])}",
            style="not bold",
        ),
        soft_wrap=not console.is_terminal,
    )
    roles = {name: Role(number) for number, name in enumerate(ROLE_NAMES)}
    console.print(_legend(sorted({roles[run["role"]] for run in sequence["runs"]})))
    text = Text()
    for run in sequence["runs"]:
        role = roles[run["role"]]
        if role == Role.BOS:
            text.append(f"{chr(10) if text else ''}[document {run['document']}]\n", style="bold blue")
        shown = f" [{len(run['input_ids'])} × pad]" if role is Role.PAD else run["text"]
        text.append(shown, style=f"dim {_STYLES[role]}" if run["weight"] == 0 else _STYLES[role])
    left = sequence["tokens_left"]
    if left:
        text.append(f"\n[{left:,} more token{'s' if left > 1 else ''}]", style="dim")
    console.print(text, soft_wrap=not console.is_terminal)


def _legend(roles: Sequence[Role]) -> Text:
    parts = [Text(ROLE_NAMES[role], style=_STYLES[role]) for role in roles]
    return Text("roles: ").append_text(Text(" ").join(parts)).append(" (dimmed: loss weight 0)", style="dim")
