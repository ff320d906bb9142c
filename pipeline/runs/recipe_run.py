"""A run from its recipe to its report: workers, the output's lock, the passes, `report/`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING

from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.session import ExecutorName, ExecutorSession
from colophon.pipeline.recipe.loading import load_recipe, set_options
from colophon.pipeline.recipe.schema import Recipe
from colophon.pipeline.storage.files import files_at
from colophon.pipeline.storage.shard import Shard
from colophon.shards.manifest import MANIFEST_NAME
from colophon.shards.outputs import STAGES, StageName
from colophon.shards.stores.addresses import protocol_of

if TYPE_CHECKING:
    from rich.console import Console

    from colophon.pipeline.runs.resolve import ResolvedRecipe
    from colophon.pipeline.runs.run import RunResult


def run_recipe(
    recipe: Recipe | str | PathLike[str],
    *,
    stages: Sequence[StageName] = STAGES,
    executor: ExecutorName | str = ExecutorName.AUTO,
    shard: Shard | None = None,
    rebuild: bool = False,
    strict: bool = False,
    plugins: bool = False,
    name: str | None = None,
    settings: Sequence[str] = (),
    console: Console | None = None,
    shows_summary: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Annotate, tokenize and pack what is not up to date; `colophon run` does the same.

    Args:
        recipe: a recipe, the path of a recipe file, or the name of a bundled recipe.
        stages: some of `annotate`, `tokenize` and `pack`.
        executor: `auto`, `local`, `ray` or `inline`.
        shard: work on this share of the partitions alone, without Ray, and write neither manifest nor report, which
            `finish_run` writes when all shards have ended.
        rebuild: redo outputs that were made with different settings, instead of raising.
        strict: stop at the first input that cannot be read, instead of quarantining it.
        plugins: run the Python files of `[plugins]` of a recipe file, which is an error otherwise.
        name: the recipe's name in errors. None: the path or the name, `recipe` for a recipe.
        settings: the `--set` options that the recipe was loaded with, for the command that a shard names as the next.
        console: shows progress and the summary. None: nothing is shown.
        shows_summary: False shows the progress alone.
        log: gets a line on where workers run.

    Returns:
        The manifest, the times of the passes and the summary. `exit_code` is 3 where input was quarantined. Of a
        shard they are those of its share, without a summary.

    Raises:
        UsageError: the recipe is invalid, or an output was made with different settings and `rebuild` is not set.
        ColophonError: the run failed. Its committed files stay, and the same call resumes it.
    """
    begun = time.monotonic()
    where = name or ("recipe" if isinstance(recipe, Recipe) else fspath(recipe))
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(fspath(recipe), plugins=plugins)
    run = RecipeRun(
        recipe=loaded,
        where=where,
        stages=stages,
        shard=shard,
        rebuild=rebuild,
        strict=strict,
        console=console or _silent_console(),
        log=log,
        begun=begun,
    )
    with ExecutorSession(_executor_name(executor, shard=shard), loaded.ray, log=log) as session:
        result = run.within(session)
    if console is not None and shows_summary:
        _print_result(result, shard=shard, arguments=recipe_arguments(where, settings), console=console)
    return result


