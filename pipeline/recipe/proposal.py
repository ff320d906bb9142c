"""A commented recipe for a user's files: which columns mean what, the size of partitions, the number of workers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.memory_limit import TYPICAL_WORKER_BYTES
from colophon.pipeline.inputs.overview import ColumnOverview, Overview
from colophon.pipeline.inputs.partition_size import automatic_bytes
from colophon.shards.common.errors import did_you_mean

_ALIASES: dict[str, tuple[str, ...]] = {
    "text": ("text", "content", "raw_content", "page_content", "body", "document", "article", "passage", "markdown"),
    "url": ("url", "uri", "source_url", "page_url", "target_uri", "canonical_url", "link", "href"),
    "id": ("id", "doc_id", "document_id", "docid", "uuid", "uid", "record_id", "warc_record_id", "_id"),
    "dump": ("dump", "crawl", "snapshot", "cc_dump", "crawl_id"),
    "score": ("score", "edu_score", "fineweb_edu_score"),
}
"""By FineWeb's name, the usual names of such a column, the most likely first."""
_CRAWL = re.compile(r"CC-MAIN-\d{4}-\d{2}")
_SCORES = (-1.0, 6.0)
"""FineWeb-Edu's scores are between 0 and 5, up to the error of a regression."""
_MIB = 1 << 20
_BYTES_PER_TOKEN = 4.4


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine that the recipe is for."""

    cpus: int
    available_bytes: int

    @property
    def workers(self) -> int:
        """One for each CPU, as far as the memory goes."""
        return max(min(self.cpus, self.available_bytes // TYPICAL_WORKER_BYTES), 1)


@dataclass(frozen=True, kw_only=True)
class Input:
    """The files that the recipe is for."""

    paths: Sequence[str]
    files: int
    total_bytes: int
    """Uncompressed bytes of Parquet; sizes of other files."""
    overview: Overview


def find_columns(overview: Overview, *, text: str | None = None) -> dict[str, str]:
    """Return the input's column for each of FineWeb's names that has one; `text` always has.

    Args:
        overview: the columns of a file.
        text: the text column, where the user names it.

    Raises:
        UsageError: there is no such column, or no column of strings.
    """
    names = [column.name for column in overview.columns]
    if text is not None and text not in names:
        raise UsageError(f"--text {text}: no such column; available: {', '.join(names)}{did_you_mean(text, names)}")
    found = {"text": text or _text_column(overview)}
    for name in ("url", "id", "dump", "score"):
        column = _by_alias(overview, name)
        if column is not None and column != found["text"]:
            found[name] = column
    return found


def _text_column(overview: Overview) -> str:
    column = _by_alias(overview, "text")
    if column is not None:
        return column
    strings = [column for column in overview.columns if column.mean_bytes]
    if not strings:
        listed = ", ".join(f"{column.name} ({column.type})" for column in overview.columns)
        raise UsageError(f"{overview.source}: no column of strings that could be the text; columns: {listed}")
    return max(strings, key=lambda column: column.mean_bytes or 0.0).name


def _by_alias(overview: Overview, name: str) -> str | None:
    """Return the first column whose name, or last part of it (`meta.url`), is an alias and whose values fit."""
    for alias in _ALIASES[name]:
        for column in overview.columns:
            if column.name.rpartition(".")[2].lower() == alias and _fits(name, column, overview):
                return column.name
    return None


def _fits(name: str, column: ColumnOverview, overview: Overview) -> bool:
    values = overview.values.get(column.name, [])
    if name == "dump":
        return any(isinstance(value, str) and _CRAWL.search(value) for value in values)
    if name == "score":
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        return bool(numbers) and len(numbers) == len(values) and all(_SCORES[0] <= n <= _SCORES[1] for n in numbers)
    if name == "id":
        return column.type in ("string", "int")
    return column.type == "string"


def recipe_text(found: Input, machine: Machine, *, columns: Mapping[str, str], output: str, name: str) -> str:
    """Return the recipe as TOML with comments.

    Args:
        found: the input.
        machine: decides the size of partitions.
        columns: see `find_columns`.
        output: the run's directory.
        name: the recipe's path, for the commands in its comments.
    """
    blocks = [
        _head(name),
        _input_block(found, machine, columns),
        [f"[output]\npath = {_string(output)}"],
        *_annotator_blocks(columns),
        _tokenizer_block(found, columns),
        *_layout_blocks(columns),
        _ray_block(machine),
        _train_block(name, has_url="url" in columns),
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _head(name: str) -> list[str]:
    return [
        "# Written by `colophon init`. docs/recipes.md lists every key.",
        "#",
        f"#   colophon run {name} --dry-run     what would be done, how long it takes, how much it writes",
        f"#   colophon run {name}               annotate, tokenize and pack",
        f"#   colophon doctor {name}            whether this machine fits",
    ]


def _input_block(found: Input, machine: Machine, columns: Mapping[str, str]) -> list[str]:
    overview = found.overview
    listed = ", ".join(f"{column.name} ({column.type})" for column in overview.columns[:30])
    lines = [
        f"# {found.files:,} files, {found.total_bytes / 1e6:,.1f} MB. Columns of {_comment(overview.source)}:",
        f"# {_comment(listed)}",
        "[input]",
        f"paths = [{', '.join(map(_string, found.paths))}]",
    ]
    renamed = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    if renamed:
        pairs = ", ".join(f"{ours} = {_string(theirs)}" for ours, theirs in renamed.items())
        lines += ["# FineWeb's name = the name in the files", f"columns = {{ {pairs} }}"]
    size = automatic_bytes(found.total_bytes, workers=machine.workers)
    if overview.format == "parquet":
        lines.append(f"# The unit of work, uncompressed: about four for each of {machine.workers} workers.")
    else:
        busy = min(found.files, machine.workers)
        lines.append(
            f"# The unit of work. A file of this format may be one partition: {found.files:,} files keep {busy} of "
            f"{machine.workers} workers busy."
        )
    lines.append(f"partition_bytes = {size}  # {size // _MIB} MiB")
    return lines


def _annotator_blocks(columns: Mapping[str, str]) -> Iterator[list[str]]:
    if "url" in columns:
        yield ["# Columns url, url_host, url_registered_domain, ... (docs/annotators.md)", "[annotators.url]"]
    if "dump" in columns:
        yield ["# Columns crawl_year and crawl_slice, from the names of Common Crawl's dumps", "[annotators.crawl]"]
    if "score" in columns:
        yield [
            "# Columns quality_coarse and quality_fine, from FineWeb-Edu's scores",
            "[annotators.edu_score]",
            'column = "score"',
        ]
    yield [
        "# A classifier of your own, trained on labelled rows:",
        "#   colophon train-classifier --train labels.parquet --test test.parquet --output models/quality.bin",
        "# [annotators.quality]",
        '# type = "fasttext"',
        '# model = "models/quality.bin"',
        '# score = { probability_of = "high" }',
        "# bins = { quantiles = 5 }",
    ]


def _tokenizer_block(found: Input, columns: Mapping[str, str]) -> list[str]:
    mean = found.overview.column(columns["text"]).mean_bytes or 0.0
    tokens = f" A document has about {mean / _BYTES_PER_TOKEN:,.0f} tokens." if mean else ""
    return [
        "# tekken is installed; gpt2, cl100k_base, o200k_base are downloaded. A file: path = ... (docs/tokenizing.md)",
        "[tokenizer]",
        'name = "tekken"',
        "",
        *([f"#{tokens}"] if tokens else []),
        "[pack]",
        "sequence_length = 2048",
        "seed = 0",
    ]


def _layout_blocks(columns: Mapping[str, str]) -> Iterator[list[str]]:
    yield ["# Text without metadata, to compare with", "[layouts.plain]", 'position = "plain"']
    if "url" in columns:
        yield ["[layouts.prepend-url]", 'position = "prepend"', 'template = "{url}"', "dropout = 0.1"]
    if "score" in columns:
        yield ["[layouts.append-quality]", 'position = "append"', 'template = "{quality_fine}"']
    yield ["[layouts.meta-tokens]", 'position = "meta_tokens"', "num_meta_tokens = 5"]


def _ray_block(machine: Machine) -> list[str]:
    return [
        f"# {machine.cpus} CPUs and {machine.available_bytes / 1e9:.1f} GB of free memory when this was written.",
        "[ray]",
        *(
            [f"num_workers = {machine.workers}  # fewer than CPUs: the memory has no room for more"]
            if machine.workers < machine.cpus
            else [f"# num_workers = {machine.workers}  # the default: one for each CPU"]
        ),
    ]


def _train_block(name: str, *, has_url: bool) -> list[str]:
    return [
        f"# colophon train {name} --name tiny",
        "[train.tiny]",
        f'layout = "{"prepend-url" if has_url else "plain"}"',
        'model = "1m"',
        "steps = 100",
        "batch_size = 8",
    ]


def _string(text: str) -> str:
    """A TOML string; what is invisible in it, or turns the direction of text, is escaped."""
    escaped = (c if c.isprintable() else f"\\U{ord(c):08x}" for c in json.dumps(text, ensure_ascii=False))
    return "".join(escaped)


def _comment(text: str) -> str:
    """Text for a comment: without control characters."""
    return "".join(character if character.isprintable() else "?" for character in text)
