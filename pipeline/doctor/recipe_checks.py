"""Checks of a recipe on this machine: its models and tokenizer, and room on the disk and in memory."""

from __future__ import annotations

from collections.abc import Iterator

from colophon.pipeline.doctor.check import Finding
from colophon.pipeline.doctor.installation import tokenizer_finding
from colophon.pipeline.estimates.estimate import Estimate, estimate, size_text
from colophon.pipeline.runs.calibration import calibrated
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.resolve import ResolvedRecipe
from colophon.shards.outputs import STAGES


def check_input(resolved: ResolvedRecipe) -> Finding:
    """Whether the input is found and has the columns that the recipe needs."""
    inputs = resolved.inputs
    size = int(inputs.partitions.sizes.sum())
    files = len({source for _, source, _ in inputs.partitions.files()})
    found = f"{files:,} files, {size_text(size)}, {len(inputs.partitions):,} partitions"
    if inputs.quarantine:
        first = inputs.quarantine[0]
        found += f"; {len(inputs.quarantine)} files cannot be read, such as {first.source}: {first.reason}"
    return Finding(name="input", state="warning" if inputs.quarantine else "ok", found=found)


def check_models(resolved: ResolvedRecipe) -> Iterator[Finding]:
    """Whether the model of each annotator can be loaded; builds the tables that the run maps."""
    for annotator in resolved.annotators:
        if not resolved.recipe.annotators[annotator.name].paths:
            continue
        annotator.load()
        paths = ", ".join(resolved.recipe.annotators[annotator.name].paths)
        yield Finding(name=f"model {annotator.name}", state="ok", found=f"{paths}: loaded")


def check_recipe_tokenizer(resolved: ResolvedRecipe) -> Finding:
    """Whether the recipe's vocabulary loads, loses no text, and which engine encodes."""
    lines = resolved.vocabulary.check_losses()
    found = tokenizer_finding(resolved.tokenizer)
    if not lines:
        return found
    return Finding(name=found.name, state="warning", found=f"{found.found}; {'; '.join(lines)}", remedy=found.remedy)


def check_room(resolved: ResolvedRecipe) -> Iterator[Finding]:
    """Whether the disk has room for the outputs, and the memory for the workers with these models."""
    stages = STAGES if resolved.recipe.tokenizer is not None else ("annotate",)
    plan = Plan(calibrated(resolved, write=False, log=lambda line: None))
    found = estimate(plan, stages)
    yield _disk(found, resolved)
    yield _memory(found)


def _disk(found: Estimate, resolved: ResolvedRecipe) -> Finding:
    root = resolved.store.root
    if found.free_bytes is None:
        return Finding(name="disk", state="ok", found=f"{root}: about {size_text(found.total_bytes)} will be written")
    has_room = found.free_bytes > found.total_bytes
    return Finding(
        name="disk",
        state="ok" if has_room else "failed",
        found=f"{root}: about {size_text(found.total_bytes)} to write, {size_text(found.free_bytes)} free",
        remedy="" if has_room else "set output.path to a larger disk, or remove layouts",
    )


def _memory(found: Estimate) -> Finding:
    has_room = found.memory_bytes <= found.available_bytes
    return Finding(
        name="memory",
        state="ok" if has_room else "failed",
        found=f"{found.workers} workers of {size_text(found.worker_bytes)} and {size_text(found.model_bytes)} of "
        f"models: {size_text(found.memory_bytes)}, {size_text(found.available_bytes)} available",
        remedy="" if has_room else f"--set ray.num_workers={found.fitting_workers}",
    )
