"""`SECURITY.md` and `docs/reliability.md` name tests; each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def named_tests(document: str) -> list[tuple[str, str]]:
    """The file and the name (empty for a whole file) of every test in a document's tables, in order."""
    found, file = [], ""
    for row in (ROOT / document).read_text(encoding="utf-8").splitlines():
        names = re.findall(r"`([^`]+)`", row.rpartition(" | ")[2]) if row.startswith("| ") else []
        for name in names:
            path, _, test = name.rpartition("::")
            whole_file = name.endswith(".py")
            file = name if whole_file else path or ("tests/test_trust.py" if "::" not in name else file)
            found.append((file, "" if whole_file else test))
    return found


@pytest.mark.parametrize("document", ["SECURITY.md", "docs/reliability.md"])
def test_every_test_that_a_document_names_exists(document: str) -> None:
    named = named_tests(document)
    assert len(named) > 15
    missing = [(file, name) for file, name in named if name not in {"", *names_in(ROOT / file)}]
    assert missing == []


def names_in(path: Path) -> set[str]:
    """The classes and functions of a test module, methods included."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}
