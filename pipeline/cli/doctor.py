"""The command that checks the installation and this machine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from colophon.pipeline.cli.options import JsonOption, SetOption
from colophon.pipeline.cli.terminal import echo_json, make_console, output_is_the_result
from colophon.pipeline.errors import UsageError
from colophon.shards.common.errors import ColophonError, ExitCode, did_you_mean

if TYPE_CHECKING:
    from colophon.pipeline.doctor.check import Check, Finding
    from colophon.pipeline.recipe.schema import Recipe

_GIGABYTE = 1e9


def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="Recipe to check this machine for: its input, models, tokenizer, workers, disk and memory.",
            show_default="the installation alone is checked",
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Check to skip: libraries, cache, fasttext, tokenizer, workers, ray or gpu. Repeatable."),
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the installation by small pieces of real work, and whether this machine fits a recipe; say what to do.

    Example: `colophon doctor recipes/web.toml`
    """
    from colophon.pipeline.doctor.check import findings
    from colophon.pipeline.recipe.loading import load_recipe

    output_is_the_result()
    loaded = None if recipe is None else load_recipe(recipe, overrides=settings or [])
    checks = _checks(loaded, where=recipe or "")
    for name in skip or []:
        if name not in checks:
            raise UsageError(
                f"--skip {name}: unknown check; available: {', '.join(checks)}{did_you_mean(name, checks)}"
            )
    found = []
    for finding in findings(checks, skip=skip or []):
        found.append(finding)
        if not as_json:
            from colophon.pipeline.reports.doctor import print_finding

            print_finding(finding, console=make_console())
    has_failed = any(finding.state == "failed" for finding in found)
    if as_json:
        echo_json({"ok": not has_failed, "checks": [finding.as_dict() for finding in found]})
    raise typer.Exit(int(ExitCode.FAILED if has_failed else ExitCode.COMPLETE))


def _checks(recipe: Recipe | None, *, where: str) -> dict[str, Check]:
    from colophon.pipeline.doctor import installation
    from colophon.pipeline.recipe.schema import RaySection

    config = RaySection() if recipe is None else recipe.ray
    of_recipe = {} if recipe is None else _recipe_checks(recipe, where=where)
    return {
        "libraries": installation.check_libraries,
        "cache": installation.check_cache,
        "fasttext": installation.check_fasttext,
        "tokenizer": installation.check_tokenizer,
        "workers": partial(installation.check_workers, config),
        "ray": partial(installation.check_ray, config),
        **of_recipe,
        "gpu": _check_gpu,
    }


def _recipe_checks(recipe: Recipe, *, where: str) -> dict[str, Check]:
    """Return the checks of a recipe; its first mistake alone where it has one."""
    from colophon.pipeline.doctor import recipe_checks
    from colophon.pipeline.doctor.check import Finding
    from colophon.pipeline.runs.resolve import resolve

    try:
        resolved = resolve(recipe, where=where)
    except ColophonError as error:
        finding = Finding(name="recipe", state="failed", found=str(error))
        return {"recipe": lambda: finding}
    checks: dict[str, Check] = {
        "input": partial(recipe_checks.check_input, resolved),
        "models": partial(recipe_checks.check_models, resolved),
        "room": partial(recipe_checks.check_room, resolved),
    }
    if recipe.tokenizer is not None:
        checks["tokenizer"] = partial(recipe_checks.check_recipe_tokenizer, resolved)
    return checks


def _check_gpu() -> Finding:
    """Whether torch computes on the GPUs of this machine; only trainings need one."""
    from pathlib import Path

    from colophon.pipeline.doctor.check import Finding
    from colophon.trainer.device.check import find_device

    device = find_device()
    torch = f"torch {device.torch_version}"
    if device.failure is not None:
        return Finding(
            name="gpu",
            state="failed",
            found=f"{torch}: {device.failure}",
            remedy="install the build of torch for this driver: https://pytorch.org/get-started/locally",
        )
    if device.names:
        sizes = zip(device.names, device.memory_bytes, device.free_bytes, strict=True)
        listed = ", ".join(
            f"{name} ({memory / _GIGABYTE:.0f} GB, {free / _GIGABYTE:.0f} GB free)" for name, memory, free in sizes
        )
        bfloat16 = "" if device.has_bfloat16 else "; no bfloat16"
        return Finding(name="gpu", state="ok", found=f"{torch}: {listed}{bfloat16}")
    if not Path("/proc/driver/nvidia").exists():
        return Finding(name="gpu", state="ok", found=f"{torch}: no GPU; trainings use the CPU")
    built = "without CUDA" if device.built_for_cuda is None else f"for CUDA {device.built_for_cuda}"
    return Finding(
        name="gpu",
        state="warning",
        found=f"{torch}, built {built}, does not use the NVIDIA GPU of this machine",
        remedy="install the build of torch for this driver: https://pytorch.org/get-started/locally",
    )
