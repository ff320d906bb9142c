"""The files that a submitted job finds: uploaded ones of the working directory, and absolute paths of the cluster."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.schema import Recipe

NOT_UPLOADED = (".git", ".venv", "out", "models", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
"""Patterns, as in `.gitignore`, of files that are never uploaded."""
_IGNORE_FILES = (".gitignore", ".rayignore")


def check_upload(recipe: Recipe, *, where: str, in_job: str, working_dir: Path) -> None:
    """Check that a job whose working directory is an upload of `working_dir` finds the recipe's files.

    Args:
        recipe: the recipe.
        where: its name in errors.
        in_job: its path as the job finds it, relative to the working directory; plugins are beside it.
        working_dir: the directory that is uploaded.

    Raises:
        UsageError: the output is relative, so that it would be lost with the job's directory, or a relative model,
            tokenizer or input is not uploaded.
    """
    output = recipe.output.path
    if _is_relative(output):
        raise UsageError(
            f"submit: {where}: output.path {output} is relative: it would be lost with the job's directory. "
            "Set an absolute path that all nodes share, or an object store"
        )
    plugins = (("plugins.files", str(Path(in_job).parent / name)) for name in recipe.plugins.files)
    for key, path in (*_read_paths(recipe), *plugins):
        if _is_relative(path) and (reason := _not_uploaded(path, working_dir.resolve())):
            raise UsageError(
                f"submit: {where}: {key}: {path} {reason}, and would be missing on the cluster. "
                "Set an absolute path that all nodes share, or put it into the working directory"
            )


def _read_paths(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Each path that the run reads, with its key in the recipe."""
    yield from (("input.paths", path) for path in recipe.input.paths)
    for name, config in recipe.annotators.items():
        yield from ((f"annotators.{name}", path) for path in config.paths)
    if recipe.tokenizer is not None and recipe.tokenizer.path is not None:
        yield "tokenizer.path", recipe.tokenizer.path


def _is_relative(path: str) -> bool:
    return "://" not in path and not path.startswith(("~", "file:/")) and not Path(path).is_absolute()


def _not_uploaded(path: str, working_dir: Path) -> str | None:
    """Return why a file, a directory or a file of a glob is not uploaded; None if all is."""
    found = [Path(match) for match in glob.glob(f"{glob.escape(str(working_dir))}/{path}", recursive=True)]
    if not found:
        return f"is not in the working directory {working_dir}"
    for file in (inner for match in found for inner in ([*match.rglob("*")] if match.is_dir() else [match])):
        resolved = file.parent.resolve() / file.name
        if not resolved.is_relative_to(working_dir):
            return f"is outside the working directory {working_dir}"
        if pattern := _ignoring_pattern(resolved.relative_to(working_dir), working_dir):
            return f"is not uploaded ({pattern})"
    return None


def _ignoring_pattern(file: Path, working_dir: Path) -> str | None:
    """The pattern that keeps a file from being uploaded, and its place; None if there is none.

    It errs on the side of finding one: `*` also matches `/`, and a name matches in every directory.
    """
    found = _last_match(file, NOT_UPLOADED, place="never uploaded")
    for directory in file.parents:
        for name in _IGNORE_FILES:
            ignored = working_dir / directory / name
            if ignored.is_file():
                lines = ignored.read_text(encoding="utf-8", errors="replace").splitlines()
                found = found or _last_match(file.relative_to(directory), lines, place=str(directory / name))
    return found


def _last_match(file: Path, patterns: Sequence[str], *, place: str) -> str | None:
    found = None
    for pattern in (line.strip() for line in patterns):
        bare = pattern.removeprefix("!").removeprefix("**/").removesuffix("/**").strip("/")
        if not bare or pattern.startswith("#"):
            continue
        if any(fnmatch(part.name, bare) or fnmatch(str(part), bare) for part in (file, *file.parents)):
            found = None if pattern.startswith("!") else f"{place}: {pattern}"
    return found
