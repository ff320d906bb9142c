"""One export of a finished run: survey, schema, files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.base import Executor
from colophon.pipeline.export.directory import check_directory, metadata_of, remove
from colophon.pipeline.export.schema import agreed
from colophon.pipeline.export.stage import ExportStage, export_tasks, file_name
from colophon.pipeline.export.survey import Survey, SurveyStage
from colophon.pipeline.inputs.search.find import find_files
from colophon.pipeline.inputs.search.overlap import check_apart
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.progress import watch
from colophon.pipeline.runs.requirements import requirements
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.stages.tasks import Outcome, Stage, Task
from colophon.shards.common.errors import ColophonError
from colophon.shards.common.paths import real_path
from colophon.shards.outputs import Output


@dataclass(frozen=True)
class Export:
    """The export of a recipe's run into a directory."""

    resolved: ResolvedRecipe
    directory: Path
    overwrite: bool = False

    def tasks(self) -> list[Task]:
        """Check the directory and plan the work; nothing is written.

        Raises:
            UsageError: the run is not complete, or the directory has files that are not of this export.
        """
        tasks = export_tasks(self._plan)
        self._check_apart(tasks)
        self._files_to_remove(tasks)
        return tasks

    def write(self, tasks: Sequence[Task], executor: Executor, console: Console) -> None:
        """Write the files of these tasks, with one schema.

        Raises:
            ColophonError: a file of the input cannot be read, after the others are written; or the disk is full.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if tasks and executor.spans_machines:
            directories = (str(self.directory.absolute()),)
            executor.ready(len(tasks), requirements(self._plan, (), directories=directories))
        store = self.resolved.store.absolute
        columns = self.resolved.columns
        needs = {n: need for n, need in columns.needs.items() if not (n in columns.typed or need.is_place)}
        annotated = {
            field.name: (Output.annotations(annotator.name), field.type)
            for annotator in self.resolved.annotators
            for field in annotator.schema
        }
        survey = SurveyStage(store, needs, {name: output for name, (output, _) in annotated.items()})
        surveys: dict[str, Survey] = {}
        failed: list[Outcome] = []
        for outcome in _outcomes(executor, survey, tasks, console):
            if isinstance(outcome.result, Survey):
                surveys[outcome.task.partition.name] = outcome.result
            else:
                failed.append(outcome)
        readable = [task for task in tasks if task.partition.name in surveys]
        schema = agreed(
            [surveys[task.partition.name] for task in readable],
            needs=needs,
            mapping=columns.names_in_input,
            annotations=annotated,
        )
        remove(self._files_to_remove(tasks))
        stage = ExportStage(store, self.directory.absolute(), schema, self._metadata)
        failed += [o for o in _outcomes(executor, stage, readable, console) if o.result is None]
        names = {outcome.task.partition.name for outcome in failed}
        self._check_written([task for task in tasks if task.partition.name not in names])
        if failed:
            raise ColophonError(f"{_failures(failed)}. The other {len(tasks) - len(failed)} files are written")

    @cached_property
    def _plan(self) -> Plan:
        return Plan(self.resolved)

    @property
    def _metadata(self) -> dict[str, str]:
        return metadata_of(self.resolved.store.absolute.root)

    def _files_to_remove(self, tasks: Sequence[Task]) -> list[Path]:
        names = _file_names(tasks)
        return check_directory(self.directory, names=names, metadata=self._metadata, overwrite=self.overwrite)

    def _check_written(self, tasks: Sequence[Task]) -> None:
        missing = sorted(name for name in _file_names(tasks) if not (self.directory / name).is_file())
        if missing:
            raise ColophonError(
                f"export: {len(missing):,} of {len(tasks):,} files are missing in {self.directory}, although workers "
                f"wrote them, for example {missing[0]}. Give --to a directory that all machines share"
            )

    def _check_apart(self, tasks: Sequence[Task]) -> None:
        files = self.resolved.store.files
        if files.is_local and real_path(self.directory).is_relative_to(real_path(files.path)):
            raise UsageError(
                f"--to {self.directory}: is in the run's output {files.root}. Give a directory outside of it"
            )
        search = find_files(*self.resolved.recipe.sources)
        check_apart(search, str(self.directory), key="--to", writes=_file_names(tasks))


def _file_names(tasks: Sequence[Task]) -> set[str]:
    return {file_name(task.partition.name) for task in tasks}


def _failures(failed: Sequence[Outcome]) -> str:
    first = failed[0]
    more = f" (and {len(failed) - 1} more partitions)" if len(failed) > 1 else ""
    return f"export: {first.task.partition.source}: {first.error}{more}"


def _outcomes(executor: Executor, stage: Stage, tasks: Sequence[Task], console: Console) -> Iterator[Outcome]:
    outcomes = executor.run(stage, tasks)
    total_bytes = sum(task.partition.bytes for task in tasks)
    return watch(outcomes, name=stage.name, total_bytes=total_bytes, total_tasks=len(tasks), console=console)
