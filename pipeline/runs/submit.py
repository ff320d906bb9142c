"""`colophon submit`: the same run on a cluster, through Ray's job API."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from colophon.pipeline.duplicates.keys import chosen_names, duplicates_config
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.on_ray.address import check_job_server, job_server_url
from colophon.pipeline.recipe.loading import load_recipe, set_options
from colophon.pipeline.recipe.schema import Recipe
from colophon.pipeline.runs.upload import is_relative, plan_upload
from colophon.shards.common.paths import SUBMITTED
from colophon.shards.common.text_encoding import utf8_text

_NOT_INSTALLED = ("ray", "torch")
"""The cluster has Ray, and no stage of a run needs torch, which brings gigabytes of CUDA."""


def submit_run(
    recipe: str,
    *,
    address: str,
    command: Literal["run", "duplicates"] = "run",
    overrides: Sequence[str],
    flags: Sequence[str],
    working_dir: Path,
    requirements: Path | None,
    install: bool,
    dry_run: bool,
    waits: bool,
    log: Callable[[str], None],
) -> int:
    """Upload Colophon and the recipe's files, run it there, hand log text to `log`, and return the job's exit code.

    `command` is what runs: `colophon run`, or `colophon duplicates` for all tables of the recipe.
    With `dry_run`, list the files, send nothing and return 0. Without `waits`, return 0 once the job is taken.

    Raises:
        UsageError: before anything is sent: the recipe is wrong or outside `working_dir`, its input or output is
            relative, a file that it names cannot be uploaded, or no server answers; of `duplicates` also a table's path
            that is relative.
        StoppedError, ColophonError: see `follow_job`.
    """
    url = job_server_url(address)
    loaded = load_recipe(recipe, overrides=overrides)
    file, in_job = _inside(recipe, working_dir)
    if command == "duplicates":
        loaded = _without_tables(loaded, where=recipe)
    upload = plan_upload(loaded, where=recipe, recipe_file=file, working_dir=working_dir)
    packages = _packages(requirements) if install else []
    if dry_run:
        log("".join(f"{line}\n" for line in upload.lines(most=None)))
        return 0
    check_job_server(url)
    log("".join(f"{line}\n" for line in upload.lines()))
    from colophon.pipeline.executors.on_ray.job_submission import follow_job, send_job

    allowed = ["--plugins"] if loaded.plugins.files else []  # else the recipe would not have been loaded here
    options = ["--executor", "ray", *set_options(overrides), *allowed, *flags]
    words = ["python", "-m", "colophon", command, in_job, *options]
    with tempfile.TemporaryDirectory(prefix="colophon-upload-") as copies:
        upload.copy_to(Path(copies))
        # Ray's job supervisor puts the address of its own cluster into the job's RAY_ADDRESS, which a recipe cannot
        # override; "auto" would be any cluster that runs on the node.
        job = send_job(
            shlex.join(words),
            address=url,
            working_dir=Path(copies),
            variables={SUBMITTED: "1"},
            requirements=packages,
        )
    log(f"job {job.id}. {job.commands}\n")
    return follow_job(job, log=log) if waits else 0


def _without_tables(recipe: Recipe, *, where: str) -> Recipe:
    """The recipe without the annotators whose tables the job writes: a table that exists is not uploaded.

    Raises:
        UsageError: there is no such annotator, or a table would be lost with the job's directory.
    """
    names = chosen_names(recipe, None, where=where)
    for name in names:
        path = duplicates_config(recipe, name, where=where).path
        if is_relative(path):
            raise UsageError(
                f"submit: {where}: annotators.{name}.path {path} is relative: the table would be lost with the job's "
                "directory. Set an absolute path that all nodes share"
            )
    others = {name: config for name, config in recipe.annotators.items() if name not in names}
    return recipe.model_copy(update={"annotators": others})


def _inside(recipe: str, working_dir: Path) -> tuple[Path | None, str]:
    """The recipe's file, and its path in the job; a bundled recipe is a name, without a file."""
    path = Path(recipe)
    if not path.is_file():
        return None, recipe
    try:
        inside = path.resolve().relative_to(working_dir.resolve())
        return working_dir / inside, str(inside)
    except ValueError:
        place = f"the working directory {working_dir.resolve()}"
        raise UsageError(f"submit: {recipe} is not under {place}. --working-dir chooses another") from None


def _packages(path: Path | None) -> list[str]:
    """The packages that pip is given: the lines of a requirements file, else the versions that are installed here."""
    if path is None:
        return list(installed_requirements())
    if not path.is_file():
        raise UsageError(f"submit: no {path}: --requirements names a file for pip; --no-install installs nothing")
    try:
        text = utf8_text(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"submit: {path}: {error}") from None
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def installed_requirements() -> Iterator[str]:
    """Colophon's dependencies and theirs, as `name==version`, as they are installed here; those of `s3` and `gcs` too.

    Raises:
        UsageError: Colophon is not installed, it only can be imported.
    """
    waiting, seen = [Requirement("colophon[gcs,s3]")], set[tuple[str, str]]()
    while waiting:
        wanted = waiting.pop(0)
        name = canonicalize_name(wanted.name)
        extras = {extra for extra in ("", *wanted.extras) if (name, extra) not in seen}
        if name in _NOT_INSTALLED or not extras:
            continue
        is_new = not any(known == name for known, _ in seen)
        seen |= {(name, extra) for extra in extras}
        try:
            found = version(name)
        except PackageNotFoundError:  # of an extra
            if name == "colophon":
                raise UsageError("submit: Colophon is not installed: name a file with --requirements") from None
            continue
        if is_new and name != "colophon":
            yield f"{name}=={found}"
        below = map(Requirement, requires(name) or ())
        waiting += [
            each for each in below if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras)
        ]
