"""`colophon run`: annotate, tokenize, pack. Each pass works on what its plan says; the manifest is written at the end.

Annotate and tokenize are one pass over the input.

Changed settings over old output are an error that names the difference, unless the run rebuilds; changed or new input
is worked on as it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from colophon import __version__
from colophon.pipeline.errors import printable
from colophon.pipeline.executors.base import Executor
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.runs.plan import TITLES, Plan
from colophon.pipeline.runs.progress import watch
from colophon.pipeline.runs.resolve import Prepared, changed_settings
from colophon.pipeline.stages.tasks import Outcome, TaskResult
from colophon.pipeline.stages.timing import STEPS
from colophon.pipeline.storage.commits import settings_path
from colophon.shards.common.errors import ColophonError, ExitCode
from colophon.shards.manifest import Manifest, OutputManifest, PartitionInfo, QuarantineEntry
from colophon.shards.outputs import Output

QUARANTINE = "quarantine.jsonl"


@dataclass(frozen=True, kw_only=True)
class PassTiming:
    """What one pass did in this run."""

    title: str
    """Its stages: `annotate, tokenize`, `pack`."""
    partitions: int
    documents: int
    text_bytes: int
    seconds: float
    worker_seconds: Mapping[str, float] = field(default_factory=dict)
    """Summed over all workers, by step, see `pipeline.stages.timing.STEPS`."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run leaves."""

    manifest: Manifest
    timings: tuple[PassTiming, ...]
    start_seconds: float
    """Outside the passes, from the command's start: reading the recipe, planning, starting Ray, the manifest."""
    connect_seconds: float = 0.0
    """Of these, how long the run waited for Ray and its first worker."""
    notes: tuple[str, ...] = ()
    """What annotators and the tokenizer say of how they ran."""

    @property
    def exit_code(self) -> ExitCode:
        """3 when anything was left out."""
        return ExitCode.QUARANTINED if self.manifest.quarantine else ExitCode.COMPLETE


