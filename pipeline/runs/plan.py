"""The plan of a run: for each output and partition, whether the file is up to date.

A file's fingerprint covers the settings of its output, its partition's content and extent, and the fingerprints of the
files it is made from. It is known before anything runs, so a plan reads commit records only: it compares columns of the
ledger, output by output, and builds no object for a partition that has no work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon import __version__
from colophon.annotators.base import DOCUMENT_FILE
from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.partition_table import Partition, Partitions, joined_texts
from colophon.pipeline.inputs.problems import problems_in_files
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.stages.annotation import AnnotateStage
from colophon.pipeline.stages.input_pass import InputPass, InputStage
from colophon.pipeline.stages.packing import PackStage
from colophon.pipeline.stages.settings import changed_lines
from colophon.pipeline.stages.tasks import Stage, Task, Tasks
from colophon.pipeline.stages.tokenization import TokenizeStage
from colophon.pipeline.storage.ledger import Ledger
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.manifest import Manifest, OutputManifest
from colophon.shards.outputs import STAGES, TOKENS, Output, StageName
from colophon.shards.record_table import RecordTable
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
    names_alone: bool = False
    """See `Store.ledger`."""
    _fingerprints: dict[Output, pa.Array] = field(default_factory=dict, init=False, repr=False)
    _states: dict[Output, OutputState] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def ledger(self) -> Ledger:
        """The commit records, read once; for a shard those of its share."""
        resolved = self.resolved
        share = None if resolved.shard is None else set(self._names.to_pylist())
        return resolved.store.ledger(share=share, names_alone=self.names_alone)

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
            read = self.resolved.recipe.layouts[output.name].columns
            return [TOKENS, *dict.fromkeys(Output.annotations(columns.annotator_of[name]) for name in read)]
        annotator = next(annotator for annotator in self.resolved.annotators if annotator.name == output.name)
        sources = (columns.source(column) for column in annotator.columns)
        return list(dict.fromkeys(Output.annotations(name) for name in sources if name is not None))

    def fingerprints(self, output: Output) -> pa.Array:
        """string [partitions]: sha256 of all that each partition's file is made from, computed once.

        That is the JSON list of the output's settings in the partition's source, the partition's extent, and the
        fingerprints of the files that it is made from. Cost: about 2 µs a partition.
        """
        if output not in self._fingerprints:
            sources, start = [self.fingerprints(source) for source in self.upstream(output)], 0
            found = [pa.array([], pa.string())]
            for block in self.resolved.inputs.partitions.blocks():
                made_from = [source.slice(start, len(block)) for source in sources]
                found.append(_sha256_of_each(_json_lists(self._settings(output, block), block.extents, made_from)))
                start += len(block)
            self._fingerprints[output] = pa.concat_arrays(found)
        return self._fingerprints[output]

    def _settings(self, output: Output, partitions: Partitions) -> pa.ChunkedArray:
        """string [partitions]: sha256 of the output's settings in each partition's source."""
        names = [source.name for source in self.resolved.recipe.sources]
        settings = [self.resolved.settings.fingerprints_in_sources[output, name] for name in names]
        places = pc.index_in(partitions.source_names, pa.array(names, pa.string()))  # a null is found as a null
        return pc.take(pa.array(settings, pa.string()), places)

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

    @property
    def _names(self) -> pa.Array:
        return self.resolved.inputs.partitions.names

    def passes(self, stages: Sequence[str]) -> list[tuple[StageName, ...]]:
        """The named stages in order, as passes: those that read the input share one."""
        wanted = [stage for stage in STAGES if stage in stages and self.outputs(stage)]
        shared = tuple(stage for stage in wanted if stage in _STAGES_OVER_THE_INPUT)
        return [*([shared] if shared else []), *((stage,) for stage in wanted if stage not in shared)]

    def tasks(self, stages: Sequence[StageName], *, without: Collection[str]) -> Tasks:
        """A task of a pass for each partition that has work and is not in `without`."""
        outputs = [output for stage in stages for output in self.outputs(stage)]
        read = dict.fromkeys(source for output in outputs for source in self.upstream(output))
        if "annotate" in stages and self.resolved.reads_ids:
            read[TOKENS] = None  # where they are up to date, annotators read them; elsewhere the texts are encoded
        states = {output: self.state(output) for output in dict.fromkeys([*outputs, *read])}
        fingerprints = {output: self.fingerprints(output) for output in outputs}
        is_done = {output: states[output].is_done for output in outputs}
        replaced = np.any([states[output].has_record & ~is_done[output] for output in outputs], axis=0)
        numbers = np.flatnonzero(self.is_kept(without) & ~np.all([*is_done.values()], axis=0))
        partitions = self.resolved.inputs.partitions

        def build(chosen: NumPyArray) -> list[Task]:
            rows = numbers[chosen]
            upstream = {output: state.chosen(rows) for output, state in states.items()}
            wanted = {o: _stale(found, is_done[o][rows], rows) for o, found in fingerprints.items()}
            return [
                Task(
                    partition=partition,
                    outputs={output: found for output, each in wanted.items() if (found := each[row]) is not None},
                    upstream={output: known for output, each in upstream.items() if (known := each[row]) is not None},
                    replaces=bool(replaced[number]),
                )
                for row, (number, partition) in enumerate(zip(rows.tolist(), partitions.chosen(rows), strict=True))
            ]

        return Tasks(partitions.sizes[numbers], build)

    def is_kept(self, without: Collection[str]) -> NumPyArray:
        """bool [partitions]: whether the partition's name is not in `without`."""
        is_in: NumPyArray = pc.is_in(self._names, pa.array(list(without), pa.string())).to_numpy(zero_copy_only=False)
        return ~is_in

    def missing(self, stages: Sequence[StageName], *, without: Collection[str]) -> list[tuple[Output, Partition]]:
        """The files of a pass without a valid commit record, for partitions that are not in `without`."""
        partitions = self.resolved.inputs.partitions
        return [
            (output, partition)
            for stage in stages
            for output in self.outputs(stage)
            for partition in partitions.chosen(np.flatnonzero(~self.state(output).is_done & self.is_kept(without)))
        ]

    def check_upstream(self, stages: Sequence[StageName], *, without: Collection[str]) -> None:
        """Check that the files which the tasks of a pass read are up to date, or are written in the same pass.

        Raises:
            UsageError: an earlier stage has not been run with this recipe.
        """
        outputs = [output for stage in stages for output in self.outputs(stage)]
        for output in outputs:
            for source in (source for source in self.upstream(output) if source not in outputs):
                is_wanted = ~self.state(output).is_done & self.is_kept(without)
                unusable = np.flatnonzero(is_wanted & ~self.state(source).is_done)
                if len(unusable):
                    partition = self.resolved.inputs.partitions[int(unusable[0])]
                    raise UsageError(
                        f"{output}: {source} of partition {partition.name} is missing or not up to date: "
                        f"run `colophon {source.stage}` first, or `colophon run` for all stages"
                    )

    def changed_settings(self, stage: StageName) -> dict[Output, list[str]]:
        """The outputs of a stage whose files were written with other settings, each with the differences."""
        changed = {}
        for output in self.outputs(stage):
            old = self.resolved.store.settings(output)
            new = self.resolved.settings.by_output[output]
            if old is None or old == new:
                continue
            if (lines := changed_lines(old, new)) and self.resolved.keeps_settings(output):
                changed[output] = lines
        return changed

    def manifest(self, quarantined: Mapping[str, QuarantineEntry]) -> Manifest:
        """The manifest of all files that are up to date, those of earlier runs included.

        Args:
            quarantined: the partitions that a pass could not use, by name; none of their files is listed.
        """
        resolved = self.resolved
        is_kept = self.is_kept(quarantined)
        partitions = resolved.inputs.partitions
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
            partitions=(partitions if is_kept.all() else partitions.chosen(np.flatnonzero(is_kept))).infos(),
            outputs=outputs,
            quarantine=[*resolved.inputs.quarantine, *quarantined.values(), *each_once(problems)],
            left_aside=list(resolved.inputs.left_aside),
        )

    def notes(self, stage: StageName) -> list[str]:
        """Lines about how a stage will run that are known before it starts."""
        if stage not in _STAGES_OVER_THE_INPUT:
            return []
        annotators = self.resolved.annotators if stage == "annotate" else ()
        working = [each for each in annotators if not self.state(Output.annotations(each.name)).is_done.all()]
        notes = [*self.resolved.inputs.notes, *(note for each in working for note in each.notes)]
        if readers := [each for each in annotators if DOCUMENT_FILE in each.columns]:
            files = self.resolved.inputs.partitions.infos().files_and_contents
            notes += [note for each in readers for note in each.notes_on(files)]
        return notes

    def stage(self, stages: Sequence[StageName]) -> Stage:
        """The description of a pass that an executor sends to its workers; `stages` are one of `passes`."""
        if stages[0] in _STAGES_OVER_THE_INPUT:
            store = self.resolved.store.absolute
            reads_ids = "tokenize" in stages or self.resolved.reads_ids
            return InputPass(
                store,
                tuple(self._input_stage(stage) for stage in stages),
                self.resolved.encoding if reads_ids else None,
            )
        resolved, recipe = self.resolved, self.resolved.recipe
        return PackStage(
            store=resolved.store.absolute,
            pack=recipe.pack,
            layouts=recipe.layouts,
            providers=resolved.columns.annotator_of,
            settings=resolved.settings.fingerprints,
            tokenizer=resolved.planned_tokenizer,
        )

    def _input_stage(self, stage: StageName) -> InputStage:
        resolved = self.resolved
        if stage == "annotate":
            return AnnotateStage(
                resolved.store.absolute, resolved.annotators, resolved.columns.annotation_file_needs, resolved.plugins
            )
        return TokenizeStage(resolved.store.absolute, resolved.columns.tokenize_needs)


def _json_lists(settings: pa.ChunkedArray, extents: pa.ChunkedArray, made_from: Sequence[pa.Array]) -> pa.ChunkedArray:
    """The text of `[settings, extent, made_from]` of each partition, as `json.dumps` writes it."""
    quoted = [part for number, source in enumerate(made_from) for part in (', "' if number else '"', source, '"')]
    return joined_texts('["', settings, '", ', extents, ", [", *quoted, "]]")


def _sha256_of_each(texts: pa.ChunkedArray) -> pa.Array:
    return pa.array([sha256(text).hexdigest() for text in texts.cast(pa.binary()).to_pylist()], pa.string())


def _stale(fingerprints: pa.Array, is_done: NumPyArray, rows: NumPyArray) -> list[str | None]:
    """The fingerprint that the file of each of these partitions will have; None where it is up to date."""
    found: list[str | None] = fingerprints.take(pa.array(rows, mask=is_done)).to_pylist()
    return found


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
