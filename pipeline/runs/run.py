"""`colophon run`: annotate, tokenize, pack. Each pass runs the tasks of its plan; the manifest is written at the end.

Annotate and tokenize share one pass over the input; pack is the second.

Changed settings over old output are an error that names the difference, unless the run rebuilds. Changed or new input
needs no flag: the run redoes its partitions.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from colophon.annotators.base import Annotator, AnnotatorError
from colophon.annotators.remote import RemoteAnnotator
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.base import Executor
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.problems import problems_in_files
from colophon.pipeline.inputs.search.found import shown
from colophon.pipeline.runs.partition_sizes import keep_sizes
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.progress import watch
from colophon.pipeline.runs.requirements import requirements
from colophon.pipeline.runs.resolve import ResolvedRecipe, changed_settings
from colophon.pipeline.stages.tasks import Outcome, TaskResult
from colophon.pipeline.stages.timing import STEPS
from colophon.pipeline.storage.commits import QUARANTINE
from colophon.pipeline.storage.pass_record import settings_path
from colophon.shards.common.errors import ColophonError, ExitCode
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import STAGES, Output, StageName
from colophon.shards.records import QuarantineEntry

VISIBLE_PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses until a file that another machine wrote is given up: a network file system caches directories for a minute."""


@dataclass(frozen=True, kw_only=True)
class PassTiming:
    """The work and time of one pass in this run."""

    name: str
    """Its stages: `annotate, tokenize` or `pack`."""
    partitions: int
    documents: int
    text_bytes: int
    seconds: float
    worker_seconds: Mapping[str, float] = field(default_factory=dict)
    """Summed over all workers, by step, see `pipeline.stages.timing.STEPS`."""
    partition_bytes: int = 0
    """The sum of `Partition.bytes`."""
    written_bytes: Mapping[str, int] = field(default_factory=dict)
    """The sizes of the files that this run wrote, by output."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The manifest of a run, and its times."""

    manifest: Manifest
    timings: tuple[PassTiming, ...]
    start_seconds: float
    """Seconds outside the passes, from the command's start: the recipe, the plan, starting workers, the manifest."""
    connect_seconds: float = 0.0
    """The part of these seconds spent waiting for the executor and its first worker."""
    notes: tuple[str, ...] = ()
    """Lines about how annotators and the tokenizer ran."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """The content of `report/summary.json`; empty until it is written."""

    @property
    def has_worked(self) -> bool:
        """Whether any file was written; False if everything was up to date."""
        return any(timing.partitions for timing in self.timings)

    @property
    def exit_code(self) -> ExitCode:
        """3 if any input was quarantined, else 0."""
        return ExitCode.QUARANTINED if self.manifest.quarantine else ExitCode.COMPLETE


@dataclass
class _Work:
    """The sum of the results of a pass, in memory that does not depend on their number."""

    documents: int = 0
    text_bytes: int = 0
    seconds: Counter[str] = field(default_factory=Counter)
    """By step."""
    written_bytes: Counter[str] = field(default_factory=Counter)
    """By output."""

    def add(self, result: TaskResult) -> None:
        """Add a result."""
        self.documents += result.documents
        self.text_bytes += result.text_bytes
        for step, seconds in result.seconds.items():
            self.seconds[step] += seconds  # type: ignore[assignment]
        for record in result.records:
            self.written_bytes[record.output] += record.bytes


class Run:
    """One run of some stages of a recipe."""

    def __init__(
        self,
        resolved: ResolvedRecipe,
        *,
        stages: Sequence[str] = STAGES,
        executor: Executor,
        console: Console,
        connect: Callable[[], None] = lambda: None,
        rebuild: bool = False,
        strict: bool = False,
        quarantined: Sequence[QuarantineEntry] = (),
        begun: float | None = None,
    ) -> None:
        """Describe a run.

        Args:
            resolved: the recipe, resolved and calibrated.
            stages: which of annotate, tokenize and pack.
            executor: where tasks are worked on.
            console: where progress is shown.
            connect: called before the first task of each pass; never if everything is up to date.
            rebuild: redo outputs that were written with other settings, instead of raising.
            strict: stop at the first input that cannot be read.
            begun: the command's start, by `time.monotonic`; by default the start of `execute`.
        """
        self._begun = begun
        self._resolved = resolved
        self._plan = Plan(resolved)
        self._passes = self._plan.passes(stages)
        self._executor = executor
        self._console = console
        self._connect = connect
        self._rebuild = rebuild
        self._strict = strict
        # By partition; later passes skip it.
        self._quarantined = {entry.partition: entry for entry in quarantined if entry.partition is not None}
        self._reported: set[str] = set()  # partitions of which a worker has returned records
        self._connect_seconds = 0.0
        self._notes: list[str] = []

    def execute(self) -> RunResult:
        """Run the passes and write the manifest; that of a shard is returned, not written.

        Raises:
            UsageError: an output was written with other settings and `rebuild` is not set.
            ColophonError: a pass failed, or `strict` is set and something had to be quarantined.
        """
        begun = time.monotonic() if self._begun is None else self._begun
        self._check_strict(self._resolved.inputs.quarantine)
        self._check_settings()
        self._check_environment()
        self._check_lists()
        self._write_settings()
        keep_sizes(self._resolved.store, self._resolved.planned.inputs.chosen_bytes)
        self._sweep()
        self._move_records()
        timings = tuple(self._run_pass(stages) for stages in self._passes)
        self._sweep()
        manifest = self._plan.manifest(self._quarantined_in_order())
        if self._resolved.shard is None:
            manifest = self._resolved.store.write_manifest(manifest)
            self._write_quarantine(manifest.quarantine)
        start_seconds = time.monotonic() - begun - sum(timing.seconds for timing in timings)
        return RunResult(
            manifest=manifest,
            timings=timings,
            start_seconds=start_seconds,
            connect_seconds=self._connect_seconds,
            notes=tuple(self._notes),
        )

    def _quarantined_in_order(self) -> dict[str, QuarantineEntry]:
        """The quarantined partitions in the order of the input, not in that in which workers or shards ended."""
        numbers = np.flatnonzero(~self._plan.is_kept(self._quarantined))
        names = self._resolved.inputs.partitions.names.take(pa.array(numbers)).to_pylist()
        return {name: self._quarantined[name] for name in names}

    def _check_settings(self) -> None:
        for stage in self._stages():
            for output, lines in self._plan.changed_settings(stage).items():
                if not self._rebuild:
                    raise changed_settings(f"{self._resolved.store.root}/{output}", lines)

    def _check_environment(self) -> None:
        """Check what annotators need from the environment, unless workers have an environment of their own."""
        if "annotate" not in self._stages() or self._executor.spans_machines:
            return
        for annotator in self._resolved.annotators:
            if isinstance(annotator, RemoteAnnotator):
                annotator.check_environment()

    def _check_lists(self) -> None:
        """Check the lists of annotators that have work: a fault of theirs is the recipe's, and nothing is written."""
        lists = [a for a in self._resolved.annotators if type(a).check_files is not Annotator.check_files]
        for annotator in lists if "annotate" in self._stages() else ():
            if self._plan.state(Output.annotations(annotator.name)).is_done.all():
                continue
            try:
                annotator.check_files()
            except AnnotatorError as error:
                raise UsageError(f"{self._resolved.where}: {error}") from error

    def _write_settings(self) -> None:
        store = self._resolved.store
        for output in self._outputs():
            text = json.dumps(self._resolved.settings.by_output[output], sort_keys=True, indent=1)
            if store.files.read_text(settings_path(output)) != text:
                store.files.replace_text(settings_path(output), text)

    def _move_records(self) -> None:
        """Move the records of a run that was killed, or of an older version, into a segment."""
        older = self._plan.ledger.compact()
        if older:
            self._console.print(
                f"commit records of an earlier version that are now in one table: {older:,}. Earlier versions cannot "
                "read this output any more",
                highlight=False,
                soft_wrap=True,
            )

    def _stages(self) -> list[StageName]:
        return [stage for stages in self._passes for stage in stages]

    def _sweep(self) -> None:
        """Delete the temporary files of processes that died, in earlier runs and in this one."""
        self._resolved.store.sweep(self._outputs())

    def _outputs(self) -> list[Output]:
        return [output for stage in self._stages() for output in self._plan.outputs(stage)]

    def _run_pass(self, stages: Sequence[StageName]) -> PassTiming:
        stage = self._plan.stage(stages)
        planned = self._num_planned()
        self._plan.check_upstream(stages, without=self._quarantined)
        tasks = self._plan.tasks(stages, without=self._quarantined)
        if len(tasks) < planned:
            self._console.print(
                f"{stage.name}: {planned - len(tasks)} of {planned} partitions are up to date", highlight=False
            )
        if tasks:
            self._begin(stages, num_tasks=len(tasks))
        begun = time.monotonic()
        outcomes: Iterable[Outcome] = ()  # nothing to do shows no progress
        if tasks:
            outcomes = watch(
                self._executor.run(stage, tasks),
                name=stage.name,
                total_bytes=int(tasks.sizes.sum()),
                total_tasks=len(tasks),
                console=self._console,
            )
        work = self._work(outcomes, stage=stage.name)
        if tasks:
            self._check_committed(stages)
        return PassTiming(
            name=stage.name,
            partitions=len(tasks),
            documents=work.documents,
            text_bytes=work.text_bytes,
            seconds=time.monotonic() - begun if tasks else 0.0,
            worker_seconds={step: work.seconds[step] for step in STEPS},
            partition_bytes=int(tasks.sizes.sum()),
            written_bytes=work.written_bytes,
        )

    def _num_planned(self) -> int:
        """The number of partitions that are not quarantined."""
        return int(self._plan.is_kept(self._quarantined).sum())

    def _begin(self, stages: Sequence[StageName], *, num_tasks: int) -> None:
        """Show how the pass will run, and start its workers."""
        self._note(note for stage in stages for note in self._plan.notes(stage))
        begun = time.monotonic()
        self._connect()
        wanted = requirements(self._plan, self._stages()) if self._executor.spans_machines else None
        self._executor.ready(num_tasks, wanted)
        self._connect_seconds += time.monotonic() - begun
        self._note(self._executor.notes)

    def _note(self, notes: Iterable[str]) -> None:
        """Show the lines that were not shown before."""
        for note in notes:
            if note not in self._notes:
                self._notes.append(note)
                self._console.print(note, highlight=False, soft_wrap=True)

    def _work(self, outcomes: Iterable[Outcome], *, stage: str) -> _Work:
        """The sum of the workers' results, whose records become segments. Quarantines the partitions that have none."""
        work = _Work()
        for outcome in outcomes:
            self._note(self._executor.notes)
            if outcome.result is None:
                self._quarantine(outcome.task.partition, stage=stage, reason=outcome.error or "no reason given")
                continue
            self._note(outcome.result.notes)
            self._check_strict([p for record in outcome.result.records for p in problems_in_files([record])])
            self._plan.ledger.report(outcome.result.records)
            self._reported.add(outcome.task.partition.name)
            work.add(outcome.result)
        return work

    def _check_committed(self, stages: Sequence[StageName]) -> None:
        """Check that the store has every file of a pass, as this process sees it.

        Raises:
            ColophonError: a partition has neither a commit record nor a quarantine entry.
        """
        missing = self._missing(stages)
        pauses = VISIBLE_PAUSES_SECONDS if self._executor.spans_machines else ()
        for pause in pauses if missing else ():
            time.sleep(pause)
            missing = self._missing(stages)
            if not missing:
                break
        if missing:
            raise ColophonError(self._missing_message(stages, missing))

    def _missing(self, stages: Sequence[StageName]) -> list[tuple[Output, Partition]]:
        self._plan.ledger.compact()
        self._plan.compare_again()
        return self._plan.missing(stages, without=self._quarantined)

    def _missing_message(self, stages: Sequence[StageName], missing: Sequence[tuple[Output, Partition]]) -> str:
        planned = sum(len(self._plan.outputs(stage)) for stage in stages) * self._num_planned()
        root, (output, partition) = self._resolved.store.root, missing[0]
        line = f"{', '.join(stages)}: {len(missing):,} of {planned:,} files are missing in {root}"
        example = f"for example {output} of partition {partition.name}"
        if partition.name not in self._reported:
            return f"{line}, {example}. Run the same command again"
        return (
            f"{line}, although workers wrote them, {example}. Workers write to a disk that this process does not see: "
            "set output.path to a directory that all machines share, or to an object store"
        )

    def _quarantine(self, partition: Partition, *, stage: str, reason: str) -> None:
        entry = QuarantineEntry(
            source=partition.source, partition=partition.name, stage=stage, reason=reason, rows=partition.rows
        )
        self._quarantined[partition.name] = entry
        self._check_strict([entry])

    def _check_strict(self, entries: Sequence[QuarantineEntry]) -> None:
        if self._strict and entries:
            raise ColophonError(f"--strict: {describe(entries[0])}")

    def _write_quarantine(self, entries: Sequence[QuarantineEntry]) -> None:
        text = "".join(entry.model_dump_json(exclude_none=True) + "\n" for entry in entries)
        if text or self._resolved.store.files.size(QUARANTINE) is not None:
            self._resolved.store.files.replace_text(QUARANTINE, text)


def describe(entry: QuarantineEntry) -> str:
    """One human-readable line; control characters of file names and documents are escaped."""
    place = f"{entry.source}:{entry.line}" if entry.line is not None else entry.source
    more = f"; {entry.count:,} such, at {', '.join(str(e.line) for e in entry.examples)}" if entry.count > 1 else ""
    if entry.count > len(entry.examples) > 0:
        more += ", ..."
    return shown(f"{place}: {entry.reason} ({entry.stage}{more})")