class Run:
    """One run of some stages of a recipe."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        stages: Sequence[str] = TITLES,
        executor: Executor,
        console: Console,
        connect: Callable[[], None] = lambda: None,
        rebuild: bool = False,
        strict: bool = False,
        begun: float | None = None,
    ) -> None:
        """Describe a run.

        Args:
            prepared: the recipe, checked.
            stages: which of annotate, tokenize and pack.
            executor: where tasks are worked on.
            console: where progress is shown.
            connect: called before the first task is run; not at all when everything is up to date.
            rebuild: work over output that was made with other settings.
            strict: stop at the first input that cannot be read.
            begun: when the command was called, by `time.monotonic`; left out: when it is executed.
        """
        self._begun = begun
        self._prepared = prepared
        self._plan = Plan(prepared)
        self._passes = self._plan.passes(stages)
        self._executor = executor
        self._console = console
        self._connect = connect
        self._rebuild = rebuild
        self._strict = strict
        self._quarantined: dict[str, QuarantineEntry] = {}  # by partition; left out of all later passes
        self._connect_seconds = 0.0
        self._notes: list[str] = []

    def execute(self) -> RunResult:
        """Run the passes and write the manifest.

        Raises:
            UsageError: settings changed over old output and `rebuild` is not set.
            ColophonError: a pass failed, or `strict` is set and something had to be quarantined.
        """
        begun = time.monotonic() if self._begun is None else self._begun
        self._check_strict(self._prepared.inputs.quarantine)
        self._check_settings()
        self._write_settings()
        self._sweep()
        timings = tuple(self._run_pass(titles) for titles in self._passes)
        self._sweep()
        manifest = self._manifest()
        self._prepared.store.write_manifest(manifest)
        self._write_quarantine(manifest.quarantine)
        start_seconds = time.monotonic() - begun - sum(timing.seconds for timing in timings)
        return RunResult(
            manifest=manifest,
            timings=timings,
            start_seconds=start_seconds,
            connect_seconds=self._connect_seconds,
            notes=tuple(self._notes),
        )

    def _check_settings(self) -> None:
        for title in self._stages():
            for output, lines in self._plan.changed_settings(title).items():
                if not self._rebuild:
                    raise changed_settings(f"{self._prepared.store.root}/{output}", lines)

    def _write_settings(self) -> None:
        store = self._prepared.store
        for output in self._outputs():
            text = json.dumps(self._prepared.settings[output], sort_keys=True, indent=1)
            if store.read_text(settings_path(output)) != text:
                store.write_text(settings_path(output), text)

    def _stages(self) -> list[str]:
        return [title for titles in self._passes for title in titles]

    def _sweep(self) -> None:
        """Delete what processes that died had begun to write, in earlier runs and in this one."""
        for output in self._outputs():
            self._prepared.store.sweep(output)

    def _outputs(self) -> list[Output]:
        return [output for title in self._stages() for output in self._plan.outputs(title)]

    def _run_pass(self, titles: Sequence[str]) -> PassTiming:
        stage = self._plan.stage(titles)
        planned = self._plan.tasks(titles, without=self._quarantined)
        tasks = [task for task in planned if task.outputs]
        for task in tasks:
            self._plan.check_upstream(task)
        if len(tasks) < len(planned):
            self._console.print(
                f"{stage.title}: {len(planned) - len(tasks)} of {len(planned)} partitions are up to date",
                highlight=False,
            )
        if tasks:
            self._begin(titles, num_tasks=len(tasks))
        begun = time.monotonic()
        outcomes = watch(
            self._executor.run(stage, tasks),
            title=stage.title,
            total_bytes=sum(task.partition.bytes for task in tasks),
            total_tasks=len(tasks),
            console=self._console,
        )
        results = self._take(outcomes, title=stage.title)
        return PassTiming(
            title=stage.title,
            partitions=len(tasks),
            documents=sum(result.documents for result in results),
            text_bytes=sum(result.text_bytes for result in results),
            seconds=time.monotonic() - begun if tasks else 0.0,
            worker_seconds={step: sum(result.seconds.get(step, 0.0) for result in results) for step in STEPS},
        )

    def _begin(self, titles: Sequence[str], *, num_tasks: int) -> None:
        """Say how the pass will run, and have its workers started."""
        self._note(note for title in titles for note in self._plan.notes(title))
        begun = time.monotonic()
        self._connect()
        self._executor.ready(num_tasks)
        self._connect_seconds += time.monotonic() - begun

    def _note(self, notes: Iterable[str]) -> None:
        """Show each line that was not shown before."""
        for note in notes:
            if note not in self._notes:
                self._notes.append(note)
                self._console.print(note, highlight=False, soft_wrap=True)

    def _take(self, outcomes: Iterable[Outcome], *, title: str) -> list[TaskResult]:
        """What workers handed back, without the records; what could not be worked on is quarantined."""
        results = []
        for outcome in outcomes:
            if outcome.result is None:
                self._quarantine(outcome.task.partition, stage=title, reason=outcome.error or "no reason given")
                continue
            self._note(outcome.result.notes)
            self._check_strict([problem for record in outcome.result.records for problem in record.problems])
            results.append(replace(outcome.result, records=()))
        return results

    def _quarantine(self, partition: Partition, *, stage: str, reason: str) -> None:
        entry = QuarantineEntry(
            source=partition.source, partition=partition.name, stage=stage, reason=reason, rows=partition.rows
        )
        self._quarantined[partition.name] = entry
        self._check_strict([entry])

    def _check_strict(self, entries: Sequence[QuarantineEntry]) -> None:
        if self._strict and entries:
            raise ColophonError(f"--strict: {describe(entries[0])}")

    def _manifest(self) -> Manifest:
        """All up-to-date files of the recipe, those of earlier runs included."""
        prepared, plan = self._prepared, self._plan
        good = [p for p in prepared.inputs.partitions if p.name not in self._quarantined]
        stages: dict[str, OutputManifest] = {}
        problems: dict[tuple[str, int | None], QuarantineEntry] = {}
        for output in (output for title in TITLES for output in plan.outputs(title)):
            if output not in prepared.settings:
                continue
            records = [record for p in good if (record := plan.record(output, p)) is not None]
            problems.update({(p.source, p.line): p for record in records for p in record.problems})
            if records:
                told_once = [record.model_copy(update={"problems": []}) for record in records]
                stages[output] = OutputManifest(settings=prepared.settings[output], records=told_once)
        return Manifest(
            colophon_version=__version__,
            recipe=prepared.recipe.model_dump(mode="json"),
            partitions=[PartitionInfo(name=p.name, source=p.source, rows=p.rows, bytes=p.bytes) for p in good],
            stages=stages,
            quarantine=[*prepared.inputs.quarantine, *self._quarantined.values(), *problems.values()],
        )

    def _write_quarantine(self, entries: Sequence[QuarantineEntry]) -> None:
        text = "".join(entry.model_dump_json(exclude_none=True) + "\n" for entry in entries)
        if text or self._prepared.store.size(QUARANTINE) is not None:
            self._prepared.store.write_text(QUARANTINE, text)


def describe(entry: QuarantineEntry) -> str:
    """One line for a person, with what stands in documents and file names made harmless to a terminal."""
    place = f"{entry.source}:{entry.line}" if entry.line is not None else entry.source
    return printable(f"{place}: {entry.reason} ({entry.stage})")
