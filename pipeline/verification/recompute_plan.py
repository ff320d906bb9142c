"""The tasks of `colophon verify --deep`: which files of each partition are computed again, and from what."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from colophon.annotators.remote import RemoteAnnotator
from colophon.pipeline.executors.base import Executor
from colophon.pipeline.inputs.partition_table import Partition
from colophon.pipeline.inputs.partitions import Inputs
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.requirements import requirements
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.pipeline.stages.annotation import AnnotateStage
from colophon.pipeline.stages.input_pass import InputPass
from colophon.pipeline.stages.packing import PackStage
from colophon.pipeline.stages.tasks import Task
from colophon.pipeline.stages.tokenization import TokenizeStage
from colophon.pipeline.storage.ledger import Ledger
from colophon.pipeline.verification.findings import Finding
from colophon.pipeline.verification.recomputed import Recomputed, RecomputeStage
from colophon.shards.manifest import Manifest
from colophon.shards.outputs import STAGES, Output, StageName
from colophon.shards.records import PartitionInfo, Record


def recomputed_findings(
    resolved: ResolvedRecipe,
    manifest: Manifest,
    ledger: Ledger,
    inputs: Inputs | None,
    *,
    unsound: Collection[str],
    executor: Executor,
    connect: Callable[[], None],
) -> Iterator[Finding]:
    """The differences of a run's files from what their input, tokens and annotations give. Cost: that of the run.

    Args:
        resolved: the recipe.
        manifest: the manifest of its output.
        ledger: the commit records of its output.
        inputs: the input as it is now; without it, or where it has changed, packed files alone are computed again.
        unsound: the paths of files that are known to be damaged; they are not compared, nor what is packed from them.
        executor: where the work is done.
        connect: called before the work.
    """
    recomputation = _Recomputation(Plan(resolved), manifest, ledger, unsound)
    tasks = [*recomputation.tasks(inputs)]
    if not tasks:
        return
    connect()
    stages = [stage for stage in STAGES if stage in recomputation.stages]
    executor.ready(len(tasks), requirements(recomputation.plan, stages) if executor.spans_machines else None)
    for outcome in executor.run(recomputation.stage, tasks):
        partition = outcome.task.partition
        if outcome.result is None:
            yield Finding(partition.source, f"partition {partition.name} cannot be computed again: {outcome.error}")
        else:
            assert isinstance(outcome.result, Recomputed)
            yield from outcome.result.findings


@dataclass(frozen=True)
class _Recomputation:
    plan: Plan
    manifest: Manifest
    ledger: Ledger
    unsound: Collection[str]

    @cached_property
    def outputs(self) -> list[Output]:
        """The outputs that both the recipe and the manifest have."""
        return [output for output in self.plan.resolved.settings.by_output if output in self.manifest.outputs]

    @cached_property
    def stages(self) -> set[StageName]:
        """Their stages."""
        return {output.stage for output in self.outputs}

    @cached_property
    def stage(self) -> RecomputeStage:
        """The work, for an executor."""
        over_the_input: list[AnnotateStage | TokenizeStage] = []
        packing = encoding = None
        for stages in self.plan.passes([*self.stages]):
            described = self.plan.stage(stages)
            if isinstance(described, InputPass):
                over_the_input += [s for s in described.stages if isinstance(s, AnnotateStage | TokenizeStage)]
                encoding = described.encoding
            else:
                assert isinstance(described, PackStage)
                packing = described
        return RecomputeStage(self.plan.resolved.store.absolute, tuple(over_the_input), encoding, packing)

    def tasks(self, inputs: Inputs | None) -> Iterator[Task]:
        """One task for each partition in the manifest, and for each that was quarantined."""
        present = {partition.name: partition for partition in inputs.partitions} if inputs is not None else {}
        for info in self.manifest.partitions:
            partition = present.get(info.name)
            is_current = partition is not None and partition.identity == info.identity
            records = self._records.get(info.name, {})
            if partition is None or not is_current:
                records = {output: record for output, record in records.items() if output.stage == "pack"}
                yield Task(partition=_without_input(info), outputs={}, upstream=self._with_upstream(records, info.name))
            else:
                yield Task(partition=partition, outputs=self._from_input(records), upstream=records)
        quarantined = {entry.partition for entry in self.manifest.quarantine if entry.line is None}
        listed = {info.name for info in self.manifest.partitions}
        for name in sorted(present.keys() & quarantined - listed):
            yield Task(partition=present[name], outputs=self._from_input(self.outputs))

    @cached_property
    def _records(self) -> dict[str, dict[Output, Record]]:
        """By partition: the records of its files that are sound and made from sound ones."""
        found: dict[str, dict[Output, Record]] = {}
        for output in self.outputs:
            for record in self.manifest.outputs[output].records:
                if record.path not in self.unsound:
                    found.setdefault(record.partition, {})[output] = self._with_problems(record)
        return {
            name: {o: record for o, record in records.items() if all(u in records for u in self._made_from(o))}
            for name, records in found.items()
        }

    def _with_problems(self, record: Record) -> Record:
        """The record with the excluded rows, which the manifest lists under `quarantine` instead."""
        committed = self.ledger.records(record.output).get(record.partition)
        return record if committed is None else record.model_copy(update={"problems": committed.problems})

    def _with_upstream(self, packed: Mapping[Output, Record], partition: str) -> dict[Output, Record]:
        """The records of packed files, and of the tokens and annotations that they are packed from."""
        records = self._records.get(partition, {})
        return {output: records[output] for name in packed for output in (*self._made_from(name), name)}

    def _from_input(self, wanted: Collection[Output]) -> dict[Output, str]:
        """Tokens and annotations, and the annotations that these are made from; a scratch file needs no fingerprint.

        Answers of a service are left out, and what is made from them: asking again costs money, and may differ.
        """
        found = dict.fromkeys(o for o in wanted if o.stage != "pack" and not self._needs_requests(o))
        waiting = [*found]
        while waiting:
            more = [output for output in self.plan.upstream(waiting.pop()) if output not in found]
            waiting += more
            found |= dict.fromkeys(more)
        return dict.fromkeys(found, "")

    def _needs_requests(self, output: Output) -> bool:
        asking = {a.name for a in self.plan.resolved.annotators if isinstance(a, RemoteAnnotator)}
        is_asked = output.stage == "annotate" and output.name in asking
        return is_asked or any(map(self._needs_requests, self.plan.upstream(output)))

    def _made_from(self, output: Output) -> list[Output]:
        return self.plan.upstream(output) if output.stage == "pack" else []


def _without_input(info: PartitionInfo) -> Partition:
    """A partition of which only the name is used."""
    return Partition(
        name=info.name,
        source=info.source,
        url=info.source,
        format="parquet",
        row_groups=None,
        first_row=0,
        rows=info.rows,
        bytes=info.bytes or 0,
        identity=info.identity,
    )
