"""The whole check, part by part: manifest, settings and models, report, input, then every file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from colophon.pipeline.executors.base import Executor
from colophon.pipeline.executors.inline import InlineExecutor
from colophon.pipeline.inputs.partitions import Inputs
from colophon.pipeline.runs.resolve import ResolvedRecipe, changed_settings
from colophon.pipeline.stages.settings import changed_lines
from colophon.pipeline.verification.committed_files import file_findings
from colophon.pipeline.verification.findings import Finding
from colophon.pipeline.verification.input_content import content_findings
from colophon.pipeline.verification.input_identity import input_findings, place
from colophon.pipeline.verification.manifest_entries import manifest_findings
from colophon.pipeline.verification.recompute_plan import recomputed_findings
from colophon.pipeline.verification.report_numbers import report_findings
from colophon.pipeline.verification.settings_and_models import model_findings, recipe_findings, settings_findings
from colophon.pipeline.verification.unlisted_files import unlisted_notes
from colophon.shards.common.errors import ColophonError
from colophon.shards.manifest import Manifest


@dataclass
class Verification:
    """A run's output held against its manifest, its records, the laws of its layouts, and the input."""

    resolved: ResolvedRecipe
    read_inputs: bool = False
    """Read the input again and compare its content, not only size, time of change and footer."""
    deep: bool = False
    """Compute every file again from what it is made from, and compare."""
    executor: Executor = field(default_factory=InlineExecutor)
    """Where files are computed again."""
    connect: Callable[[], None] = lambda: None
    """Called before files are computed again."""
    files: int = 0
    """Files checked so far."""
    rows: int = 0
    """Rows of these files."""
    notes: list[str] = field(default_factory=list)
    """Lines about what could not be checked, and about files that nothing reads."""

    def findings(self) -> Iterator[Finding]:
        """Everything that is not as another part of the run states, as it is found; nothing for a sound run.

        Raises:
            UsageError: the recipe has not been run, or the files were written with a different recipe.
            ShardError: the manifest is damaged so that it cannot be read.
        """
        manifest, ledger = self.resolved.finished_manifest(), self.resolved.store.ledger()
        self.notes += unlisted_notes(self.resolved, manifest)
        yield from manifest_findings(self.resolved, manifest, ledger)
        self._check_settings(manifest)
        yield from settings_findings(self.resolved.store, manifest)
        yield from recipe_findings(self.resolved, manifest)
        yield from model_findings(self.resolved)
        yield from report_findings(self.resolved.store, manifest)
        inputs = self._inputs()
        if inputs is not None:
            yield from self._input_findings(manifest, inputs)
        unsound = set[str]()
        for record, findings in file_findings(self.resolved, manifest, ledger):
            self.files, self.rows = self.files + 1, self.rows + record.rows
            unsound |= {finding.path for finding in findings}
            yield from findings
        if self.deep:
            yield from recomputed_findings(
                self.resolved, manifest, ledger, inputs, unsound=unsound, executor=self.executor, connect=self.connect
            )

    def _check_settings(self, manifest: Manifest) -> None:
        settings = self.resolved.settings.by_output
        for output, content in manifest.by_output.items():
            lines = changed_lines(content.settings, settings.get(output, content.settings))
            if lines:
                raise changed_settings(f"{self.resolved.store.root}/{output}", lines)

    def _input_findings(self, manifest: Manifest, inputs: Inputs) -> Iterator[Finding]:
        outdated = set[str]()
        for finding in input_findings(self.resolved, manifest, inputs):
            outdated.add(place(finding.path))
            yield finding
        if self.read_inputs:
            readable = [p for p in inputs.partitions if place(p.source) not in outdated]
            yield from content_findings(self.resolved, manifest, readable)

    def _inputs(self) -> Inputs | None:
        """The input as it is now; None, with a note, if there is none on this machine."""
        try:
            return self.resolved.inputs
        except ColophonError as error:
            if self.read_inputs:
                raise
            self.notes.append(f"the input was not compared: {error}")
            return None
