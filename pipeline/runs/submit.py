"""`colophon submit`: the same run on a cluster, through Ray's job API."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.upload import NOT_UPLOADED, check_upload

CONSTRAINTS = "constraints.txt"


def submit_run(
    recipe: str,
    *,
    address: str,
    overrides: Sequence[str],
    flags: Sequence[str],
    working_dir: Path,
    requirements: Path | None,
    install: bool,
    log: Callable[[str], None],
) -> int:
    """Upload `working_dir`, run the recipe there, hand log text to `log`, and return the job's exit code.

    Raises:
        UsageError: before anything is sent: the recipe is wrong or outside `working_dir`, its output is relative, a
            file that it names would not be uploaded, or no server answers.
    """
    loaded = load_recipe(recipe, overrides=overrides)
    in_job = _inside(recipe, working_dir)
    check_upload(loaded, where=recipe, in_job=in_job, working_dir=working_dir)
    from colophon.pipeline.executors.on_ray.address import job_server_address

    url = job_server_address(address)
    from colophon.pipeline.executors.on_ray.job_submission import submit_job

    set_options = [word for override in overrides for word in ("--set", override)]
    allowed = ["--plugins"] if loaded.plugins.files else []  # else the recipe would not have been loaded here
    options = ["--executor", "ray", *set_options, *allowed, *flags]
    command = ["python", "-m", "colophon", "run", in_job, *options]
    return submit_job(
        # Ray's job supervisor puts the address of its own cluster into the job's RAY_ADDRESS, which a recipe cannot
        # override; "auto" would be any cluster that runs on the node.
        shlex.join(command),
        address=url,
        working_dir=working_dir,
        excludes=NOT_UPLOADED,
        requirements=_requirements(requirements, working_dir) if install else [],
        log=log,
    )


def _inside(recipe: str, working_dir: Path) -> str:
    """Return the recipe as the job finds it: a name stays a name, a file becomes relative to the working directory."""
    path = Path(recipe)
    if not path.is_file():
        return recipe
    try:
        return str(path.resolve().relative_to(working_dir.resolve()))
    except ValueError:
        raise UsageError(f"submit: {recipe} is not under the working directory {working_dir.resolve()}") from None


def _requirements(path: Path | None, working_dir: Path) -> list[str]:
    """The lines of a requirements file that pip is given."""
    chosen = path if path is not None else working_dir / CONSTRAINTS
    if not chosen.is_file():
        raise UsageError(f"submit: no {chosen}: name one with --requirements, or pass --no-install")
    lines = (line.split(" #")[0].strip() for line in chosen.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
