"""The handshake: whether a worker's machine has what the driver has, before its first task.

Another version of the code or of a library would write other bytes, a missing model would quarantine all input, and an
output on a disk of one machine would be lost. The driver describes what it has; each worker reports what differs.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model_cache import remembered_sha256
from colophon.annotators.plugin_files import PluginFile
from colophon.pipeline.executors.worker import Greeting, greeting
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.durable import TEMPORARY_SUFFIX

_PACKAGES = ("annotators", "pipeline", "shards")
_LIBRARIES = (
    *("datatrove", "gigatoken", "idna", "mistral-common", "numba", "numpy", "orjson", "pyarrow", "tiktoken"),
    *("tldextract", "tokenizers", "zstandard"),
)
"""The libraries on which the bytes of outputs depend."""
SHARED = "set output.path to a directory that all nodes share, or to an object store"


@dataclass(frozen=True)
class RequiredFile:
    """A file that a worker's machine must have with the same content."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The files and directories that a worker's machine must have besides Colophon; paths are absolute."""

    files: tuple[RequiredFile, ...] = ()
    """Models and the tokenizer."""
    modules: tuple[tuple[str, str], ...] = ()
    """Names and sha256 of the modules of annotators that are not Colophon's own."""
    packages: tuple[tuple[str, str], ...] = ()
    """Names and versions of the packages that define annotators."""
    plugins: tuple[PluginFile, ...] = ()
    """Files that define annotators; a worker needs what they import."""
    inputs: tuple[str, ...] = ()
    """Some files of the input."""
    directories: tuple[str, ...] = ()
    """Directories that workers and driver must share: the output."""


@dataclass(frozen=True)
class Checked:
    """A worker's answer to `Requirements`."""

    lacking: tuple[str, ...]
    """A line on each thing that its machine lacks."""
    unshared: str | None = None
    """A directory that it does not share with the driver."""
    written: tuple[str, ...] = ()
    """Paths of the probe files that it wrote; the driver must see them."""


def required_file(path: str) -> RequiredFile:
    """Describe a file of this machine. Its sha256 is computed once and remembered.

    Raises:
        AnnotatorError: it cannot be read.
    """
    digest = remembered_sha256(path)
    return RequiredFile(path, Path(path).stat().st_size, digest)


def full_greeting(node: str = "") -> Greeting:
    """Return this process's versions, with its code and libraries. Cost: 20 ms, once."""
    return replace(greeting(node), code=_code_sha256(), libraries=_libraries())


@cache
def _libraries() -> tuple[tuple[str, str], ...]:
    return tuple((name, _version(name)) for name in _LIBRARIES)


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "none"


@cache
def _code_sha256() -> str:
    digest = sha256()
    for package in _PACKAGES:
        root = Path(importlib.import_module(f"colophon.{package}").__path__[0])
        for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def differences(here: Greeting, there: Greeting) -> list[str]:
    """Return what differs between the driver's installation and a worker's, the driver's first."""
    lines = [
        f"it has {name} {other}, the driver {own}"
        for name, own, other in (
            ("Colophon", here.version, there.version),
            ("Python", here.python, there.python),
        )
        if own != other
    ]
    if lines or here.code == there.code:
        installed: Mapping[str, str] = dict(there.libraries)
        pairs = ((name, own, installed.get(name, "none")) for name, own in here.libraries if not lines)
        return lines + [f"it has {name} {other}, the driver {own}" for name, own, other in pairs if own != other]
    return [f"its modules of Colophon {there.version} differ from the driver's"]


def check_machine(requirements: Requirements, *, probe: str) -> Checked:
    """Return what this machine lacks. Reads and writes a small file in each of `requirements.directories`.

    Args:
        requirements: what the driver has.
        probe: the name of the file that the driver wrote into each directory; it holds its own name.
    """
    lacking = [line for file in requirements.files if (line := _file_problem(file)) is not None]
    lacking += [line for module in requirements.modules if (line := _module_problem(*module)) is not None]
    lacking += [
        f"it has {name} {there}, the driver {own}"
        for name, own in requirements.packages
        if (there := _version(name)) != own
    ]
    lacking += [line for plugin in requirements.plugins if (line := _plugin_problem(plugin)) is not None]
    missing = [path for path in requirements.inputs if not Path(path).exists()]
    if missing:
        lacking.append(f"the input {missing[0]} is missing")
    written: list[str] = []
    for directory in requirements.directories:
        path = _probed(Path(directory), probe)
        if path is None:
            return Checked(tuple(lacking), directory, tuple(written))
        written.append(str(path))
    return Checked(tuple(lacking), None, tuple(written))


def _file_problem(file: RequiredFile) -> str | None:
    path = Path(file.path)
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return f"{path} has {size} bytes, the driver's {file.bytes}"
        return None if remembered_sha256(path) == file.sha256 else f"{path} differs from the driver's (sha256)"
    except FileNotFoundError:
        return f"{path} is missing"
    except (OSError, AnnotatorError) as error:
        return f"{path} cannot be read: {error}"


def _module_problem(name: str, expected: str) -> str | None:
    with suppress(ImportError, ValueError):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            differs = file_sha256(Path(spec.origin)) != expected
            return f"the module {name} differs from the driver's" if differs else None
    return f"the module {name} is missing"


def _plugin_problem(plugin: PluginFile) -> str | None:
    try:
        plugin.module()
    except AnnotatorError as error:
        return str(error)
    return None


def _probed(directory: Path, probe: str) -> Path | None:
    """Read the driver's probe file and write one beside it; None if the directory is not the driver's."""
    answer = directory / f".probe.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}"
    try:
        if (directory / probe).read_text(encoding="utf-8") != probe:
            return None
        answer.write_text(probe, encoding="utf-8")
    except OSError:
        return None
    return answer


class Probe:
    """Small files of the driver in the directories that workers must share."""

    def __init__(self) -> None:
        """Write nothing yet."""
        self.name = f".probe.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}"
        self._paths: list[Path] = []

    def write(self, directories: tuple[str, ...]) -> None:
        """Write the file into each directory, which exists."""
        for directory in directories:
            path = Path(directory, self.name)
            if path not in self._paths:
                self._paths.append(path)
                path.write_text(self.name, encoding="utf-8")

    def remove(self) -> None:
        """Delete the files."""
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()

    def unshared(self, checked: Checked) -> str | None:
        """Return a directory that the worker does not share with this process; deletes the worker's files."""
        unseen = checked.unshared
        for path in map(Path, checked.written):
            try:
                path.unlink()
            except OSError:
                unseen = unseen or str(path.parent)
        return unseen
