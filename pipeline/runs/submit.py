"""`colophon submit`: the same run on a cluster, through Ray's job API."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.upload import plan_upload

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
    dry_run: bool,
    log: Callable[[str], None],
) -> int:
    """Upload the recipe's files, run it there, hand log text to `log`, and return the job's exit code.

    With `dry_run`, list the files, send nothing and return 0.

    Raises:
        UsageError: before anything is sent: the recipe is wrong or outside `working_dir`, its output is relative, a
            file that it names cannot be uploaded, or no server answers.
    """
    loaded = load_recipe(recipe, overrides=overrides)
    file, in_job = _inside(recipe, working_dir)
    upload = plan_upload(loaded, where=recipe, recipe_file=file, working_dir=working_dir)
    log("".join(f"{line}\n" for line in upload.lines(**({"most": None} if dry_run else {}))))
    if dry_run:
        return 0
    from colophon.pipeline.executors.on_ray.address import job_server_address

    url = job_server_address(address)
    from colophon.pipeline.executors.on_ray.job_submission import follow_job, send_job

    set_options = [word for override in overrides for word in ("--set", override)]
    allowed = ["--plugins"] if loaded.plugins.files else []  # else the recipe would not have been loaded here
    options = ["--executor", "ray", *set_options, *allowed, *flags]
    command = ["python", "-m", "colophon", "run", in_job, *options]
    packages = _requirements(requirements, working_dir) if install else []
    with tempfile.TemporaryDirectory(prefix="colophon-upload-") as copies:
        upload.copy_to(Path(copies))
        # Ray's job supervisor puts the address of its own cluster into the job's RAY_ADDRESS, which a recipe cannot
        # override; "auto" would be any cluster that runs on the node.
        job = send_job(shlex.join(command), address=url, working_dir=Path(copies), requirements=packages)
    return follow_job(job, log=log)


def _inside(recipe: str, working_dir: Path) -> tuple[Path | None, str]:
    """The recipe's file, and its path in the job; a bundled recipe is a name, without a file."""
    path = Path(recipe)
    if not path.is_file():
        return None, recipe
    try:
        inside = path.resolve().relative_to(working_dir.resolve())
        return working_dir / inside, str(inside)
    except ValueError:
        raise UsageError(f"submit: {recipe} is not under the working directory {working_dir.resolve()}") from None


def _requirements(path: Path | None, working_dir: Path) -> list[str]:
    """The lines of a requirements file that pip is given."""
    chosen = path if path is not None else working_dir / CONSTRAINTS
    if not chosen.is_file():
        raise UsageError(f"submit: no {chosen}: name one with --requirements, or pass --no-install")
    lines = (line.split(" #")[0].strip() for line in chosen.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
