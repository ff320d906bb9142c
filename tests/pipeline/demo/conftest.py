"""The site-packages of which the tests of the demo build a corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.demo.site_packages import MATHS, WEB, install, module, parameters, prose


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Twelve distributions of two topics, each with four modules of prose and two of parameters."""
    root = tmp_path / "site-packages"
    for number in range(12):
        name = f"pkg{number:02d}"
        files: dict[str, str | bytes] = {f"{name}/part{k}.py": module(f"{name}{k}") for k in range(4)}
        files |= {f"{name}/args{k}.py": parameters(f"{name}{'ab'[k]}") for k in range(2)}
        install(root, name, files, classifier=(MATHS, WEB)[number % 2], description=f"# {name}\n\n{prose(name)}\n")
    return root
