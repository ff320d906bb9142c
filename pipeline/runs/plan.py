"""The plan of a run: for each output and partition, whether the file is up to date.

A file's fingerprint covers the settings of its output, its partition's content and extent, and the fingerprints of the
files it is made from. It is known before anything runs, so a plan reads commit records only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from colophon import __version__
from colophon.pipeline.concurrency import in_threads
from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.inputs.problems import problems_in_files
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.stages.annotation import AnnotateStage
from colophon.pipeline.stages.input_pass import InputPass, InputStage
from colophon.pipeline.stages.packing import PackStage
from colophon.pipeline.stages.settings import changed_lines
from colophon.pipeline.stages.tasks import Stage, Task
from colophon.pipeline.stages.tokenization import TokenizeStage
from colophon.shards.common.digests import fingerprint
from colophon.shards.manifest import Manifest, OutputManifest, PartitionInfo, QuarantineEntry, Record
from colophon.shards.outputs import STAGES, TOKENS, Output, StageName

_STAGES_OVER_THE_INPUT: tuple[StageName, ...] = ("annotate", "tokenize")


@dataclass(frozen=True)
class Plan:
    """A recipe's outputs compared with the commit records."""

    resolved: ResolvedRecipe
    _fingerprints: dict[tuple[Output, str], str] = field(default_factory=dict, init=False, repr=False)
    _records: dict[tuple[Output, str], Record] = field(default_factory=dict, init=False, repr=False)

    def outputs(self, stage: StageName) -> list[Output]:
        """The outputs that a stage fills."""
        if stage == "annotate":
            return [Output.annotations(annotator.name) for annotator in self.resolved.annotators]
        if stage == "tokenize":
            return [TOKENS]
        return [Output.packed(name) for name in self.resolved.recipe.layouts]

    def upstream(self, output: Output) -> list[Output]:
        """The outputs whose files an output's files are made from."""
        columns = self.resolved.columns
        if output.stage == "tokenize":
            return []
        if output.stage == "pack":
            fields = self.resolved.recipe.layouts[output.name].fields
            return [TOKENS, *dict.fromkeys(Output.annotations(columns.annotator_of[name]) for name in fields)]
        annotator = next(annotator for annotator in self.resolved.annotators if annotator.name == output.name)
        sources = (columns.source(column) for column in annotator.columns)
        return list(dict.fromkeys(Output.annotations(name) for name in sources if name is not None))

    def fingerprint(self, output: Output, partition: Partition) -> str:
        """sha256 of everything that the output's file for a partition is made from."""
        known = self._fingerprints.get((output, partition.name))
        if known is None:
            made_from = [self.fingerprint(source, partition) for source in self.upstream(output)]
            known = fingerprint(
                [
                    self.resolved.settings.fingerprints_in_sources[output, partition.source_name],
                    partition.extent,
                    made_from,
                ]
            )
            self._fingerprints[output, partition.name] = known
        return known

    def record(self, output: Output, partition: Partition) -> Record | None:
        """The commit record of the output's file, if that file is up to date. It is read from the store once."""
        known = self._records.get((output, partition.name))
        if known is not None:
            return known
        found = self.resolved.store.record(output, partition.name)
        if found is None or found.fingerprint != self.fingerprint(output, partition):
            return None
        self._records[output, partition.name] = found
        return found

    def passes(self, stages: Sequence[str]) -> list[tuple[StageName, ...]]:
        """The named stages in order, as passes: those that read the input share one."""
        wanted = [stage for stage in STAGES if stage in stages and self.outputs(stage)]
        shared = tuple(stage for stage in wanted if stage in _STAGES_OVER_THE_INPUT)
        return [*([shared] if shared else []), *((stage,) for stage in wanted if stage not in shared)]

    def tasks(self, stages: Sequence[StageName], *, without: Mapping[str, object]) -> list[Task]:
        """One task of a pass for each partition that is not in `without`; without outputs where all is up to date."""
        partitions = [p for p in self.resolved.inputs.partitions if p.name not in without]
        outputs = [output for stage in stages for output in self.outputs(stage)]
        read = {source for output in outputs for source in self.upstream(output)}
        recorded = {output: self.resolved.store.recorded(output) for output in (*outputs, *read - set(outputs))}
        return in_threads(lambda partition: self._task(partition, outputs, recorded), partitions)

    def _task(self, partition: Partition, outputs: Sequence[Output], recorded: Mapping[Output, set[str]]) -> Task:
        records = {o: self.record(o, partition) if partition.name in recorded[o] else None for o in recorded}
        return Task(
            partition=partition,
            outputs={output: self.fingerprint(output, partition) for output in outputs if records[output] is None},
            upstream={output: record for output, record in records.items() if record is not None},
        )

    def missing(self, stages: Sequence[StageName], *, without: Mapping[str, object]) -> list[tuple[Output, Partition]]:
        """The files of a pass without a valid commit record in the store, for partitions that are not in `without`."""
        partitions = [p for p in self.resolved.inputs.partitions if p.name not in without]
        planned = [(output, p) for stage in stages for output in self.outputs(stage) for p in partitions]
        records = in_threads(lambda file: self.record(*file), planned)
        return [file for file, record in zip(planned, records, strict=True) if record is None]

    def check_upstream(self, task: Task) -> None:
        """Check that the files which a task reads are up to date.

        Raises:
            UsageError: an earlier stage has not been run with this recipe.
        """
        for output in task.outputs:
            for source in self.upstream(output):
                if source not in task.upstream and source not in task.outputs:
                    raise UsageError(
                        f"{output}: {source} of partition {task.partition.name} is missing or not up to date: "
                        f"run `colophon {source.stage}` first, or `colophon run` for all stages"
                    )

    def changed_settings(self, stage: StageName) -> dict[Output, list[str]]:
        """The outputs of a stage whose files were written with other settings, each with the differences."""
        changed = {}
        for output in self.outputs(stage):
            old = self.resolved.store.settings(output)
            new = self.resolved.settings.by_output[output]
            if old is not None and old != new:
                changed[output] = changed_lines(old, new)
        changed = {output: lines for output, lines in changed.items() if lines}
        return changed

    def manifest(self, quarantined: Mapping[str, QuarantineEntry]) -> Manifest:
        """The manifest of all files that are up to date, those of earlier runs included.

        Args:
            quarantined: the partitions that a pass could not use, by name; none of their files is listed.
        """
        resolved = self.resolved
        partitions = [p for p in resolved.inputs.partitions if p.name not in quarantined]
        outputs: dict[str, OutputManifest] = {}
        problems: list[QuarantineEntry] = []
        for output, settings in resolved.settings.by_output.items():
            records = [record for p in partitions if (record := self.record(output, p)) is not None]
            problems += problems_in_files(records)
            if records:
                without_problems = [record.model_copy(update={"problems": []}) for record in records]
                outputs[output] = OutputManifest(settings=settings, records=without_problems)
        return Manifest(
            colophon_version=__version__,
            recipe=resolved.recipe.model_dump(mode="json"),
            partitions=list(map(partition_info, partitions)),
            outputs=outputs,
            quarantine=[*resolved.inputs.quarantine, *quarantined.values(), *each_once(problems)],
            left_aside=list(resolved.inputs.left_aside),
        )

    def notes(self, stage: StageName) -> list[str]:
        """Lines about how a stage will run that are known before it starts."""
        if stage not in _STAGES_OVER_THE_INPUT:
            return []
        of_annotators = [note for a in self.resolved.annotators for note in a.notes] if stage == "annotate" else []
        return [*self.resolved.inputs.notes, *of_annotators]

    def stage(self, stages: Sequence[StageName]) -> Stage:
        """The description of a pass that an executor sends to its workers; `stages` are one of `passes`."""
        if stages[0] in _STAGES_OVER_THE_INPUT:
            return InputPass(tuple(self._input_stage(stage) for stage in stages))
        resolved, recipe = self.resolved, self.resolved.recipe
        return PackStage(
            store=resolved.store.absolute,
            pack=recipe.pack,
            layouts=recipe.layouts,
            providers=resolved.columns.annotator_of,
            settings=resolved.settings.fingerprints,
            tokenizer=resolved.tokenizer.config,
            num_meta_tokens=recipe.num_meta_tokens,
            tokenizer_sha256=resolved.tokenizer.sha256,
        )

    def _input_stage(self, stage: StageName) -> InputStage:
        resolved = self.resolved
        if stage == "annotate":
            return AnnotateStage(
                resolved.store.absolute, resolved.annotators, resolved.columns.annotation_file_needs, resolved.plugins
            )
        return TokenizeStage(
            resolved.store.absolute,
            resolved.tokenizer.config,
            resolved.recipe.num_meta_tokens,
            resolved.tokenizer.sha256,
            resolved.columns.tokenize_needs,
        )


def partition_info(partition: Partition) -> PartitionInfo:
    """The partition as a manifest lists it."""
    return PartitionInfo(
        name=partition.name,
        source=partition.source,
        rows=partition.rows,
        bytes=partition.bytes,
        identity=partition.identity,
        source_name=partition.source_name,
    )


def each_once(problems: Iterable[QuarantineEntry]) -> list[QuarantineEntry]:
    """The entries, each once: every stage that read rows that are no documents has them in its record."""
    return list({(p.source, p.partition, p.line, p.reason): p for p in problems}.values())
