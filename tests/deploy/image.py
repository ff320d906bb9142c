"""Runs the commands of `deploy/Dockerfile` that need no root, in a directory and an environment of their own.

    python -m tests.deploy.image

Takes some minutes and a gigabyte, because it installs everything; then runs the installed command on a small input.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.pages import ROOT
from tests.pipeline.small_run import write_small_run

_NEEDS_ROOT = ("apt-get", "useradd")
_ENVIRONMENT = "/opt/colophon"


def main() -> None:
    """Fails with the first command that fails."""
    with tempfile.TemporaryDirectory(prefix="colophon-image-") as directory:
        root = Path(directory)
        (root / "src").mkdir()
        for line in (ROOT / "deploy/Dockerfile").read_text().partition("\nFROM")[2].splitlines():
            instruction, _, rest = line.partition(" ")
            if instruction == "COPY" and "--from" not in rest:
                *sources, target = rest.split()
                for source in sources:
                    _copy(ROOT / source, root / "src" / (target if len(sources) == 1 else source))
            elif instruction == "RUN" and not any(name in rest for name in _NEEDS_ROOT):
                _call(["bash", "-euc", rest.replace(_ENVIRONMENT, f"{root}/environment")], cwd=root / "src")
        recipe = write_small_run(root / "work")
        colophon = root / "environment/bin/colophon"
        _call([str(colophon), "run", str(recipe)], cwd=root / "work")
        _call([str(colophon), "verify", str(recipe)], cwd=root / "work")
        found = list((root / "environment").glob("lib/python*/site-packages/torch"))
        assert not found, "torch brings gigabytes that no run needs"


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _call(command: list[str], *, cwd: Path) -> None:
    print("+", *command, flush=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    subprocess.run(command, cwd=cwd, env=inherited, check=True)


if __name__ == "__main__":
    main()
