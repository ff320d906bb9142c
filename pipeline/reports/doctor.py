"""The lines of `colophon doctor`: one for each finding, and what to do below it."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from colophon.pipeline.doctor.check import Finding
from colophon.pipeline.errors import printable

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}
_NAME_WIDTH = 12


def print_finding(finding: Finding, *, console: Console) -> None:
    """Print a finding as it comes; the checks take seconds."""
    state = Text(f"{finding.state:<8}", style=_STYLES[finding.state])
    console.print(
        Text.assemble(state, f"{printable(finding.name):<{_NAME_WIDTH}} ", printable(finding.found)),
        highlight=False,
        soft_wrap=True,
    )
    if finding.remedy:
        console.print(f"{'':<8}{'':<{_NAME_WIDTH}} -> {printable(finding.remedy)}", highlight=False, soft_wrap=True)
