"""What is to be done: for each stage and partition, the output files whose commit record is not today's.

A file's fingerprint covers the settings of its stage, its partition's content and extent, and the fingerprints of the
files it is made from. It is known before anything runs, so a plan needs records only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from colophon.pipeline.concurrency import in_threads
from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.partitions import Partition
from colophon.pipeline.runs.resolve import Prepared
from colophon.pipeline.stages.annotation import AnnotateStage
from colophon.pipeline.stages.input_pass import InputPass, InputStage
from colophon.pipeline.stages.packing import PackStage
from colophon.pipeline.stages.tasks import Stage, Task
from colophon.pipeline.stages.tokenization import TokenizeStage
from colophon.pipeline.storage.commits import settings_path
from colophon.shards.common.differences import differences
from colophon.shards.common.digests import fingerprint
from colophon.shards.manifest import Record
from colophon.shards.outputs import TOKENS, Output
from colophon.shards.tokenizer.tokenizer import TokenizerConfig

TITLES = ("annotate", "tokenize", "pack")
"""The stages of a run, in order; each is also a command."""
_OVER_THE_INPUT = ("annotate", "tokenize")


@dataclass(frozen=True)
class Plan:
    """What a recipe asks for, held against what is committed."""

    prepared: Prepared
    _fingerprints: dict[tuple[Output, str], str] = field(default_factory=dict, init=False, repr=False)

    def outputs(self, title: str) -> list[Output]:
        """The directories that a stage fills: `annotations/<annotator>`, `tokens`, `packed/<layout>`."""
        if title == "annotate":
            return [Output.annotations(annotator.name) for annotator in self.prepared.annotators]
        if title == "tokenize":
            return [TOKENS]
        return [Output.packed(name) for name in self.prepared.recipe.layouts]

    def upstream(self, output: Output) -> list[Output]:
        """The directories whose files an output's files are made from."""
        providers = self.prepared.providers
        if output == TOKENS:
            return []
        if output.stage == "pack":
            layout = self.prepared.recipe.layouts[output.name]
            return [TOKENS, *dict.fromkeys(Output.annotations(providers[name]) for name in layout.fields)]
        annotator = next(a for a in self.prepared.annotators if a.name == output.name)
        read = (self.prepared.provider(column) for column in annotator.columns)
        return list(dict.fromkeys(Output.annotations(name) for name in read if name is not None))

    def fingerprint(self, output: Output, partition: Partition) -> str:
        """sha256 of everything that the output's file for a partition is made from."""
        known = self._fingerprints.get((output, partition.name))
        if known is None:
            extent = [partition.identity, partition.row_groups, partition.first_row]
            made_from = [self.fingerprint(source, partition) for source in self.upstream(output)]
            known = fingerprint([self.prepared.settings_fingerprints[output], extent, made_from])
            self._fingerprints[output, partition.name] = known
        return known

    def record(self, output: Output, partition: Partition) -> Record | None:
        """The commit record of the output's file, if that file is up to date."""
        found = self.prepared.store.record(output, partition.name)
        return found if found is not None and found.fingerprint == self.fingerprint(output, partition) else None

    def passes(self, titles: Sequence[str]) -> list[tuple[str, ...]]:
        """The named stages in the order in which they run; those that read the input do so together."""
        wanted = [title for title in TITLES if title in titles and self.outputs(title)]
        together = tuple(title for title in wanted if title in _OVER_THE_INPUT)
        return [*([together] if together else []), *((title,) for title in wanted if title not in together)]

    def tasks(self, titles: Sequence[str], *, without: Mapping[str, object]) -> list[Task]:
        """One task of a pass for each partition that is not in `without`; one without outputs is up to date."""
        partitions = [p for p in self.prepared.inputs.partitions if p.name not in without]
        outputs = [output for title in titles for output in self.outputs(title)]
        read = {source for output in outputs for source in self.upstream(output)}
        there = {output: self.prepared.store.recorded(output) for output in (*outputs, *read - set(outputs))}
        return in_threads(lambda partition: self._task(partition, outputs, there), partitions)

    def _task(self, partition: Partition, outputs: Sequence[Output], there: Mapping[Output, set[str]]) -> Task:
        known = {o: self.record(o, partition) if partition.name in there[o] else None for o in there}
        return Task(
            partition=partition,
            outputs={output: self.fingerprint(output, partition) for output in outputs if known[output] is None},
            upstream={output: record for output, record in known.items() if record is not None},
        )

    def check_upstream(self, task: Task) -> None:
        """What the task reads must be up to date.

        Raises:
            UsageError: an earlier stage has not been run with today's recipe.
        """
        for output in task.outputs:
            for source in self.upstream(output):
                if source not in task.upstream and source not in task.outputs:
                    raise UsageError(
                        f"{output}: {source} of partition {task.partition.name} is not made or not up to date: "
                        f"run `colophon {source.stage}` first, or `colophon run` for all stages"
                    )

    def changed_settings(self, title: str) -> dict[Output, list[str]]:
        """By output of a stage, how today's settings differ from those that its files were made with."""
        changed = {}
        for output in self.outputs(title):
            old = self.prepared.store.read_json(settings_path(output))
            new = self.prepared.settings[output]
            if old is not None and old != new:
                changed[output] = differences(old, new)
        return changed

    def notes(self, title: str) -> list[str]:
        """What a person should know of how a stage will run, as far as it is known before: one line each."""
        return [note for a in self.prepared.annotators for note in a.notes] if title == "annotate" else []

    def stage(self, titles: Sequence[str]) -> Stage:
        """What an executor sends to its workers, for one of `passes`."""
        prepared, recipe = self.prepared, self.prepared.recipe
        if titles[0] in _OVER_THE_INPUT:
            return InputPass(tuple(self._input_stage(title) for title in titles))
        return PackStage(
            store=prepared.store,
            pack=recipe.pack,
            layouts=recipe.layouts,
            providers=prepared.providers,
            settings=prepared.settings_fingerprints,
            tokenizer=self._tokenizer(titles[0]),
            num_meta_tokens=recipe.num_meta_tokens,
        )

    def _input_stage(self, title: str) -> InputStage:
        prepared = self.prepared
        if title == "annotate":
            return AnnotateStage(prepared.store, prepared.annotators, prepared.annotate_needs)
        tokenizer = self._tokenizer(title)
        return TokenizeStage(prepared.store, tokenizer, prepared.recipe.num_meta_tokens, prepared.tokenize_needs)

    def _tokenizer(self, title: str) -> TokenizerConfig:
        if self.prepared.recipe.tokenizer is None:
            raise UsageError(f"{self.prepared.where}: [tokenizer] is required to {title}")
        return self.prepared.recipe.tokenizer
