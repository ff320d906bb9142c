"""The page of costs, docs/cost.md: `template.md` with the tables and numbers of the estimates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.cost.estimate import (
    CORPORA,
    COST,
    PARTITION_BYTES,
    RESULTS,
    Estimate,
    Measured,
    Range,
    estimate,
    measured,
)
from benchmarks.machine import in_words

_TEMPLATE = Path(__file__).parent / "template.md"
_NODE_WORKERS = (16, 64)
_CLUSTER_CORES = 1024
_MANY_FILES, _MANY_REQUESTS, _LARGE_STATE = 1e6, 1e8, 1e9


def page(results: Path = RESULTS) -> str:
    """Return `docs/cost.md`."""
    found = measured(results)
    estimates = [estimate(corpus, found) for corpus in CORPORA]
    edu, fineweb = estimates
    cost = json.loads((results / COST).read_text(encoding="utf-8"))
    return _TEMPLATE.read_text(encoding="utf-8").format(
        basis=_table(_basis(found, cost["sequence_length"]), ends_with_text=True),
        time=_table(_time(estimates)),
        cores=_CLUSTER_CORES,
        elapsed=_spread(fineweb.core_hours.map(lambda hours: hours / _CLUSTER_CORES), ",.1f"),
        cluster_bandwidth=_bytes(_bandwidth(found, _CLUSTER_CORES)),
        disk=_table(_disk(found, estimates)),
        text=" and ".join(_bytes(each.text_bytes) for each in estimates),
        memory=_bytes(found.memory_bytes),
        memory_per_worker=_bytes(found.memory_bytes_per_worker),
        nodes=", ".join(
            f"{_bytes(found.memory_bytes + count * found.memory_bytes_per_worker)} with {count} workers"
            for count in _NODE_WORKERS
        ),
        files=_table(_files(found, estimates)),
        largest=_bytes(found.largest_megabytes * 1e6),
        edu_times=_times(edu, found),
        fineweb_times=_times(fineweb, found),
        limits=_table(_limits(found), ends_with_text=True),
        partition_seconds=_spread(_seconds_of_a_partition(found), ".1f"),
        machine=in_words(cost["machine"]),
    )


def _basis(found: Measured, sequence_length: int) -> Iterator[tuple[str, ...]]:
    packing = list(found.pack_core_seconds_per_megabyte.values())
    all_layouts = Range(
        middle=sum(each.middle for each in packing) / len(packing),
        lowest=min(each.lowest for each in packing),
        highest=max(each.highest for each in packing),
    )
    yield "quantity", "value", "from"
    yield "tokens of the corpus", "100 billion, 15 trillion", "its publisher, in GPT-2's tokens"
    yield "text of a GPT-2 token", f"{found.text_bytes_per_gpt2_token:.2f} bytes", "measured, English web text"
    yield "text of a `tekken` token", f"{found.text_bytes_per_token:.2f} bytes", "measured"
    yield "text of a document", f"{found.text_bytes_per_document:,.0f} bytes", "measured"
    rate = f"{_spread(found.core_seconds_per_megabyte, '.4f')} core-seconds"
    yield "annotating and tokenizing 1 MB", rate, f"measured, {found.largest_megabytes:,.0f} MB, without the start"
    rate = f"{_spread(all_layouts, '.4f')} core-seconds"
    yield "packing 1 MB in a layout", rate, f"measured, CPU time, sequences of {sequence_length:,} ids"
    yield "a partition", "64 MiB of text", "the default of `input.partition_bytes`"


def _time(estimates: list[Estimate]) -> Iterator[tuple[str, ...]]:
    yield "core-hours", *(each.corpus.name for each in estimates)
    yield "**annotate and tokenize**, one pass", *(_hours(each.pass_core_hours) for each in estimates)
    for part in estimates[0].part_core_hours:
        yield f"its part *{part}*, alone", *(_hours(each.part_core_hours[part]) for each in estimates)
    for layout in estimates[0].pack_core_hours:
        yield f"**pack** `{layout}`", *(_hours(each.pack_core_hours[layout]) for each in estimates)
    yield "partitions, whatever is in them", *(_hours(each.partition_core_hours) for each in estimates)
    yield "**all**, with four layouts", *(f"**{_hours(each.core_hours)}**" for each in estimates)


def _disk(found: Measured, estimates: list[Estimate]) -> Iterator[tuple[str, ...]]:
    yield "output", "measured", *(each.corpus.name for each in estimates)
    for name in estimates[0].disk_bytes:
        kind, _, last = name.rpartition("/")
        if kind == "annotations":
            size = f"{found.bytes_per_document[last]:.1f} bytes a document"
        else:
            size = f"{found.bytes_per_token[last]:.2f} bytes a token"
        yield f"`{name}`", size, *(_bytes(each.disk_bytes[name]) for each in estimates)
    state = f"{found.state_bytes_per_partition:,.0f} bytes a partition"
    yield "records, manifest, report", state, *(_bytes(each.state_bytes) for each in estimates)
    yield "**all**", "", *(f"**{_bytes(sum(each.disk_bytes.values()) + each.state_bytes)}**" for each in estimates)


def _files(found: Measured, estimates: list[Estimate]) -> Iterator[tuple[str, ...]]:
    yield "", "a partition", *(each.corpus.name for each in estimates)
    yield "partitions", "", *(_count(each.partitions) for each in estimates)
    yield "files of nine outputs", f"{found.files_per_partition:.1f}", *(_count(each.files) for each in estimates)
    for name, title in (("first_run", "requests of a first run"), ("nothing_to_do", "requests if all is up to date")):
        each_partition = f"{found.requests_per_partition[name]:.1f}"
        yield title, each_partition, *(_count(each.requests[name]) for each in estimates)


def _limits(found: Measured) -> Iterator[tuple[str, ...]]:
    """The sizes at which something else than cores is short, smallest first as far as they have a size."""
    files, state = found.files_per_partition, found.state_bytes_per_partition
    requests = found.requests_per_partition["first_run"]
    milliseconds = found.cpu_seconds_per_partition.map(lambda seconds: seconds * 1000)
    share = found.cpu_seconds_per_partition.middle / _seconds_of_a_partition(found).middle
    yield "limit", "reached at", "why"
    yield "bandwidth of the storage", "any size", f"64 cores work on {_bytes(_bandwidth(found, 64))} of text a second"
    sizes = sorted(
        [
            (_MANY_FILES / files, "a million files", f"{files:.1f} files a partition"),
            (_LARGE_STATE / state, "1 GB of records and manifest", f"{state / 1000:.1f} kB a partition"),
            (_MANY_REQUESTS / requests, "100 million requests of a run", f"{requests:.1f} requests a partition"),
        ]
    )
    for partitions, limit, why in sizes:
        yield limit, f"{_bytes(partitions * PARTITION_BYTES)} of text", why
    yield (
        "time of partitions themselves",
        "no size",
        f"{_spread(milliseconds, '.1f')} ms of CPU, {share:.2%} of its work",
    )


def _seconds_of_a_partition(found: Measured) -> Range:
    return found.core_seconds_per_megabyte.map(lambda seconds: seconds * PARTITION_BYTES / 1e6)


def _bandwidth(found: Measured, cores: int) -> float:
    """Return the bytes of text that these cores work on in a second."""
    return cores / found.core_seconds_per_megabyte.middle * 1e6


def _times(each: Estimate, found: Measured) -> str:
    return f"{each.text_bytes / 1e6 / found.largest_megabytes:,.0f}"


def _table(rows: Iterable[tuple[str, ...]], *, ends_with_text: bool = False) -> str:
    heading, *others = rows
    rule = ["---", *["---:"] * (len(heading) - 1)]
    if ends_with_text:
        rule[-1] = "---"
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *others))


def _spread(found: Range, form: str) -> str:
    return f"{found.middle:{form}} ({found.lowest:{form}}–{found.highest:{form}})"


def _hours(found: Range) -> str:
    return _spread(found, ",.1f" if found.middle < 100 else ",.0f")


def _bytes(size: float) -> str:
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:,.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


def _count(number: float) -> str:
    for unit, factor in ((" billion", 1e9), (" million", 1e6)):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:,.0f}"
