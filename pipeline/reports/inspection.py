"""`colophon inspect`: a document's annotations, or a packed sequence with roles coloured and masked tokens dimmed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from colophon.pipeline.errors import UsageError, one_line, printable
from colophon.pipeline.inputs.readers import PartitionReader
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.shards.arrow_files import list_values, read_table
from colophon.shards.common.errors import DamagedFileError
from colophon.shards.layouts import describe_weights
from colophon.shards.manifest import Manifest, Record
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import ROLE_NAMES, Role, full_role_weights

_STYLES = {
    Role.PAD: "bright_black",
    Role.BOS: "magenta",
    Role.EOS: "magenta",
    Role.WRAPPER: "yellow",
    Role.METADATA: "cyan",
    Role.META_TOKEN: "green",
    Role.TEXT: "default",
}


def show_document(
    resolved: ResolvedRecipe, manifest: Manifest, *, row: int, console: Console, characters: int = 300
) -> None:
    """Print the annotations of the document at `row` of the whole input, and the first `characters` of its text."""
    partition, local = _locate(manifest, row)
    table = Table(title=f"document {row:,}: row {local} of {partition}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for directory, content in manifest.outputs.items():
        output = Output.parse(directory)
        record = next((r for r in content.records if r.partition == partition), None)
        if record is None or output.stage == "pack":
            continue
        for name, cell in _rows(resolved, output, record, local):
            table.add_row(name, cell)
    table.add_row("text", Text(printable(_text(resolved, partition, local)[:characters]) + "…"))
    console.print(table)


def _rows(resolved: ResolvedRecipe, output: Output, record: Record, local: int) -> list[tuple[str, Text]]:
    """Names and values of a document in a file of tokens or annotations.

    Raises:
        DamagedFileError: the file cannot be read, or has no such row.
    """
    try:
        with resolved.store.files.local_copy(record.path) as path:
            if output != TOKENS:
                values = pq.read_table(path, page_checksum_verification=True).slice(local, 1).to_pylist()[0]
                return [(f"{name}  ({output.name})", _cell(value)) for name, value in values.items()]
            tokens = read_table(path).slice(local, 1)
            number = len(list_values(tokens.column("input_ids"))[1])
            return [("id", _cell(tokens.column("id")[0].as_py())), ("tokens", Text(f"{number:,}"))]
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


def _text(resolved: ResolvedRecipe, partition_name: str, row: int) -> str:
    partition = next((p for p in resolved.inputs.partitions if p.name == partition_name), None)
    if partition is None:
        return "(its input is missing)"
    for batch in PartitionReader(partition, resolved.columns.tokenize_needs, stage="inspect"):
        if row < batch.num_rows:
            return batch.column("text")[row].as_py() or ""
        row -= batch.num_rows
    return ""


def show_sequence(
    resolved: ResolvedRecipe, *, layout: str, row: int, console: Console, tokens: int | None = None
) -> None:
    """Print a packed sequence, each token in the colour of its role and dimmed if it is masked (loss weight 0).

    `tokens` limits how many are printed.
    """
    dataset = PackedDataset.open(resolved.store.files.path, layout)
    if not 0 <= row < len(dataset):
        raise UsageError(f"inspect: {layout} has no sequence {row}; it has {len(dataset):,}, numbered from 0")
    file, local = dataset.locate(row)
    lengths, roles, documents = file.runs(local)
    weights = full_role_weights(file.info.role_weights)
    console.print(
        Text(layout, style="bold").append(
            f", sequence {row:,}: row {local} of {file.path.name}; "
            f"loss weights: {describe_weights(file.info.role_weights)}",
            style="not bold",
        )
    )
    console.print(_legend(sorted({Role(int(role)) for role in roles})))
    ids = np.asarray(file.input_ids[local])
    limit = len(ids) if tokens is None else min(tokens, len(ids))
    text, at = Text(), 0
    for length, role, document in zip(lengths.tolist(), roles.tolist(), documents.tolist(), strict=True):
        if at >= limit:
            break
        shown = ids[at : min(at + length, limit)]
        if role == Role.BOS:
            text.append(f"\n[document {document}]\n" if at else f"[document {document}]\n", style="bold blue")
        text.append_text(_run(resolved.tokenizer.token_strings(shown), Role(role), masked=weights[role] == 0))
        at += length
    if limit < len(ids):
        text.append(f"\n[{len(ids) - limit} more tokens]", style="dim")
    console.print(text, soft_wrap=False)


def _run(strings: Sequence[str], role: Role, *, masked: bool) -> Text:
    style = f"dim {_STYLES[role]}" if masked else _STYLES[role]
    if role is Role.PAD:
        return Text(f" [{len(strings)} × pad]", style=style)
    return Text("".join(strings), style=style)


def _legend(roles: Sequence[Role]) -> Text:
    parts = [Text(ROLE_NAMES[role], style=_STYLES[role]) for role in roles]
    return Text("roles: ").append_text(Text(" ").join(parts)).append(" (dimmed: loss weight 0)", style="dim")
