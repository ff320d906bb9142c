"""The plan of a run: for each output and partition, whether the file is up to date.

A file's fingerprint covers the settings of its output, its partition's content and extent, and the fingerprints of the
files it is made from. It is known before anything runs, so a plan reads commit records only: it compares columns of the
ledger, output by output, and builds no object for a partition that has no work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon import __version__
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
from colophon.pipeline.storage.ledger import Ledger
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import fingerprint
from colophon.shards.manifest import Manifest, OutputManifest
from colophon.shards.outputs import STAGES, TOKENS, Output, StageName
from colophon.shards.record_table import PartitionTable, RecordTable
from colophon.shards.records import PartitionInfo, QuarantineEntry, Record

_STAGES_OVER_THE_INPUT: tuple[StageName, ...] = ("annotate", "tokenize")


@dataclass(frozen=True)
class OutputState:
    """The files of one output, in the order of the run's partitions."""

    records: RecordTable
    """The records whose files exist."""
    places: NumPyArray
    """int64 [partitions]: the row in `records` of the partition's file, -1 if it is missing or not up to date."""
    has_record: NumPyArray
    """bool [partitions]: whether there is a record, valid or not."""

    @property
    def is_done(self) -> NumPyArray:
        """bool [partitions]: whether the file is up to date."""
        return self.places >= 0

    def chosen(self, numbers: NumPyArray) -> list[Record | None]:
        """The records of the partitions with these numbers; None where the file is not up to date."""
        places = self.places[numbers]
        records = iter(self.records.chosen(places[places >= 0]))
        return [next(records) if place >= 0 else None for place in places.tolist()]


@dataclass(frozen=True)
class Plan:
    """A recipe's outputs compared with the commit records."""

    resolved: ResolvedRecipe
    _fingerprints: dict[Output, pa.Array] = field(default_factory=dict, init=False, repr=False)
    _states: dict[Output, OutputState] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def ledger(self) -> Ledger:
        """The commit records, read once; for a shard those of its share."""
        resolved = self.resolved
        share = None if resolved.shard is None else {partition.name for partition in resolved.inputs.partitions}
        return resolved.store.ledger(share=share)

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
        return self._fingerprint(output, partition, [self.fingerprint(o, partition) for o in self.upstream(output)])

    def fingerprints(self, output: Output) -> pa.Array:
        """string [partitions]: the fingerprint of each partition's file, computed once."""
        if output not in self._fingerprints:
            partitions, upstream = self.resolved.inputs.partitions, self.upstream(output)
            sources = [self.fingerprints(source).to_pylist() for source in upstream]
            made_from = zip(*sources, strict=True) if sources else [()] * len(partitions)
            rows = zip(partitions, made_from, strict=True)
            found = [self._fingerprint(output, partition, each) for partition, each in rows]
            self._fingerprints[output] = pa.array(found, pa.string())
        return self._fingerprints[output]

    def _fingerprint(self, output: Output, partition: Partition, made_from: Sequence[str]) -> str:
        settings = self.resolved.settings.fingerprints_in_sources[output, partition.source_name]
        return fingerprint([settings, partition.extent, made_from])

    def state(self, output: Output) -> OutputState:
        """The output's files compared with the ledger; once, until `compare_again`."""
        if output not in self._states:
            self._states[output] = self._compared(output)
        return self._states[output]

    def _compared(self, output: Output) -> OutputState:
        sound = self.ledger.sound(output)
        places = sound.places(self._names)
        known = sound.table.column("fingerprint").combine_chunks()
        recorded = known.take(pa.array(places, mask=places < 0))
        is_current = pc.fill_null(pc.equal(recorded, self.fingerprints(output)), False)
        has_record = self.ledger.records(output).places(self._names) >= 0
        return OutputState(sound, np.where(is_current.to_numpy(zero_copy_only=False), places, -1), has_record)

    def compare_again(self) -> None:
        """Forget the states: the ledger has changed."""
        self._states.clear()

    @cached_property
    def _names(self) -> pa.Array:
        return pa.array([partition.name for partition in self.resolved.inputs.partitions], pa.string())

    def record(self, output: Output, partition: Partition) -> Record | None:
        """The commit record of the output's file, if that file is up to date."""
        found = self.ledger.sound(output).get(partition.name)
        return found if found is not None and found.fingerprint == self.fingerprint(output, partition) else None

    def passes(self, stages: Sequence[str]) -> list[tuple[StageName, ...]]:
        """The named stages in order, as passes: those that read the input share one."""
        wanted = [stage for stage in STAGES if stage in stages and self.outputs(stage)]
        shared = tuple(stage for stage in wanted if stage in _STAGES_OVER_THE_INPUT)
        return [*([shared] if shared else []), *((stage,) for stage in wanted if stage not in shared)]

    def tasks(self, stages: Sequence[StageName], *, without: Collection[str]) -> list[Task]:
        """A task of a pass for each partition that has work and is not in `without`."""
        outputs = [output for stage in stages for output in self.outputs(stage)]
        read = dict.fromkeys(source for output in outputs for source in self.upstream(output))
        states = {output: self.state(output) for output in dict.fromkeys([*outputs, *read])}
        is_kept = np.array([partition.name not in without for partition in self.resolved.inputs.partitions], bool)
        numbers = np.flatnonzero(is_kept & ~np.all([states[output].is_done for output in outputs], axis=0))
        upstream = {output: state.chosen(numbers) for output, state in states.items()}
        wanted = {output: self._stale_fingerprints(output, numbers) for output in outputs}
        replaced = np.any([states[output].has_record & ~states[output].is_done for output in outputs], axis=0)
        return [
            Task(
                partition=self.resolved.inputs.partitions[number],
                outputs={output: found for output, each in wanted.items() if (found := each[row]) is not None},
                upstream={output: known for output, each in upstream.items() if (known := each[row]) is not None},
                replaces=bool(replaced[number]),
            )
            for row, number in enumerate(numbers.tolist())
        ]

    def _stale_fingerprints(self, output: Output, numbers: NumPyArray) -> list[str | None]:
        """The fingerprint that the file of each of these partitions will have; None where it is up to date."""
        is_done = self.state(output).is_done[numbers]
        found: list[str | None] = self.fingerprints(output).take(pa.array(numbers, mask=is_done)).to_pylist()
        return found

    def missing(self, stages: Sequence[StageName], *, without: Collection[str]) -> list[tuple[Output, Partition]]:
        """The files of a pass without a valid commit record, for partitions that are not in `without`."""
        partitions = self.resolved.inputs.partitions
        return [
            (output, partitions[number])
            for stage in stages
            for output in self.outputs(stage)
            for number in np.flatnonzero(~self.state(output).is_done).tolist()
            if partitions[number].name not in without
        ]

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
        is_kept = np.array([p.name not in quarantined for p in resolved.inputs.partitions], bool)
        partitions = [p for p in resolved.inputs.partitions if p.name not in quarantined]
        outputs: dict[str, OutputManifest] = {}
        problems: list[QuarantineEntry] = []
        for output, settings in resolved.settings.by_output.items():
            state = self.state(output)
            records = state.records.chosen(state.places[state.is_done & is_kept])
            problems += problems_in_files(records) if len(records.with_problems) else ()
            if len(records):
                outputs[output] = OutputManifest(settings=settings, records=records.without_problems)
        return Manifest(
            colophon_version=__version__,
            recipe=resolved.recipe.model_dump(mode="json"),
            partitions=PartitionTable.of([partition_info(partition) for partition in partitions]),
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
            store = self.resolved.store.absolute
            return InputPass(store, tuple(self._input_stage(stage) for stage in stages))
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