@dataclass(frozen=True, kw_only=True)
class RecipeRun:
    """One run of a recipe, or of a shard of it; the fields are arguments of `run_recipe`."""

    recipe: Recipe
    where: str
    """The recipe's name in errors."""
    stages: Sequence[StageName] = STAGES
    shard: Shard | None = None
    rebuild: bool = False
    strict: bool = False
    console: Console
    log: Callable[[str], None]
    begun: float
    """When the command started, by `time.monotonic`."""

    def within(self, session: ExecutorSession) -> RunResult:
        """Run it on the session's executor, and write its report; for a shard, its state.

        Modules are imported, and the recipe is checked, while workers start. Raises: see `run_recipe`.
        """
        if session.has_workers:
            _check_visible(self.recipe, where=self.where)
        is_first = files_at(self.recipe.output.path).size(MANIFEST_NAME) is None  # else there may be nothing to do
        if is_first:
            session.begin()
        resolved = self._resolved()
        if is_first:
            session.connect()  # nothing is written without workers
        from colophon.pipeline.estimates.earlier_runs import remember_rates
        from colophon.pipeline.storage.lock import locked

        with locked(resolved.store, log=self.log, recipe=resolved.digest) as owner:
            resolved = self._calibrated(resolved.for_run(owner.token))
            result = self._executed(resolved, session)
            session.leave()
            result = self._reported(resolved, result)
            if result.has_worked and not session.spans_machines:
                remember_rates(result, resolved, workers=session.num_workers)
        return result

    def _resolved(self) -> ResolvedRecipe:
        """The checked recipe. It fails now rather than after an hour, and before anything is written."""
        from colophon.pipeline.runs.resolve import resolve

        resolved = resolve(self.recipe, where=self.where)
        for line in resolved.check_tokenizer(self.stages):
            self.log(line)
        _ = resolved.inputs
        return resolved.for_shard(self.shard)

    def _calibrated(self, resolved: ResolvedRecipe) -> ResolvedRecipe:
        from colophon.pipeline.runs.calibration import calibrated

        return calibrated(resolved, write="annotate" in self.stages, log=self.log, rebuild=self.rebuild)

    def _executed(self, resolved: ResolvedRecipe, session: ExecutorSession) -> RunResult:
        from colophon.pipeline.runs.run import Run
        from colophon.pipeline.runs.sharded.state import begin_shard

        if self.shard is not None:
            begin_shard(resolved, self.stages)
        return Run(
            resolved,
            stages=self.stages,
            executor=session.executor,
            console=self.console,
            connect=session.connect,
            rebuild=self.rebuild,
            strict=self.strict,
            begun=self.begun,
        ).execute()

    def _reported(self, resolved: ResolvedRecipe, result: RunResult) -> RunResult:
        """The result with its summary, which becomes a file; that of a shard has none."""
        from colophon.pipeline.reports.summary import summarize, write_report
        from colophon.pipeline.runs.sharded.state import end_shard

        if self.shard is not None:
            end_shard(resolved, self.stages, result)
            return result
        summary = summarize(result, store=resolved.store)
        write_report(summary, result, store=resolved.store)
        return replace(result, summary=summary)


def _print_result(result: RunResult, *, shard: Shard | None, arguments: str, console: Console) -> None:
    from colophon.pipeline.reports.summary import print_share, print_summary

    if shard is not None:
        print_share(shard, result, then=f"colophon finish {arguments}", console=console)
    else:
        print_summary(dict(result.summary), result.manifest, console=console, has_worked=result.has_worked)


def recipe_arguments(where: str, settings: Sequence[str]) -> str:
    """Return a recipe and its `--set` options, quoted for a shell: `web.toml --set output.path=out/b`."""
    return shlex.join([where, *set_options(settings)])


def _check_visible(recipe: Recipe, *, where: str) -> None:
    """Refuse input and output that only this process sees."""
    inputs = (("input.paths", path) for source in recipe.sources for path in source.paths)
    for key, address in (("output.path", recipe.output.path), *inputs):
        if protocol_of(address) == "memory":
            raise UsageError(
                f"{where}: {key}: {address} is in the memory of one process; run it with --executor inline"
            )


def _executor_name(executor: str, *, shard: Shard | None) -> ExecutorName:
    try:
        name = ExecutorName(executor)
    except ValueError:
        available = ", ".join(name.value for name in ExecutorName)
        raise UsageError(f"unknown executor {executor!r}; available: {available}") from None
    if shard is not None and name is ExecutorName.RAY:
        raise UsageError(f"--shard {shard}: a shard runs without Ray; available executors: auto, local, inline")
    return ExecutorName.LOCAL if shard is not None and name is ExecutorName.AUTO else name


def _silent_console() -> Console:
    from rich.console import Console

    return Console(quiet=True)
