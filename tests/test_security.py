"""`SECURITY.md` names tests; each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def named_tests() -> list[tuple[str, str]]:
    """The file and the name (empty for a whole file) of every test in the table, in order."""
    found, file = [], ""
    for row in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines():
        names = re.findall(r"`([^`]+)`", row.rpartition(" | ")[2]) if row.startswith("| ") else []
        for name in names:
            path, _, test = name.rpartition("::")
            whole_file = name.endswith(".py")
            file = name if whole_file else path or ("tests/test_trust.py" if "::" not in name else file)
            found.append((file, "" if whole_file else test))
    return found


def test_every_test_that_security_names_exists() -> None:
    named = named_tests()
    assert len(named) > 15
    missing = [(file, name) for file, name in named if name not in {"", *names_in(ROOT / file)}]
    assert missing == []


def names_in(path: Path) -> set[str]:
    """The classes and functions of a test module, methods included."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
