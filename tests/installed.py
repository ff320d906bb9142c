"""Colophon as a user installs it: a wheel and an sdist of this checkout, each in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("annotators", "shards", "pipeline", "trainer", "recipes")
_BUILD = "import sys, setuptools.build_meta as build; print(build.build_{kind}(sys.argv[1]))"
_LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Environment:
    """A Python environment: the wheel, and the libraries of the environment that runs the tests."""

    root: Path
    added: frozenset[str]
    """The top-level entries that installing Colophon added to `site-packages`."""

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of a user who knows nothing of the checkout."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_"))}
        return {**inherited, "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def call(self, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        return subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            env=self.variables,
            text=True,
            capture_output=True,
            check=False,
            timeout=_LIMIT_SECONDS,
        )


def copy_checkout(to: Path) -> Path:
    """The files of the project, links kept; nothing that was built or that a run wrote."""
    to.mkdir()
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to)
    ignored = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
    for name in ("colophon", *PACKAGES):
        shutil.copytree(ROOT / name, to / name, symlinks=True, ignore=ignored)
    return to


def build(source: Path, kind: str, to: Path) -> Path:
    """Build a `wheel` or an `sdist` of a source directory, with the backend that pyproject.toml names."""
    to.mkdir(exist_ok=True)
    code = _BUILD.format(kind=kind)
    done = subprocess.run(
        [sys.executable, "-c", code, str(to)], cwd=source, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return to / done.stdout.splitlines()[-1]


def install(wheel: Path, root: Path) -> Environment:
    """A new environment with the wheel. Its libraries are those of this one, without the checkout."""
    venv.create(root, symlinks=True)
    (packages,) = root.glob("lib/python*/site-packages")
    # A path in a .pth file is searched for modules; the .pth files in it, such as that of an editable install, are not
    # read.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    before = {path.name for path in packages.iterdir()}
    pip = [sys.executable, "-m", "pip", "--python", str(root / "bin" / "python"), "--disable-pip-version-check"]
    options = ["--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    subprocess.run([*pip, "install", *options, str(wheel)], check=True, capture_output=True)
    return Environment(root, frozenset({path.name for path in packages.iterdir()} - before))
