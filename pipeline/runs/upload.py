"""The upload of a submitted job: the recipe, its plugins, models and tokenizer, and Colophon's own code; nothing else.

A directory that people work in also holds keys, histories and other data. So the files to upload are listed one by one
and copied to an empty directory, which is what is sent. No link out of the working directory is followed.

The code is that of the running command, from a checkout or an installation, so that the job runs the same version.
Input and output are never uploaded: they must be where every node finds them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import colophon
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.loading import local_paths
from colophon.pipeline.recipe.schema import Recipe
from colophon.shards.tokenizer.files import sidecar_path

MAX_UPLOAD_BYTES = 95 << 20
"""The most that is sent: Ray's job server takes a request of 100 MiB."""
_CODE = (".py", ".toml", ".css", ".js", ".typed")
_SHOWN_FILES = 20


@dataclass(frozen=True)
class Upload:
    """The files of a job, each by its path in the job's directory."""

    files: dict[str, Path]
    """The recipe and the files that it names."""
    code: dict[str, Path]
    """The files of Colophon's package."""

    def lines(self, *, most: int | None = _SHOWN_FILES) -> list[str]:
        """The upload, human-readable: the number of files and bytes, and the first `most` files."""
        shown = list(self.files)[:most]
        rest = len(self.files) - len(shown)
        return [
            f"upload: {self.num_bytes / 1e6:.1f} MB: {len(self.code):,} files of Colophon {colophon.__version__} and",
            *(f"  {name}  {self.files[name].stat().st_size:,} bytes" for name in shown),
            *([f"  and {rest:,} more"] if rest else []),
        ]

    @property
    def num_bytes(self) -> int:
        """The size of all files."""
        return sum(path.stat().st_size for path in (*self.files.values(), *self.code.values()))

    def copy_to(self, directory: Path) -> None:
        """Copy all files into an empty directory."""
        for name, path in (*self.files.items(), *self.code.items()):
            copy = directory / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def plan_upload(recipe: Recipe, *, where: str, recipe_file: Path | None, working_dir: Path) -> Upload:
    """The files that a job needs whose directory is an upload of parts of `working_dir`.

    Args:
        recipe: the recipe; its relative paths are those of `working_dir`.
        where: the recipe's name in errors.
        recipe_file: the recipe's file, with the plugins beside it; None for a bundled recipe.
        working_dir: the directory.

    Raises:
        UsageError: the output or an input is relative, so that it would be lost with the job's directory, or missing
            in it; a relative model or tokenizer is not in `working_dir`, or leads out of it; or all files are too large
            for Ray.
    """
    for key, path, fate in _places(recipe):
        if is_relative(path):
            raise UsageError(
                f"submit: {where}: {key} {path} is relative: {fate}. "
                "Set an absolute path that all nodes share, or an object store"
            )
    directory = _Directory(working_dir.absolute(), where)
    files: dict[str, Path] = {}
    if recipe_file is not None:
        files |= directory.files("recipe", str(recipe_file), [recipe_file.absolute()])
        for name in recipe.plugins.files:
            files |= directory.files("plugins.files", name, [recipe_file.absolute().parent / name])
    for key, path in local_paths(recipe):
        if is_relative(path):
            place = directory.path / path
            beside = [sidecar_path(place)] if key == "tokenizer.path" and sidecar_path(place).is_file() else []
            files |= directory.files(key, path, [place, *beside])
    upload = Upload(files, dict(_code()))
    if upload.num_bytes > MAX_UPLOAD_BYTES:
        largest = max(upload.files, key=lambda name: upload.files[name].stat().st_size)
        raise UsageError(
            f"submit: {where}: the upload has {upload.num_bytes / 1e6:,.0f} MB, Ray's job server takes "
            f"{MAX_UPLOAD_BYTES / 1e6:,.0f} MB. Put {largest} at an absolute path that all nodes share"
        )
    return upload


def _places(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """The addresses of output and input: the key, the address, and what would become of it in a job."""
    yield "output.path", recipe.output.path, "it would be lost with the job's directory"
    for source in recipe.sources:
        yield from ((f"{source.key}.paths", path, "input is not uploaded") for path in source.paths)


def _code() -> Iterator[tuple[str, Path]]:
    """The files of the running package by their paths in the job; in a checkout its parts are links."""
    root = Path(colophon.__file__).parent
    waiting = [root]
    while waiting:
        for entry in sorted(waiting.pop().iterdir()):
            if entry.name.startswith((".", "__pycache__")):
                continue
            if entry.is_dir():
                waiting.append(entry)
            elif entry.suffix in _CODE:
                yield entry.relative_to(root.parent).as_posix(), entry.resolve()


def is_relative(path: str) -> bool:
    """Whether a path is one of the working directory; a URL is not."""
    return "://" not in path and not path.startswith(("~", "file:/")) and not Path(path).is_absolute()


class _Directory:
    """The working directory."""

    def __init__(self, path: Path, where: str) -> None:
        self.path, self._real, self._where = path, path.resolve(), where

    def files(self, key: str, path: str, found: list[Path]) -> dict[str, Path]:
        """The files that a path of the recipe leads to, by their paths in the job's directory."""
        if not found:
            raise self._refusal(key, path, f"is not in the working directory {self.path}")
        return dict(self._file(key, path, file) for file in found)

    def _file(self, key: str, path: str, file: Path) -> tuple[str, Path]:
        real = self._check_inside(key, path, file)
        if not real.is_file():
            what = "is not a regular file" if real.exists() else f"is not in the working directory {self.path}"
            raise self._refusal(key, path, what)
        return file.relative_to(self.path).as_posix(), real

    def _check_inside(self, key: str, path: str, file: Path) -> Path:
        """The place of a file or directory without links."""
        real = file.resolve()
        if not real.is_relative_to(self._real) or not file.is_relative_to(self.path) or ".." in file.parts:
            is_inside = file.is_relative_to(self.path) and ".." not in file.parts
            named = str(file.relative_to(self.path)) if is_inside else path
            raise self._refusal(key, named, f"is outside the working directory {self.path}")
        return real

    def _refusal(self, key: str, path: str, reason: str) -> UsageError:
        return UsageError(
            f"submit: {self._where}: {key}: {path} {reason}, and would be missing on the cluster. "
            "Set an absolute path that all nodes share, or put it into the working directory"
        )
